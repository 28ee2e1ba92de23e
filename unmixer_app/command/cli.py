"""`unmix`: the command line. It picks the command and says what goes wrong in one sentence.

    unmix sample.wav                     a patch in unmixed/sample/
    unmix samples/ --out answers         a folder: one answer each, and summary.csv
    unmix render patch.json out.wav      play a patch into a sound file
    unmix push patch.json                set a patch in Live
    unmix serve                          the page and the API

A word that is no command is a sound or a folder to un-mix. `unmix ./serve` un-mixes a file called
serve.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from unmixer_app.command import push, render, serve, unmix
from unmixer_app.command.parsing import Command
from unmixer_core.errors import UnmixerError
from unmixer_core.recording.sound_file import shown

INTERRUPTED = 130
#: What follows `unmix`; a new word is one line here.
COMMANDS: dict[str, Command] = {
    "render": render.COMMAND,
    "push": push.COMMAND,
    "serve": serve.COMMAND,
}


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    0: done. 1: an error, one sentence on standard error. 2: wrong usage. 130: interrupted before
    there was an answer.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(words)
    except KeyboardInterrupt as stopped:
        _fail(str(stopped) or "interrupted before there was an answer.")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of standard output has gone: nothing more is written to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except (UnmixerError, OSError, UnicodeError, MemoryError) as error:
        _fail(_sentence(error))
        return 1


def _dispatch(words: list[str]) -> int:
    if words and words[0] in COMMANDS:
        command = COMMANDS[words[0]]
        parser = argparse.ArgumentParser(
            prog=f"unmix {words[0]}", description=f"{command.summary}."
        )
        command.add_arguments(parser)
        return command.run(parser.parse_args(words[1:]))
    parser = _file_parser()
    return unmix.run(parser.parse_args(words))


def _file_parser() -> argparse.ArgumentParser:
    """The parser of `unmix FILE`, whose help names the other commands too."""
    lines = [f"  unmix {name:<8} {command.summary}" for name, command in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="unmix",
        usage="unmix [options] FILE|FOLDER\n       unmix COMMAND ...",
        description="From a sound to the Ableton Live patch that makes it.",
        epilog="commands (`unmix COMMAND --help` names their options):\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    unmix.add_arguments(parser)
    return parser


def _sentence(error: BaseException) -> str:
    if isinstance(error, UnmixerError):
        return " ".join(str(error).split())
    if isinstance(error, UnicodeError):
        return "a name holds characters that cannot be written here."
    if isinstance(error, MemoryError):
        return "not enough memory for this."
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    name = getattr(error, "filename", None)
    if isinstance(name, str | bytes):
        return f"{reason}: {shown(Path(os.fsdecode(name)))}."
    return f"{reason}."


def _fail(sentence: str) -> None:
    printable = "".join(c if c.isprintable() else "?" for c in sentence)
    sys.stderr.write(f"error: {printable}\n")
