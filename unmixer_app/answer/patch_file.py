"""patch.json: a patch for people and programs, with the model's intervals and probabilities."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unmixer_core.errors import ConfigError
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK
from unmixer_core.system import files
from unmixer_core.system.json_types import Json, JsonView

if TYPE_CHECKING:
    from unmixer_core.inference.marginals import Intervals

MAX_BYTES = 16 << 20


def describe(
    patch: Patch, intervals: Intervals | None = None, probabilities: JsonView | None = None
) -> Json:
    """`Patch.to_dict` with `digest`.

    Every knob with `intervals` (per cent → low, high, physical) and every choice with
    `probabilities` (item → share), where they are given.
    """
    data = patch.to_dict() | {"digest": patch.digest}
    for device in data["devices"]:
        for key, entry in device["knobs"].items():
            if intervals is not None:
                entry["intervals"] = _physical(intervals, f"{device['key']}.{key}")
        for key, entry in device["choices"].items():
            if probabilities is not None:
                entry["probabilities"] = {
                    item: round(share, 5)
                    for item, share in probabilities["choices"][f"{device['key']}.{key}"].items()
                }
    return data


def _physical(intervals: Intervals, identity: str) -> dict[str, list[float]]:
    column = RACK.knob_index[identity]
    law = RACK.knobs[column].knob.to_physical
    edges = zip(
        intervals.levels, intervals.low[:, 0, column], intervals.high[:, 0, column], strict=True
    )
    return {
        f"{round(100 * level)}": [float(law(float(low))), float(law(float(high)))]
        for level, low, high in edges
    }


def write(path: Path, data: JsonView) -> None:
    """JSON without NaN, written to a temporary name, then moved."""
    files.write_text(path, json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read(path: Path) -> Patch:
    """The patch of a file.

    Raises ConfigError, one sentence, when it holds none (SchemaMismatch: of another schema).
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} is too large for a patch.")
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as a patch ({_reason(error)}).") from None
    return parse(data, str(path))


def parse(data: Json, name: str = "this") -> Patch:
    """The patch of patch.json's content.

    Raises ConfigError, one sentence that calls it `name`, or SchemaMismatch.
    """
    try:
        patch = Patch.from_dict(data)
        _sound(patch)
        return patch
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ConfigError(
            f"{name} is no patch of this project ({type(error).__name__}: {_reason(error)})."
        ) from None


def _sound(patch: Patch) -> None:
    if not np.isfinite(patch.knobs).all() or (patch.knobs < 0).any() or (patch.knobs > 1).any():
        raise ValueError("a knob's unit value is not from 0 to 1")
    if not 0 <= patch.note <= 127 or not (math.isfinite(patch.gate_s) and 0 < patch.gate_s <= 60):
        raise ValueError("its note or gate cannot be played")


def _reason(error: BaseException) -> str:
    text = " ".join(str(getattr(error, "strerror", "") or error).split()).rstrip(".")
    return text if len(text) <= 160 else f"{text[:157]}..."
