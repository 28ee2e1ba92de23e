"""`python -m unmixer_app sample.wav` is `unmix sample.wav`."""

import sys

from unmixer_app.command.cli import run

if __name__ == "__main__":
    sys.exit(run())
