"""One method's entry for one clip, and its row in the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unmixer_core.metrics import patch as metrics_patch
from unmixer_core.schema.patch import Patch
from unmixer_core.scoring.measures import measure
from unmixer_core.scoring.targets import ScoreTarget
from unmixer_core.system.json_types import Json

#: Names of the methods, in the order of the table: the values of its column `row`.
METHODS = (
    "random",
    "nearest",
    "no_itf",
    "no_itf_verify",
    "itf",
    "itf_verify",
    "encoder_itf",
    "unmix",
    "cma_equal_renders",
    "cma_equal_seconds",
    "cma_unmix_seconds",
)
#: The phase of in-domain targets. The phase of an out-of-domain target is its kind of sound.
IN_DOMAIN = "full"


@dataclass(frozen=True)
class Entry:
    """One method's answer for one clip.

    method: one of METHODS. audio: [2, time]. seconds: wall clock. renders: of the host. curve:
    (renders, seconds, best MSS in dB so far) points.
    """

    method: str
    patch: Patch
    audio: np.ndarray
    seconds: float
    renders: int
    curve: Sequence[tuple[float, float, float]] = ()


def table_rows(entries: Sequence[Entry], target: ScoreTarget, sample_rate: int) -> list[Json]:
    """Measure the entries of one clip and return them as table rows.

    Columns: phase, id, row (the method), all measures, seconds, renders, chain, curve; `pairs`: how
    many audible pairs of effects the true chain has; `pairs_right`: how many of them the entry has
    in the right order.
    """
    rows = []
    for entry in entries:
        right, _, pairs = metrics_patch.order_hits(entry.patch.effects, target.patch.effects)
        row: Json = {"phase": target.phase, "id": target.id, "row": entry.method}
        row |= measure(entry.audio, target, sample_rate, True)
        row["seconds"] = entry.seconds
        row["renders"] = entry.renders
        row["chain"] = " > ".join(entry.patch.effects)
        row["pairs_right"] = right
        row["pairs"] = pairs
        row["curve"] = [list(map(float, point)) for point in entry.curve]
        rows.append(row)
    return rows
