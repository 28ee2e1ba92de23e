"""Which processes of a kind run below this one: other processes start and end meanwhile, so a list must bear that."""

from __future__ import annotations

from contextlib import suppress

import psutil


def with_words(*words: str, below: int | None = None, recursive: bool = False) -> list[psutil.Process]:
    """Living children of the process `below` (None: this one) that have one of the words in their command line."""
    found = []
    for process in psutil.Process(below).children(recursive=recursive):
        with suppress(psutil.Error):  # it has just ended: a zombie has no command line
            line = " ".join(process.cmdline())
            if any(word in line for word in words):
                found.append(process)
    return found
