from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from unmixer_core.evaluation import identifiability, page
from unmixer_core.schema import chain as chains
from unmixer_core.schema.patch import Patch, Patches
from unmixer_core.schema.rack import RACK
from unmixer_core.scoring.targets import ScoreTarget


def target(
    clip: int, effects: tuple[str, ...], *, phase: str = "full", baseline: bool = True, **items: str
) -> ScoreTarget:
    patch = Patch.init(48, 1.0, effects).with_values(
        {f"wavetable.{key}": item for key, item in items.items()}
    )
    return ScoreTarget(
        clip, 100 + clip, phase, patch, np.zeros((2, 8), np.float32), None, baseline, False
    )


def test_each_other_patch_differs_in_one_audible_answer() -> None:
    true = ("Saturator", "EQ Eight", "Delay", "Compressor")
    test = [target(i, true, filter_1_on="On") for i in range(20)]
    jobs = identifiability.other_jobs([target(90, (), phase="dry"), *test], 20, seed=3)
    assert len(jobs) == 60 and {job.clip for job in jobs} == set(range(20))
    for job in jobs:
        patch = job.patch
        if job.row == "other order":
            wrong = chains.audible_pairs(true) - chains.audible_pairs(patch.effects)
            assert len(wrong) == 1 and set(patch.effects) == set(true)
        else:
            key = {"other wavetable": "osc_1_wavetable", "other filter": "filter_1_type"}[job.row]
            changed = np.flatnonzero(patch.choices != test[0].patch.choices)
            assert changed.tolist() == [RACK.choice_index[f"wavetable.{key}"]]
            assert patch.effects == true
    again = identifiability.other_jobs(test, 3, seed=3)
    assert [(j.row, j.clip, j.patch.digest) for j in again] == [
        (j.row, j.clip, j.patch.digest) for j in jobs[:9]
    ]


def test_what_cannot_be_heard_is_not_asked() -> None:
    commuting = target(0, ("EQ Eight", "Delay"), filter_1_on="Off")
    assert [job.row for job in identifiability.other_jobs([commuting], 5, seed=1)] == [
        "other wavetable"
    ]
    assert identifiability.other_jobs([commuting], 0, seed=1) == []


def test_half_of_what_cannot_be_told_is_lost() -> None:
    test = [target(i, ("Saturator", "Delay")) for i in range(4)] + [
        target(4, ("Delay",), baseline=False)
    ]
    lines = [(100 + i, "other order", db) for i, db in enumerate((0.2, 5.0, 3.0, 1.0))]
    lines += [(100 + i, "without Delay", 0.5 if i == 2 else 4.0) for i in range(4)]
    lines += [(100 + i, "without Saturator", 4.0) for i in range(4)]
    lines += [(104, "without Delay", 0.0), (100, "prediction", 0.0)]
    found = identifiability.ceilings(pd.DataFrame(lines, columns=["id", "row", "mss_db"]), test)
    assert found == {
        "full.chain.pair_order_present_ceiling": 0.875,
        "full.chain.pair_order_present_ceiling_n": 4.0,
        "full.chain.pair_order_ceiling": 0.75 * 0.875,
        "full.chain.pair_order_ceiling_n": 4.0,
        "full.chain.exact_audible_ceiling": 0.75,
        "full.chain.exact_audible_ceiling_n": 4.0,
    }


def test_the_usual_order_is_learned_from_training_chains() -> None:
    orders = [("Saturator", "Delay"), ("Saturator", "Delay"), ("Delay", "Saturator")]
    train = Patches.stack([Patch.init(effects=names) for names in orders], "full", "train")
    assert (
        identifiability.usual_order(train, [("Saturator", "Delay"), ("Delay", "Saturator")]) == 0.5
    )
    assert identifiability.usual_order(train, [("Saturator", "Reverb", "Delay")]) == 1.0
    assert np.isnan(identifiability.usual_order(train, [("Reverb",)]))


def test_the_table_puts_found_majority_and_ceiling_side_by_side() -> None:
    flat = {
        "full.x": 0.6,
        "full.x_majority": 0.4,
        "full.x_ceiling": 0.9,
        "full.x_ceiling_n": 40.0,
        "full.y": 1.0,
    }
    table = page.limits_table(flat)
    assert list(table.index) == ["full.x"] and table.loc["full.x"].tolist() == [
        pytest.approx(v) for v in (0.6, 0.4, 0.9, 40.0)
    ]
