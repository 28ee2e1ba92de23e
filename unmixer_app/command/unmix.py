"""`unmix FILE` and `unmix FOLDER`: from sounds to patches."""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path


def run(words: Sequence[str]) -> int:
    """Un-mix a file or a folder; returns the exit status."""
    options = parser().parse_args(words)
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.CRITICAL, format="%(name)s: %(message)s"
    )
    from unmixer_app.answer import request as answer_request
    from unmixer_app.answer.progress import ProgressLine
    from unmixer_app.command import batch, single

    request = answer_request.Request.of(options)
    if options.input.is_dir():
        return batch.run(options.input, options.out, request)
    document = single.run(options.input, options.out, request)
    if options.json:
        sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")
        sys.stdout.flush()
    if options.push:
        single.pushed(single.place(options.input, options.out), ProgressLine(options.input.name))
    return 0


def parser(commands: str = "") -> argparse.ArgumentParser:
    """The options of un-mixing; `commands` is the list of commands below them."""
    options = argparse.ArgumentParser(
        prog="unmix",
        description="From a sound to the Ableton Live patch that makes it.",
        epilog=commands,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = options.add_argument
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
        type=_model,
        default=None,
        metavar="FOLDER",
        help="folder of the model, or local: models/full of this checkout "
        "(default: models/pretrained)",
    )
    add("--verbose", action="store_true", help="say what happens inside")
    return options


def _model(text: str) -> Path:
    from unmixer_app.answer.resources import LOCAL_MODEL

    return LOCAL_MODEL if text == "local" else Path(text)


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
