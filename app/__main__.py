"""`python -m app sample.wav` is `unmix sample.wav`."""

import sys

from app.cli import run

if __name__ == "__main__":
    sys.exit(run())
