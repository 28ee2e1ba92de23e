"""`unmix push`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

TRACE_HELP = "write every datagram to and from the host to this file, one JSON object a line"


def run(words: Sequence[str]) -> int:
    """Send a patch file to Live; returns the exit status."""
    parser = argparse.ArgumentParser(prog="unmix push", description="A patch into Ableton Live.")
    parser.add_argument("patch", type=Path, help="a patch.json")
    parser.add_argument(
        "--adapt", action="store_true", help="leave what stock AbletonOSC cannot set, and say so"
    )
    parser.add_argument("--trace", type=Path, metavar="FILE", help=TRACE_HELP)
    options = parser.parse_args(words)
    logging.basicConfig(level=logging.CRITICAL)
    from unmixer_app.command import single

    sys.stdout.write(f"{single.push(options.patch, adapt=options.adapt, trace=options.trace)}\n")
    return 0
