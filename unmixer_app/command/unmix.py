"""`unmix FILE` and `unmix FOLDER`: from sounds to patches."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from unmixer_app.command.parsing import (
    budget_seconds,
    candidate_count,
    gate_seconds,
    midi_note,
    step_count,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of an un-mixing."""
    add = parser.add_argument
    add("input", type=Path, help="a sound file (WAV, AIFF, FLAC, OGG, MP3), or a folder of them")
    add("--out", type=Path, default=None, help="where answers go (default: unmixed/<name>)")
    add("--note", type=midi_note, help="MIDI note that is played, instead of detecting it")
    add(
        "--gate",
        type=gate_seconds,
        metavar="SECONDS",
        help="how long the key is held, instead of detecting it",
    )
    add("--candidates", type=candidate_count, help="candidates that are refined and rendered")
    add("--itf-steps", type=step_count, metavar="N", help="refinement steps, at most")
    add("--no-itf", action="store_true", help="no refinement through the proxy")
    add(
        "--fast",
        action="store_true",
        help="a few proposals, rendered once: seconds instead of a minute",
    )
    add(
        "--polish",
        type=budget_seconds,
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
        help="folder of the model, or `local` for models/full, which `make repro` trains "
        "(default: the shipped models/pretrained)",
    )
    add("--verbose", action="store_true", help="say what happens inside")


def run(options: argparse.Namespace) -> int:
    """Un-mix a sound, or every sound of a folder."""
    level = logging.INFO if options.verbose else logging.CRITICAL
    logging.basicConfig(level=level, format="%(name)s: %(message)s")
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
