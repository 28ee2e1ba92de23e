"""`python -m unmixer_core.config check [FILE]` and `...

apply PROFILE [FILE]`: check or change parameters.
"""

from __future__ import annotations

import sys

from unmixer_core.config.files import apply_profile, load
from unmixer_core.errors import ConfigError


def main(arguments: list[str]) -> int:
    """`check [FILE]` or `apply PROFILE [FILE]`; the exit status."""
    match arguments:
        case ["check", *rest] if len(rest) <= 1:
            load(*rest)
        case ["apply", profile, *rest] if len(rest) <= 1:
            for key, value in apply_profile(profile, *rest).items():
                sys.stdout.write(f"{key}: {value}\n")
        case _:
            sys.stderr.write(
                "usage: python -m unmixer_core.config check [FILE] | apply PROFILE [FILE]\n"
            )
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ConfigError as error:
        sys.exit(f"error: {error}")
