"""`python -m unmixer_core.live doctor`: examines the host that UNMIXER_LIVE_HOST names, or an embedded one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from unmixer_core.errors import UnmixerError
from unmixer_core.live import doctor
from unmixer_core.live.recorder import Take


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m unmixer_core.live", description=__doc__)
    parser.add_argument("command", choices=["doctor"])
    parser.add_argument("--sample-rate", type=int, default=44100, help="rate in Hz that recordings should have")
    parser.add_argument("--clip-s", type=float, default=2.0, help="length of a take in seconds")
    parser.add_argument("--trace", type=Path, help="write every datagram to this file, one JSON object a line")
    options = parser.parse_args()
    try:
        return doctor.run(Take(options.sample_rate, options.clip_s), options.trace)
    except UnmixerError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
