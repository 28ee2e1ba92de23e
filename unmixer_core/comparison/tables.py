"""What a contest found, as tables and numbers.

Medians per contestant, gains, shares of clips won, quality over time.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from unmixer_core.comparison.methods import CONTESTANTS, INSIDE
from unmixer_core.scoring.score import MEASURES

DOMAINS = ("inside", "outside")
RIVALS = ("nearest", "cma_equal_renders", "cma_equal_seconds", "cma_unmix_seconds")
REFINED = ("itf", "itf_verify", "encoder_itf", "unmix")
TIE_DB = 1e-6


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Medians per contestant: every measure, seconds, renders.

    Share of the audible pairs in the right order (nan: there are none). Index in the order of
    CONTESTANTS.
    """
    groups = rows.groupby("row")
    medians = groups[[*MEASURES, "seconds", "renders"]].median()
    pairs = groups["pairs"].sum()
    medians["pair_order"] = groups["pairs_right"].sum() / pairs.where(pairs > 0)
    return medians.reindex([name for name in CONTESTANTS if name in medians.index])


def parts(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows of in-domain clips and of clips from outside, by `DOMAINS`.

    A part without rows is left out.
    """
    inside = rows["phase"] == INSIDE
    return {
        name: part
        for name, part in zip(DOMAINS, (rows[inside], rows[~inside]), strict=True)
        if len(part)
    }


def verdict(rows: pd.DataFrame) -> dict[str, float]:
    """Flat metrics of in-domain clips, those of clips from outside with `outside.` before them.

    See `_verdict`.
    """
    flat: dict[str, float] = {}
    for name, part in parts(rows).items():
        prefix = "" if name == DOMAINS[0] else f"{name}."
        flat |= {f"{prefix}{key}": value for key, value in _verdict(part).items()}
    return flat


def _verdict(rows: pd.DataFrame) -> dict[str, float]:
    """`clips`; `<row>.<measure>` medians.

    `<row>.gain` (drop of the median MSS against no_itf), `.share_improved` and `.share_worse` for
    what refines; `<row>.beats_<rival>` (share of clips) and `.of_<rival>` (ratio of median MSS).
    """
    flat = {
        f"{row}.{column}": float(value)
        for row, line in table(rows).iterrows()
        for column, value in line.items()
        if np.isfinite(value)
    }
    mss_db = rows.pivot_table(index="id", columns="row", values="mss_db")
    flat["clips"] = float(len(mss_db))
    refined = [name for name in REFINED if name in mss_db]
    for name in refined if "no_itf" in mss_db else ():
        change = mss_db[name] - mss_db["no_itf"]
        flat[f"{name}.gain"] = 1.0 - float(
            mss_db[name].median() / max(mss_db["no_itf"].median(), 1e-9)
        )
        flat[f"{name}.share_improved"] = float((change < -TIE_DB).mean())
        flat[f"{name}.share_worse"] = float((change > TIE_DB).mean())
    for name in refined:
        for rival in (r for r in RIVALS if r in mss_db):
            flat[f"{name}.beats_{rival}"] = float((mss_db[name] < mss_db[rival]).mean())
            flat[f"{name}.of_{rival}"] = float(
                mss_db[name].median() / max(mss_db[rival].median(), 1e-9)
            )
    return flat


def over_time(rows: pd.DataFrame, grid_s: np.ndarray) -> pd.DataFrame:
    """Median best-so-far MSS at each time of `grid_s` (columns: row, seconds, mss_db).

    Times before every clip has a value are left out.
    """
    lines = []
    for row, part in rows.groupby("row"):
        known = [np.array(curve, dtype=float) for curve in part["curve"] if len(curve)]
        if not known:
            continue
        values = np.stack([_best_at(curve, grid_s) for curve in known])
        heard = np.isfinite(values).all(axis=0)
        lines += [
            {"row": row, "seconds": float(t), "mss_db": float(v)}
            for t, v in zip(grid_s[heard], np.median(values[:, heard], axis=0), strict=True)
        ]
    return pd.DataFrame(lines, columns=["row", "seconds", "mss_db"])


def _best_at(curve: np.ndarray, grid_s: np.ndarray) -> np.ndarray:
    """Step function of (renders, seconds, best) rows.

    The best known at each time, inf before the first.
    """
    place = np.searchsorted(curve[:, 1], grid_s, side="right")
    best = np.concatenate([[np.inf], np.minimum.accumulate(curve[:, 2])])
    return best[place]
