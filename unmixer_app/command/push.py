"""`unmix push patch.json`: set a patch in Ableton Live."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from unmixer_app.command.parsing import TRACE, Command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A patch, and what to do where Live cannot take all of it."""
    parser.add_argument("patch", type=Path, help="a patch.json")
    parser.add_argument(
        "--adapt", action="store_true", help="leave what stock AbletonOSC cannot set, and say so"
    )
    parser.add_argument("--trace", type=Path, metavar="FILE", help=TRACE)


def run(options: argparse.Namespace) -> int:
    """Set the patch and print the report of what was set."""
    logging.basicConfig(level=logging.CRITICAL)
    from unmixer_app.command import single

    sys.stdout.write(f"{single.push(options.patch, adapt=options.adapt, trace=options.trace)}\n")
    return 0


COMMAND = Command("Set a patch in Ableton Live", add_arguments, run)
