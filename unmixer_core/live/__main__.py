"""`python -m unmixer_core.live doctor`.

Examines the host that UNMIXER_LIVE_HOST names, or an embedded one.

Exit status: 0 all good, 1 something is bad, 2 the command line is wrong.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from unmixer_core.errors import UnmixerError
from unmixer_core.live import doctor
from unmixer_core.live.session.take import Take


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m unmixer_core.live", description=__doc__)
    parser.add_argument("command", choices=["doctor"])
    parser.add_argument(
        "--embedded",
        action="store_true",
        help="examine an embedded host, whatever UNMIXER_LIVE_HOST names",
    )
    parser.add_argument(
        "--stock", action="store_true", help="with --embedded: a host without the companion"
    )
    parser.add_argument(
        "--auto-filter-2",
        action="store_true",
        help="with --embedded: Auto Filter as Live 12.2 and later inserts it",
    )
    parser.add_argument(
        "--sample-rate", type=int, default=44100, help="rate in Hz that recordings should have"
    )
    parser.add_argument("--clip-s", type=float, default=2.0, help="length of a take in seconds")
    parser.add_argument(
        "--trace", type=Path, help="write every datagram to this file, one JSON object a line"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    asked = [
        word
        for word, given in (("--stock", options.stock), ("--auto-filter-2", options.auto_filter_2))
        if given
    ]
    if asked and not options.embedded:
        parser.error(
            f"{' and '.join(asked)} says what the embedded host is like: give --embedded too"
        )
    take = Take(options.sample_rate, options.clip_s)
    try:
        return doctor.run(doctor.Question(take, options.trace, options.embedded, asked))
    except UnmixerError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
