"""Which processes of a kind run below this one.

Other processes start and end meanwhile, so a list must bear that.
"""

from __future__ import annotations

import signal

import psutil


def default_interrupt() -> None:
    """Let a child end on SIGINT; for `Popen(preexec_fn=...)`.

    A child inherits SIG_IGN when the suite itself was started with SIGINT ignored (`nohup`, a
    shell's background job), and Python then installs no KeyboardInterrupt.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


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
