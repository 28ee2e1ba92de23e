"""`unmix`: the command line.

Finds the command, runs it, and says what goes wrong in one sentence.

unmix sample.wav                     a patch in unmixed/sample/
unmix samples/ --out answers         a folder: one answer each, and summary.csv; run again to go on
unmix render patch.json out.wav      what a patch sounds like
unmix push patch.json                a patch into Live
unmix serve                          the service and its web page
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unmixer_app.command import push, render, serve, unmix
from unmixer_core.errors import UnmixerError
from unmixer_core.recording.sound_file import shown

INTERRUPTED = 130


@dataclass(frozen=True)
class Command:
    """A word after `unmix`, with its line in `unmix --help`."""

    summary: str
    run: Callable[[Sequence[str]], int]


#: Every command is one module of this package and one entry here. A file of the same name can
#: still be un-mixed: `unmix ./serve`.
COMMANDS = {
    "render": Command("render a patch to a sound file", render.run),
    "push": Command("send a patch to Ableton Live", push.run),
    "serve": Command("start the service and its web page", serve.run),
}


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns the exit status: 0 done, 1 an error (one sentence on stderr), 2 wrong usage,
    130 interrupted before there was an answer.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _command(words)
    except KeyboardInterrupt as stopped:
        _failed(str(stopped) or "interrupted before there was an answer.")
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more at the end; that must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except (UnmixerError, OSError, UnicodeError, MemoryError) as error:
        return _failed(_sentence(error))


def _command(words: list[str]) -> int:
    if words and words[0] in COMMANDS:
        return COMMANDS[words[0]].run(words[1:])
    if any(word in ("-h", "--help") for word in words):
        unmix.parser(_listing()).parse_args(words)
    return unmix.run(words)


def _listing() -> str:
    lines = ["commands (unmix COMMAND --help shows the options of each):"]
    for name, command in COMMANDS.items():
        lines.append(f"  {name:<8} {command.summary}")
    return "\n".join(lines)


def _sentence(error: Exception) -> str:
    if isinstance(error, UnmixerError):
        return " ".join(str(error).split())
    if isinstance(error, OSError):
        named = ""
        if isinstance(error.filename, str | bytes):
            named = f": {shown(Path(os.fsdecode(error.filename)))}"
        return f"{error.strerror or ' '.join(str(error).split())}{named}."
    if isinstance(error, UnicodeError):
        return "a name holds characters that cannot be written here."
    return "not enough memory for this."


def _failed(sentence: str) -> int:
    sys.stderr.write(f"error: {''.join(c if c.isprintable() else '?' for c in sentence)}\n")
    return 1
