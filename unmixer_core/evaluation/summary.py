"""The rows of an evaluation as flat metrics, and as the data of a plot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from unmixer_core import config
from unmixer_core.metrics import statistics
from unmixer_core.schema.patch import PHASES
from unmixer_core.scoring.measures import MEASURES

#: Rows of the table in reading order. `nearest` is the better of the training render as it is and
#: its patch at the target's note.
ROWS = ("init", "random", "mean", "nearest_as_is", "nearest", "prediction_mode", "prediction")


def summarise(rows: pd.DataFrame, names: Sequence[str], settings: config.Score) -> dict[str, float]:
    """Return flat metrics of every phase and row.

    `<phase>.<row>.<measure>` is a median, `.mss_db_low` and `.mss_db_high` are the bootstrap
    interval of the median MSS, `.n` is the number of clips. On the clips that have both,
    `.beats_nearest` is the share on which the row's MSS is below that of `nearest`, and
    `.mss_db_vs_nearest` is the ratio of the medians.
    """
    flat: dict[str, float] = {}
    for phase in PHASES:
        part = rows[rows["phase"] == phase]
        nearest = part[part["row"] == "nearest"].set_index("id")["mss_db"]
        for name in names:
            own = part[part["row"] == name].set_index("id")
            if own.empty:
                continue
            values = _medians(own, settings)
            if name != "nearest":
                values |= _against_nearest(own["mss_db"], nearest)
            for key, value in values.items():
                flat[f"{phase}.{name}.{key}"] = value
    return flat


def _medians(own: pd.DataFrame, settings: config.Score) -> dict[str, float]:
    """Medians of the measures of one row, with the bootstrap interval of MSS."""
    values = {"n": float(len(own))}
    for measure_name in MEASURES:
        measured = own[measure_name].dropna().to_numpy()
        if measured.size:
            values[measure_name] = float(np.median(measured))
    low, high = statistics.bootstrap(
        own["mss_db"].to_numpy(),
        n=settings.bootstrap,
        confidence=settings.confidence,
        seed=settings.seed,
    )
    values["mss_db_low"] = float(low)
    values["mss_db_high"] = float(high)
    return values


def _against_nearest(own: pd.Series, nearest: pd.Series) -> dict[str, float]:
    """MSS of one row against that of `nearest`, on the clips that have both."""
    shared = own.index.intersection(nearest.index)
    if not len(shared):
        return {}
    wins = own.loc[shared] < nearest.loc[shared]
    # the median of `nearest` may be 0: a clip of the training set is then the target itself
    ratio = own.loc[shared].median() / max(nearest.loc[shared].median(), 1e-9)
    return {"beats_nearest": float(wins.mean()), "mss_db_vs_nearest": float(ratio)}


def plot_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the data of `dvc plots`: the sorted MSS of each row of each phase.

    Columns: phase, row, share of the clips, mss_db.
    """
    parts = []
    for (phase, row), part in rows[rows["row"].isin(ROWS)].groupby(["phase", "row"], sort=False):
        values = np.sort(part["mss_db"].to_numpy())
        share = (np.arange(len(values)) + 1) / len(values)
        parts.append(pd.DataFrame({"phase": phase, "row": row, "share": share, "mss_db": values}))
    return pd.concat(parts, ignore_index=True)
