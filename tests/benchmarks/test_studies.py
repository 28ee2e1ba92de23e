"""The studies' loop, their statistics and what each of them trains and judges, on toy data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from benchmarks.studies import curriculum, manifold, manifold_page, optimiser, small
from benchmarks.studies.study import Study, carry_out, interval, share
from tests.model import tiny
from tests.training.test_phase import Broken, FakeTerm
from unmixer_core import config
from unmixer_core.report.html import Report
from unmixer_core.schema import chain as chains
from unmixer_core.training.curriculum import Schedule


def toy(calls: list[tuple[int, int]], fail_at: int | None = None) -> Study:
    def run(cell: Any, seed: int, state: Path) -> dict[str, float]:
        if len(calls) == fail_at:
            raise KeyboardInterrupt
        calls.append((cell["x"], seed))
        return {"y": cell["x"] * 10.0 + seed}

    def fill_page(rows: pd.DataFrame, report: Report) -> Figure:
        report.table(rows.groupby("x")["y"].mean().to_frame())
        return Figure()

    return Study(
        "toy",
        "A toy",
        "About it.",
        "python -m toy",
        [{"x": 1}, {"x": 2}],
        (1, 2),
        {"a": 1},
        run,
        fill_page,
    )


def test_a_stopped_study_continues_and_a_finished_one_is_not_run_again(tmp_path: Path) -> None:
    first, second, third = [], [], []
    with pytest.raises(KeyboardInterrupt):
        carry_out(toy(first, fail_at=3), tmp_path / "docs", tmp_path / "state")
    rows = carry_out(toy(second), tmp_path / "docs", tmp_path / "state")
    again = carry_out(toy(third), tmp_path / "docs", tmp_path / "state")
    assert first == [(1, 1), (2, 1), (1, 2)] and second == [(2, 2)] and third == []
    assert rows["y"].tolist() == [11.0, 21.0, 12.0, 22.0] == again["y"].tolist()
    page = (tmp_path / "docs" / "toy.md").read_text(encoding="utf-8")
    assert (
        "`python -m toy`" in page
        and "| 2 | 21.5 |" in page
        and (tmp_path / "docs" / "toy.svg").exists()
    )
    saved = json.loads((tmp_path / "docs" / "toy.json").read_text(encoding="utf-8"))
    assert [row["y"] for row in saved["rows"]] == [11.0, 21.0, 12.0, 22.0] and saved["about"][
        "key"
    ] == {"a": 1}


def test_an_interval_holds_the_mean_and_narrows_with_data() -> None:
    rng = np.random.default_rng(3)
    few, many = (interval(1.0 + rng.normal(0, 1, (5, n))) for n in (20, 2000))
    for mean, low, high in (few, many):
        assert low <= mean <= high and low - 0.15 < 1.0 < high + 0.15
    assert many[2] - many[1] < few[2] - few[1]
    assert interval(np.zeros((5, 30))) == (0.0, 0.0, 0.0)


def test_a_ratio_counts_hits_among_chances() -> None:
    hits, chances = np.array([[2.0, 0.0, 1.0], [1.0, 0.0, 1.0]]), np.array([4.0, 0.0, 1.0])
    mean, low, high = interval(hits, chances)
    assert mean == pytest.approx(2.5 / 5) and 0.0 <= low <= mean <= high <= 1.0
    less = interval(-hits, chances)  # a difference of two such ratios may well be below zero
    assert less[0] == pytest.approx(-mean) and less[1] < -mean < less[2]


def test_an_interval_of_seeds_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    for seeds in (3, 5, 20):
        covered = [
            low <= 0.0 <= high
            for _, low, high in (interval(rng.normal(0, 1, seeds)) for _ in range(600))
        ]
        assert np.mean(covered) == pytest.approx(0.95, abs=0.03), seeds


def test_a_share_of_few_is_uncertain_even_when_all_agree() -> None:
    mean, low, high = share([True] * 5)
    assert mean == high == 1.0 and 0.5 < low < 0.6


# --- manifold ---------------------------------------------------------------------------------


def separable(n: int, seed: int) -> manifold.FrozenEncoder:
    """Chains of Saturator and Reverb whose order the vector's first number tells and whose
    presence is certain.
    """
    g = torch.Generator().manual_seed(seed)
    first = torch.rand(n, generator=g) < 0.5
    pair = torch.tensor(chains.encode(("Saturator", "Reverb"))[:2].astype(np.int64))
    chain = torch.full((n, 8), -1)
    chain[:, :2] = torch.where(first[:, None], pair, pair.flip(0))
    vector = torch.randn(n, 6, generator=g)
    vector[:, 0] = torch.where(first, 2.0, -2.0)
    present = torch.full((n, 8), -6.0).index_fill(1, pair, 6.0)
    return manifold.FrozenEncoder(vector, present, chain)


@pytest.mark.parametrize("geometry", ["euclidean", "poincare"])
def test_the_decoder_learns_an_order_that_the_vector_tells(
    geometry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifold, "BATCH", 16)
    data = {"train": separable(160, 1), "valid": separable(40, 2), "test": separable(60, 3)}
    cell = {"manifold": geometry, "dim": 4, "curvature": 0.3 if geometry == "poincare" else 0.0}
    params = config.load()
    sizes = params.model.model_copy(update={"radius": 1.0, "chain_hidden": 16})
    model = manifold.train(cell, 1, data, sizes, params.optim, 0.02)
    found = manifold.measure(model, data["test"], manifold.Orders.of(data["test"].chain))
    assert found["order"] > 0.95 and found["exact"] > 0.9 and found["nll"] < 0.5
    assert found["nll"] == pytest.approx(np.mean(found["nll_by_clip"]), abs=1e-3)


def test_orders_are_all_that_sound_different_and_the_true_one_is_right() -> None:
    true = [("Saturator", "EQ Eight", "Delay"), ("EQ Eight", "Delay"), ("Reverb", "Compressor")]
    chain = torch.from_numpy(np.stack([chains.encode(chains.canonical(c)) for c in true])).long()
    orders = manifold.Orders.of(chain)
    assert orders.chances.tolist() == [2.0, 0.0, 1.0]
    assert torch.bincount(orders.clip, minlength=3).tolist() == [
        4,
        0,
        2,
    ]  # the Saturator before, between (2), behind
    right = torch.tensor(
        [bool((c == chain[i]).all()) for c, i in zip(orders.chain, orders.clip, strict=True)]
    )
    assert orders.hits_of_best(right.float()).tolist() == orders.chances.tolist()
    assert (orders.hits_of_best(-orders.hits.float()) < orders.chances)[[0, 2]].all()


def test_the_verdict_reads_the_intervals() -> None:
    same, better, worse = (0.0, -0.1, 0.1), (0.2, 0.1, 0.3), (-0.2, -0.3, -0.1)
    said = manifold_page.verdict(
        {
            "c = 0.3, d = 2": dict.fromkeys(manifold_page.MEASURES, same),
            "c = 0.3, all d": {"nll": worse, "exact": worse, "order": better, "set_f1": same},
        }
    )
    assert (
        "NLL, nats: the ball is better at c = 0.3." in said
        and "exact up to audible: worse at c = 0.3." in said
    )
    assert (
        "order of audible pairs: the ball is better at c = 0.3." in said
        and "set F1: no difference" in said
    )


# --- training ---------------------------------------------------------------------------------


def ready(term: Any) -> small.StudyInputs:
    widths = {
        f"model.{key}": value
        for key, value in tiny.MODEL.items()
        if key not in ("manifold", "stops")
    }
    params = config.with_values(config.load(), {**small.SMALL, **widths, **optimiser.CHANGES})
    return small.StudyInputs(tiny.features(tiny.patches()), term, params, "toy")


@pytest.mark.parametrize("name", list(optimiser.OPTIMISERS))
def test_a_run_of_the_optimiser_study_is_judged_by_its_last_epoch(
    name: str, tmp_path: Path, monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(optimiser, "EPOCHS", 2)
    term = FakeTerm()
    found = optimiser.run_cell(ready(term), {"optimiser": name, "lr": 0.01}, 1, tmp_path / "state")
    assert (
        len(term.rows) == 3 and found["refused"] == ""
    )  # 20 clips in batches of 16, all 4 steps but the first
    assert found["ratio"] == pytest.approx(found["after"] / found["before"])
    assert found["converged"] == (found["ratio"] <= optimiser.CONVERGED)
    assert not (tmp_path / "state").exists()


def test_a_gradient_that_is_not_finite_counts_as_not_converged(tmp_path: Path) -> None:
    found = optimiser.run_cell(
        ready(Broken()), {"optimiser": "Adam", "lr": 0.01}, 1, tmp_path / "state"
    )
    assert not found["converged"] and "not finite" in found["refused"] and found["after"] == np.inf


def test_both_ways_of_training_see_as_many_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curriculum, "CLIPS", {"dry": 8, "nonlinear": 8, "full": 12})
    made, total = ready(None), 0
    for name in curriculum.CLIPS:
        plan = Schedule(
            made.data(name, curriculum.CLIPS), curriculum.phase_of(name, 1, curriculum.EPOCHS[name])
        )
        total += sum(len(rows) for epoch in range(len(plan)) for rows in plan.batches(epoch))
    assert total == curriculum.clips_seen()
    data = curriculum.mixed(made.data("full", curriculum.CLIPS))
    assert len(data.new) == len(set(data.new)) == 28 and not len(data.earlier)
    assert set(made.features.patches.split[data.new]) == {"train"}


def test_a_switchs_effect_is_paired() -> None:
    rows = pd.DataFrame(
        [
            {
                "seed": s,
                "curriculum": c,
                "spectral": p,
                **dict.fromkeys(curriculum.MEASURES, 10 * s + 2 * c - 3 * p + 0.0),
            }
            for s in (1, 2, 3)
            for c in (True, False)
            for p in (True, False)
        ]
    )
    assert curriculum.effect(rows, "curriculum")["loss"] == (2.0, 2.0, 2.0)
    assert curriculum.effect(rows, "spectral")["loss"] == (-3.0, -3.0, -3.0)
