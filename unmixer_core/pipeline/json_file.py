"""Metrics as JSON: floats rounded, keys sorted, written to a temporary name and moved."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmixer_core.system.json_types import Json, JsonView

if TYPE_CHECKING:
    pass


def rounded(values: JsonView) -> Json:
    """Nested metrics as JSON can hold them.

    Floats to six significant digits, non-finite ones as null, keys sorted.
    """
    return {str(key): _rounded(values[key]) for key in sorted(values, key=str)}


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return rounded(value)
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    number = float(value)
    return (
        (float(f"{number:.6g}") if not number.is_integer() else number)
        if math.isfinite(number)
        else None
    )


def write_json(path: Path, values: JsonView) -> None:
    """Sorted, indented JSON, written beside the target and moved onto it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(
        json.dumps(values, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8"
    )
    os.replace(temporary, path)
