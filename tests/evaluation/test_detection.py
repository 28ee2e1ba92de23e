from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from tests.model import tiny
from unmixer_core import sampling
from unmixer_core.evaluation import detection
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK
from unmixer_core.scoring.targets import ScoreTarget


def target(clip: int, effects: tuple[str, ...], baseline: bool = True) -> ScoreTarget:
    patch = Patch.init(48, 1.0, effects)
    return ScoreTarget(
        clip, 100 + clip, "full", patch, np.zeros((2, 8), np.float32), None, baseline, False
    )


def test_the_threshold_maximises_expected_f1() -> None:
    rng = np.random.default_rng(0)
    probability = rng.beta(0.6, 1.5, size=(400, 3)) * [1.0, 0.6, 0.3]
    limits = detection.thresholds(probability)
    for column, limit in zip(probability.T, limits, strict=True):
        drawn = rng.random((2000, len(column))) < column

        def reached(t: float, column: np.ndarray = column, drawn: np.ndarray = drawn) -> float:
            said = column >= t
            return float((2 * (drawn & said).sum(1) / (said.sum() + drawn.sum(1))).mean())

        assert reached(limit) >= max(reached(t) for t in np.linspace(0.02, 0.98, 49)) - 0.005
        assert limit <= 0.5


def test_an_effect_that_cannot_be_told_is_always_named_and_a_certain_one_at_half() -> None:
    unknown, certain = np.full(50, 0.3), np.repeat([0.0, 1.0], 25)
    limits = detection.thresholds(np.stack([unknown, certain], axis=1))
    assert (unknown >= limits[0]).all()
    assert limits[1] == pytest.approx(0.5)


def test_the_table_scores_each_effect_and_leaves_out_those_that_never_occur() -> None:
    true = np.zeros((4, 8), bool)
    true[:2, 0], true[:, 1] = True, True
    probability = np.full((4, 8), 0.1)
    probability[:, 0] = [0.9, 0.2, 0.3, 0.1]
    audible = np.zeros((2, 8), bool)
    audible[0, 0] = True
    found = detection.table(probability, np.full(8, 0.25), true, audible)
    assert list(found.index) == list(RACK.effect_names[:2])
    first = found.iloc[0]
    assert first["f1"] == pytest.approx(0.5) and first["auc"] == pytest.approx(0.75)
    assert first["always"] == pytest.approx(2 * 2 / 6) and first["share"] == 0.5
    assert first["audible"] == 0.5 and first["ceiling"] == pytest.approx(2 / 3)
    assert found.iloc[1]["f1"] == 0.0 and np.isnan(found.iloc[1]["auc"])
    flat = detection.flat(found, "full")
    assert flat["full.effects.f1"] == pytest.approx(0.25) and flat[
        "full.effects.auc"
    ] == pytest.approx(0.75)
    assert flat[f"full.effects.{RACK.effects[0].key}.f1"] == pytest.approx(0.5)
    assert all(np.isfinite(value) for value in flat.values())


def test_an_effect_is_audible_when_the_sound_without_it_differs() -> None:
    test = [
        target(0, ("Saturator", "Reverb")),
        target(1, ("Reverb",)),
        target(2, ("Delay",), baseline=False),
    ]
    jobs = detection.without_jobs(test)
    assert [(job.clip, job.row, job.patch.effects) for job in jobs] == [
        (0, "without Saturator", ("Reverb",)),
        (0, "without Reverb", ("Saturator",)),
        (1, "without Reverb", ()),
    ]
    rows = pd.DataFrame(
        {
            "id": [100, 100, 101, 100],
            "row": ["without Saturator", "without Reverb", "without Reverb", "prediction"],
            "mss_db": [0.4, 3.0, 1.0, 9.0],
        }
    )
    heard = detection.audible(rows, test[:2])
    assert [[RACK.effect_names[i] for i in np.flatnonzero(row)] for row in heard] == [
        ["Reverb"],
        ["Reverb"],
    ]


def test_probabilities_are_the_presence_head_in_batches() -> None:
    table = sampling.sample(70, "full", "test", 4, tiny.PRIOR)
    frames, model = tiny.features(table), tiny.model()
    found = detection.probabilities(model, frames, np.arange(70))
    row = 66
    with torch.no_grad():
        note, gate_s = (torch.tensor([float(x[row])]) for x in (table.note, table.gate_s))
        alone = torch.sigmoid(model(frames.batch([row]), note, gate_s).classes.present)[0].numpy()
    assert found.shape == (70, 8) and found[row] == pytest.approx(alone, abs=1e-5)
    assert detection.probabilities(model, frames, []).shape == (0, 8)
