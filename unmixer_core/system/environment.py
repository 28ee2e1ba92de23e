"""Whole numbers from environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping

from unmixer_core.errors import ConfigError


def integer(
    name: str,
    default: int,
    low: int,
    high: int | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
) -> int:
    """Return the whole number in the variable `name`, `default` when it is unset or empty.

    Raises:
        ConfigError: the text is no whole number in ASCII digits, or outside [low, high].
    """
    text = environ.get(name) or str(default)
    # isdigit alone accepts digits such as "²", which int() refuses.
    if text.isascii() and text.isdigit():
        value = int(text)
        if value >= low and (high is None or value <= high):
            return value
    expected = f"a whole number of {low} or more"
    if high is not None:
        expected = f"a whole number from {low} to {high}"
    raise ConfigError(f"{name} is {text!r}, but {expected} is expected.")
