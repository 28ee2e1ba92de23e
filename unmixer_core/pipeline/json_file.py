"""Metrics as JSON: floats rounded, keys sorted, written to a temporary name and moved."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import SupportsFloat

from unmixer_core.system import files
from unmixer_core.system.json_types import Json, JsonView


def rounded(values: JsonView) -> Json:
    """Nested metrics as JSON can hold them.

    Floats to six significant digits, non-finite ones as null, keys sorted.
    """
    return {str(key): _rounded(values[key]) for key in sorted(values, key=str)}


def _rounded(value: object) -> object:
    if isinstance(value, Mapping):
        return rounded(value)
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if not isinstance(value, SupportsFloat):
        raise TypeError(f"{type(value).__name__} is not a number, text, list or mapping")
    number = float(value)
    if not math.isfinite(number):
        return None
    if number.is_integer():
        return number
    return float(f"{number:.6g}")


def write_json(path: Path, values: JsonView) -> None:
    """Sorted, indented JSON, written beside the target and moved onto it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(values, indent=2, sort_keys=True, allow_nan=False)
    files.write_text(path, text + "\n")
