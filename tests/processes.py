"""Which processes of a kind run below this one.

Other processes start and end meanwhile, so a list must bear that.
"""

from __future__ import annotations

import psutil


def with_words(
    *words: str, below: int | None = None, recursive: bool = False
) -> list[psutil.Process]:
    """Living children of the process `below` (None.

    This one) that have one of the words in their command line.
    """
    children = psutil.Process(below).children(recursive=recursive)
    return [process for process in children if any(word in line_of(process) for word in words)]


def line_of(process: psutil.Process) -> str:
    """Its command line; empty when it has just ended: a zombie has none."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
