"""`unmix render patch.json out.wav`: play a patch into a sound file."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from unmixer_app.command.parsing import TRACE, Command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A patch and a sound file."""
    parser.add_argument("patch", type=Path, help="a patch.json")
    parser.add_argument("out", type=Path, help="the sound file to write (.wav, .flac, .ogg, .aiff)")
    parser.add_argument("--trace", type=Path, metavar="FILE", help=TRACE)


def run(options: argparse.Namespace) -> int:
    """Render the patch by the host."""
    logging.basicConfig(level=logging.CRITICAL)
    from unmixer_app.command import single

    single.render(options.patch, options.out, options.trace)
    return 0


COMMAND = Command("Play a patch into a sound file, by the host", add_arguments, run)
