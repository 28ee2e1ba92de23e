"""`unmix`: the command line.

Reads arguments, says what goes wrong in one sentence, and leaves the work to others.

unmix sample.wav                     a patch in unmixed/sample/
unmix samples/ --out answers         a folder: one answer each, and summary.csv; run again to go on
unmix render patch.json out.wav      what a patch sounds like
unmix push patch.json                a patch into Live
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from unmixer_core.errors import UnmixerError
from unmixer_core.recording.sound_file import shown

INTERRUPTED = 130
TRACE = "write every datagram to and from the host to this file, one JSON object a line"


def run(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 1 an error (one sentence on stderr), 2 wrong usage, 130
    interrupted before there was an answer.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands = {"render": _render, "push": _push}
    command = commands.get(words[0], _unmix) if words else _unmix
    try:
        return command(words[1:] if command is not _unmix else words)
    except UnmixerError as error:
        return _failed(" ".join(str(error).split()))
    except KeyboardInterrupt as stopped:
        _failed(str(stopped) or "interrupted before there was an answer.")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as error:
        named = (
            f": {shown(Path(os.fsdecode(error.filename)))}"
            if isinstance(error.filename, str | bytes)
            else ""
        )
        return _failed(f"{error.strerror or ' '.join(str(error).split())}{named}.")
    except UnicodeError:
        return _failed("a name holds characters that cannot be written here.")
    except MemoryError:
        return _failed("not enough memory for this.")


def _failed(sentence: str) -> int:
    sys.stderr.write(f"error: {''.join(c if c.isprintable() else '?' for c in sentence)}\n")
    return 1


def _unmix(words: Sequence[str]) -> int:
    options = _parser().parse_args(words)
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.CRITICAL, format="%(name)s: %(message)s"
    )
    from unmixer_app.answer import request as answer_request
    from unmixer_app.answer.progress import Progress
    from unmixer_app.command import batch, single

    request = answer_request.Request.of(options)
    if options.input.is_dir():
        return batch.run(options.input, options.out, request)
    document = single.run(options.input, options.out, request)
    if options.json:
        sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")
        sys.stdout.flush()
    if options.push:
        single.pushed(single.place(options.input, options.out), Progress(options.input.name))
    return 0


def _render(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="unmix render", description="What a patch sounds like, by the host."
    )
    parser.add_argument("patch", type=Path, help="a patch.json")
    parser.add_argument("out", type=Path, help="the sound file to write (.wav, .flac, .ogg, .aiff)")
    parser.add_argument("--trace", type=Path, metavar="FILE", help=TRACE)
    options = parser.parse_args(words)
    logging.basicConfig(level=logging.CRITICAL)
    from unmixer_app.command import single

    single.render(options.patch, options.out, options.trace)
    return 0


def _push(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="unmix push", description="A patch into Ableton Live.")
    parser.add_argument("patch", type=Path, help="a patch.json")
    parser.add_argument(
        "--adapt", action="store_true", help="leave what stock AbletonOSC cannot set, and say so"
    )
    parser.add_argument("--trace", type=Path, metavar="FILE", help=TRACE)
    options = parser.parse_args(words)
    logging.basicConfig(level=logging.CRITICAL)
    from unmixer_app.command import single

    sys.stdout.write(f"{single.push(options.patch, adapt=options.adapt, trace=options.trace)}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="unmix",
        description="From a sound to the Ableton Live patch that makes it.",
        epilog="Also: unmix render patch.json out.wav, unmix push patch.json.",
    )
    add = parser.add_argument
    add("input", type=Path, help="a sound file (WAV, AIFF, FLAC, OGG, MP3), or a folder of them")
    add("--out", type=Path, default=None, help="where answers go (default: unmixed/<name>)")
    add("--note", type=_note, help="MIDI note that is played, instead of detecting it")
    add(
        "--gate",
        type=_seconds,
        metavar="SECONDS",
        help="how long the key is held, instead of detecting it",
    )
    add("--candidates", type=_count, help="candidates that are refined and rendered")
    add("--itf-steps", type=_steps, metavar="N", help="refinement steps, at most")
    add("--no-itf", action="store_true", help="no refinement through the proxy")
    add(
        "--fast",
        action="store_true",
        help="a few proposals, rendered once: seconds instead of a minute",
    )
    add(
        "--polish",
        type=_budget,
        metavar="SECONDS",
        help="time of the last search on the host; 0: none (default: what is left)",
    )
    add(
        "--lock",
        action="append",
        default=[],
        metavar="CONTROL=VALUE",
        help="hold a control, e.g. wavetable.filter_1_type=Lowpass",
    )
    add("--chain", help='the effects in order, e.g. "Saturator>Reverb", or none')
    add("--push", action="store_true", help="send the patch to Live as well")
    add(
        "--json",
        action="store_true",
        help="print patch.json's content on standard output, one line a sound",
    )
    add(
        "--model",
        type=Path,
        default=None,
        help="folder of the model (default: models/full, else models/pretrained)",
    )
    add("--verbose", action="store_true", help="say what happens inside")
    return parser


def _number(text: str, low: float, high: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value


def _note(text: str) -> int:
    return int(_whole(text, 0, 127, "a MIDI note from 0 to 127"))


def _count(text: str) -> int:
    return _whole(text, 1, 64, "a whole number from 1 to 64")


def _steps(text: str) -> int:
    return _whole(text, 0, 10_000, "a whole number from 0 to 10000")


def _seconds(text: str) -> float:
    return _number(text, 0.01, 60.0, "a time from 0.01 to 60 seconds")


def _budget(text: str) -> float:
    return _number(text, 0.0, 86_400.0, "a time from 0 to 86400 seconds")


def _whole(text: str, low: int, high: int, what: str) -> int:
    value = _number(text, low, high, what)
    if value != int(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return int(value)
