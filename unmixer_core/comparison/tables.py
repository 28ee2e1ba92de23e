"""Tables and numbers of the comparison, made of the rows of `entry.table_rows`.

Medians per method, gains, shares of clips won, quality over time.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from unmixer_core.comparison.entry import IN_DOMAIN, METHODS
from unmixer_core.scoring.measures import MEASURES

#: Names of the two parts: in file names, and before the metrics of the second.
DOMAINS = ("inside", "outside")
#: Methods that the refining ones are compared with.
RIVALS = ("nearest", "cma_equal_renders", "cma_equal_seconds", "cma_unmix_seconds")
#: Methods that refine a prediction.
REFINED = ("itf", "itf_verify", "encoder_itf", "unmix")
#: Smaller changes are rounding.
TIE_DB = 1e-6
#: Medians below this are zero for a ratio.
LEAST_DB = 1e-9


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return medians per method: every measure, seconds, renders; index in the order of METHODS.

    `pair_order`: share of the audible pairs that are in the right order (nan: there are none).
    """
    groups = rows.groupby("row")
    medians = groups[[*MEASURES, "seconds", "renders"]].median()
    pairs = groups["pairs"].sum()
    medians["pair_order"] = groups["pairs_right"].sum() / pairs.where(pairs > 0)
    return medians.reindex([name for name in METHODS if name in medians.index])


def parts(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of each of DOMAINS; a part without rows is left out."""
    is_in_domain = rows["phase"] == IN_DOMAIN
    split = zip(DOMAINS, (rows[is_in_domain], rows[~is_in_domain]), strict=True)
    return {name: part for name, part in split if len(part)}


def flat_metrics(rows: pd.DataFrame) -> dict[str, float]:
    """Return the metrics of in-domain clips, and those of the others with `outside.` before them.

    `clips`; `<row>.<measure>` medians. For methods that refine: `.gain` (drop of the median MSS
    against no_itf), `.share_improved`, `.share_worse`, `.beats_<rival>` (share of clips) and
    `.of_<rival>` (ratio of median MSS).
    """
    flat: dict[str, float] = {}
    for name, part in parts(rows).items():
        prefix = "" if name == DOMAINS[0] else f"{name}."
        for key, value in _domain_metrics(part).items():
            flat[f"{prefix}{key}"] = value
    return flat


def _domain_metrics(rows: pd.DataFrame) -> dict[str, float]:
    flat: dict[str, float] = {}
    for method, line in table(rows).iterrows():
        for column, value in line.items():
            if np.isfinite(value):
                flat[f"{method}.{column}"] = float(value)
    mss_db = rows.pivot_table(index="id", columns="row", values="mss_db")
    flat["clips"] = float(len(mss_db))
    refined = [name for name in REFINED if name in mss_db]
    if "no_itf" in mss_db:
        for name in refined:
            change_db = mss_db[name] - mss_db["no_itf"]
            flat[f"{name}.gain"] = 1.0 - _ratio_of_medians(mss_db[name], mss_db["no_itf"])
            flat[f"{name}.share_improved"] = float((change_db < -TIE_DB).mean())
            flat[f"{name}.share_worse"] = float((change_db > TIE_DB).mean())
    rivals = [rival for rival in RIVALS if rival in mss_db]
    for name in refined:
        for rival in rivals:
            flat[f"{name}.beats_{rival}"] = float((mss_db[name] < mss_db[rival]).mean())
            flat[f"{name}.of_{rival}"] = _ratio_of_medians(mss_db[name], mss_db[rival])
    return flat


def _ratio_of_medians(above: pd.Series, below: pd.Series) -> float:
    return float(above.median() / max(below.median(), LEAST_DB))


def over_time(rows: pd.DataFrame, grid_s: np.ndarray) -> pd.DataFrame:
    """Return the median best MSS so far at each time of `grid_s`.

    Columns: row, seconds, mss_db. Times before every clip has a value are left out.
    """
    lines = []
    for method, part in rows.groupby("row"):
        curves = [np.array(curve, dtype=float) for curve in part["curve"] if len(curve)]
        if not curves:
            continue
        best_db = np.stack([_best_at(curve, grid_s) for curve in curves])
        complete = np.isfinite(best_db).all(axis=0)
        medians_db = np.median(best_db[:, complete], axis=0)
        for seconds, median_db in zip(grid_s[complete], medians_db, strict=True):
            lines.append({"row": method, "seconds": float(seconds), "mss_db": float(median_db)})
    return pd.DataFrame(lines, columns=["row", "seconds", "mss_db"])


def _best_at(curve: np.ndarray, grid_s: np.ndarray) -> np.ndarray:
    """The best MSS known at each time, inf before the first; curve: (renders, seconds, MSS)."""
    place = np.searchsorted(curve[:, 1], grid_s, side="right")
    best_db = np.concatenate([[np.inf], np.minimum.accumulate(curve[:, 2])])
    return best_db[place]
