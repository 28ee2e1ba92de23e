"""`unmix render`."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

TRACE_HELP = "write every datagram to and from the host to this file, one JSON object a line"


def run(words: Sequence[str]) -> int:
    """Render a patch file to a sound file; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="unmix render", description="What a patch sounds like, by the host."
    )
    parser.add_argument("patch", type=Path, help="a patch.json")
    parser.add_argument("out", type=Path, help="the sound file to write (.wav, .flac, .ogg, .aiff)")
    parser.add_argument("--trace", type=Path, metavar="FILE", help=TRACE_HELP)
    options = parser.parse_args(words)
    logging.basicConfig(level=logging.CRITICAL)
    from unmixer_app.command import single

    single.render(options.patch, options.out, options.trace)
    return 0
