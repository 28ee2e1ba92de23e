"""The bars that a benchmark's figures are held to, told beside the figures in the same run."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping

from unmixer_core.system.json_types import Json, JsonView

SIGNS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, "==": operator.eq}
Bounds = Mapping[str, tuple[str, float]]


def held(figures: JsonView, bounds: Bounds) -> dict[str, Json]:
    """Per bound whose figure was measured.

    Its value, what is wanted and whether that is met (NaN meets nothing).

    A bound's name is a key of `figures`, or the keys of nested mappings with dots between them.
    """
    found = {}
    for name, (sign, bar) in bounds.items():
        value = _value(figures, name)
        if value is not None:
            met = not math.isnan(value) and bool(SIGNS[sign](value, bar))
            found[name] = {"value": value, "wanted": f"{sign} {bar:g}", "met": met}
    return found


def _value(figures: JsonView, name: str) -> float | None:
    if name in figures:
        return None if figures[name] is None else float(figures[name])
    head, _, rest = name.partition(".")
    inner = figures.get(head)
    return _value(inner, rest) if rest and isinstance(inner, Mapping) else None
