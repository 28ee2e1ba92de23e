"""Tables and page of the ITF benchmark, from made-up rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from unmixer_core.comparison import benchmark, entry, tables
from unmixer_core.comparison import page as comparison_page
from unmixer_core.scoring import measures as scoring_measures

RATE = 8000


def itf_rows(phase: str = entry.IN_DOMAIN) -> pd.DataFrame:
    """Four clips; later methods are better, slower, and have more of two audible pairs right."""
    return pd.DataFrame(
        [
            {
                "phase": phase,
                "id": clip,
                "row": row,
                **dict.fromkeys(scoring_measures.MEASURES, float(14 - place + clip)),
                "seconds": 1.0 + place,
                "renders": 1,
                "chain": "Reverb",
                "pairs_right": int(place > 5),
                "pairs": 2 if phase == entry.IN_DOMAIN else 0,
                "curve": [(1, 0.5 + place, 14.0 - place), (2, 1.0 + place, 13.0 - place)],
            }
            for clip in range(4)
            for place, row in enumerate(entry.METHODS)
        ]
    )


def varied() -> pd.DataFrame:
    lines = [("lr", 0.1, 5.0, 4.0), ("lr", 0.2, 5.0, 7.0), ("steps", 10.0, 5.0, 3.0)]
    return pd.DataFrame(
        [
            {
                "id": 1,
                "setting": s,
                "value": v,
                "own": False,
                "before_db": b,
                "refined_db": r,
                "mss_db": min(b, r),
            }
            for s, v, b, r in lines
        ]
    )


def test_the_metrics_hold_gains_and_shares_that_became_worse() -> None:
    rows = itf_rows()
    worse = (rows["row"] == "itf") & (rows["id"] == 0)
    rows.loc[worse, "mss_db"] = 30.0
    flat = tables.flat_metrics(rows)
    assert flat["itf.share_worse"] == 0.25 and flat["itf.share_improved"] == 0.75
    assert flat["itf_verify.share_worse"] == 0.0 and 0 < flat["itf_verify.gain"] < 1
    assert flat["itf_verify.beats_nearest"] == 1.0 and flat["clips"] == 4
    assert flat["unmix.of_nearest"] == pytest.approx(flat["unmix.mss_db"] / flat["nearest.mss_db"])
    assert flat["unmix.pair_order"] == 0.5 and flat["nearest.pair_order"] == 0.0


def test_out_of_domain_clips_count_apart_and_have_no_order_if_their_chain_is_empty() -> None:
    outside = itf_rows("instrument").assign(id=lambda rows: rows["id"] + 100)
    flat = tables.flat_metrics(pd.concat([itf_rows(), outside]))
    assert flat["clips"] == flat["outside.clips"] == 4
    assert "outside.unmix.pair_order" not in flat and "outside.unmix.mss_db" in flat


def test_the_table_lists_methods_in_order() -> None:
    assert tuple(tables.table(itf_rows()).index) == entry.METHODS


def test_quality_over_time_only_falls_and_starts_when_every_clip_has_an_answer() -> None:
    over_time = tables.over_time(itf_rows(), np.linspace(0, 15, 61))
    for row, part in over_time.groupby("row"):
        assert np.all(np.diff(part["mss_db"]) <= 0)
        assert part["seconds"].iloc[0] == pytest.approx(
            0.5 + entry.METHODS.index(str(row)), abs=0.26
        )


def test_the_page_names_every_method_both_domains_and_every_setting() -> None:
    rows = pd.concat([itf_rows(), itf_rows("effects").assign(id=lambda r: r["id"] + 100)])
    parts = tables.parts(rows)
    lines = [
        tables.over_time(part, np.linspace(0, 15, 7)).assign(clips=name)
        for name, part in parts.items()
    ]
    results = benchmark.Results(rows, varied(), pd.concat(lines))
    page = comparison_page.page(results, [], RATE).html()
    assert all(name in page for name in entry.METHODS) and "http" not in page
    assert "4 frozen full-chain test clips" in page and "4 clips that no synthesizer" in page
    assert all(words in page for words in ("lr = 0.1", "lr = 0.2", "steps = 10"))
