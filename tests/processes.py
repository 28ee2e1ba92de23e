"""Which processes of a kind run below this one.

Other processes start and end meanwhile, so a list must bear that.
"""

from __future__ import annotations

import os

import psutil


def in_group(group: int) -> list[int]:
    """Ids of the processes that still run in a process group."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess, PermissionError):
            continue
    return found


def with_words(
    *words: str, below: int | None = None, recursive: bool = False
) -> list[psutil.Process]:
    """List the living children that have one of the words in their command line.

    They are those of the process `below`, of this process when it is None.
    """
    children = psutil.Process(below).children(recursive=recursive)
    return [process for process in children if any(word in line_of(process) for word in words)]


def line_of(process: psutil.Process) -> str:
    """Its command line; empty when it has just ended: a zombie has none."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
