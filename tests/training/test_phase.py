from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.model import tiny
from tests.model.tiny import section
from unmixer_core.errors import StageError, TrainingError
from unmixer_core.model.targets import Targets
from unmixer_core.model.unmixer import Draw, Unmixer, context_of
from unmixer_core.training import assessment, losses, phase
from unmixer_core.training.curriculum import PhaseData, Schedule, batches_of


class FakeTerm:
    """The spectral term with the fake proxy on both sides."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []

    def __call__(self, draw: Draw, targets: Targets, rows: np.ndarray) -> torch.Tensor:
        self.rows.append(rows.tolist())
        proxy, true = tiny.FakeProxy(), context_of(targets)
        wanted = proxy(targets.knobs, true.choices, true.slots, targets.note, targets.gate_s)
        found = losses.rendered(proxy, draw, targets.note, targets.gate_s)
        return (losses.level_matched(found) - losses.level_matched(wanted)).abs().mean((1, 2))


def run(state: Path, model: Unmixer, **options: object) -> dict[str, float]:
    changes = options.pop("changes", {})
    data = options.pop("data", None) or tiny.data()
    return phase.fit(
        model, data, tiny.settings(**changes), state=state, log=tiny.Silent(), **options
    )  # type: ignore[arg-type]


def weights(model: Unmixer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("clip", ["norm", "element"])
def test_resumed_after_a_kill_equals_uninterrupted_bit_for_bit(tmp_path: Path, clip: str) -> None:
    changes = {"optim": {"clip": clip, "percentile": 80.0}, "phase": {"epochs": 2}}
    whole, broken, resumed = tiny.model(), tiny.model(), tiny.model()
    report = run(tmp_path / "a", whole, changes=changes, proxy_term=FakeTerm())
    run(tmp_path / "b", broken, changes=changes, proxy_term=FakeTerm(), stop_after=1)
    again = run(tmp_path / "b", resumed, changes=changes, proxy_term=FakeTerm())
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
    assert again == report


def test_a_phase_learns_and_reports_gain_and_forgetting(tmp_path: Path) -> None:
    report = run(tmp_path, tiny.model(), changes={"phase": {"epochs": 6}})
    assert report["gained"] > 0.5
    assert {"forgotten.dry", "forgotten.nonlinear"} <= set(
        report
    ) and "forgotten.full" not in report
    assert all(np.isfinite(value) for value in report.values())


def test_global_random_state_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    run(tmp_path, tiny.model(), changes={"phase": {"epochs": 1}})
    assert torch.equal(torch.get_rng_state(), before)


def test_seed_decides_the_result(tmp_path: Path) -> None:
    models = [tiny.model() for _ in range(3)]
    for i, (model, seed) in enumerate(zip(models, (5, 5, 6), strict=True)):
        run(tmp_path / str(i), model, changes={"phase": {"epochs": 1, "seed": seed}})
    a, b, c = (weights(m)["neck.0.weight"] for m in models)
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_spectral_term_runs_every_few_steps_on_few_clips_once_it_has_begun(tmp_path: Path) -> None:
    term = FakeTerm()
    changes = {
        "loss": {"spectral_every": 2, "spectral_clips": 3, "spectral_start": 0.5},
        "phase": {"epochs": 2, "replay": 0.0},
    }
    run(
        tmp_path, tiny.model(), changes=changes, proxy_term=term
    )  # 20 clips in batches of 8, 8, 4: 6 steps
    assert [len(rows) for rows in term.rows] == [
        3
    ]  # step 4; step 3, at share 0.5, weighs nothing yet


class Broken(FakeTerm):
    def __call__(self, draw: Draw, targets: Targets, rows: np.ndarray) -> torch.Tensor:
        return (draw.knobs.sum(1) * 0.0).sqrt()  # 0 with an infinite slope


def test_a_non_finite_spectral_gradient_stops_plain_adam_and_names_the_head(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="knobs"):
        run(tmp_path, tiny.model(), proxy_term=Broken(), changes={"optim": {"clip": "none"}})


def test_clipping_drops_a_clip_whose_spectral_gradient_is_not_finite_and_says_so(
    tmp_path: Path,
) -> None:
    log = tiny.Silent()
    phase.fit(
        tiny.model(), tiny.data(), tiny.settings(), state=tmp_path, log=log, proxy_term=Broken()
    )
    dropped = [
        row["train.spectral_dropped"] for _, row in log.rows if "train.spectral_dropped" in row
    ]
    assert dropped and set(dropped) == {2.0}


def test_epochs_hold_every_new_clip_once_and_a_share_of_earlier_ones() -> None:
    data = tiny.data("full")
    first, second = (data.epoch_rows(epoch, seed=1, replay=0.5) for epoch in (0, 1))
    assert set(data.new) <= set(first) and len(first) == len(set(first)) == 30
    assert set(first) - set(data.new) <= set(data.earlier)
    assert not np.array_equal(first, second) and np.array_equal(
        first, data.epoch_rows(0, seed=1, replay=0.5)
    )
    assert set(tiny.data("dry").epoch_rows(0, seed=1, replay=9.0)) == set(tiny.data("dry").new)


def test_a_phase_rehearses_on_its_own_proxy_clips_then_learns_from_the_host() -> None:
    data = tiny.with_proxy("nonlinear", n_proxy=24)
    plan = Schedule(data, section(tiny.PHASE, proxy_epochs=2, epochs=3, batch=8, replay=0.5))
    rows = [np.concatenate(plan.batches(epoch)) for epoch in range(len(plan))]
    assert [bool((r >= data.n_host).all()) for r in rows] == [True, True, False, False, False]
    assert all((r < data.n_host).all() for r in rows[2:])
    phases = data.features.patches.select(slice(None)).phase
    assert set(rows[0]) >= set(data.rehearsal) and set(phases[data.rehearsal]) == {"nonlinear"}
    assert len(rows[0]) == 36 and set(phases[rows[0]]) == {"dry", "nonlinear"}
    assert plan.steps == sum(len(plan.batches(epoch)) for epoch in range(len(plan)))
    assert "proxy" in plan.title(0) and "host" in plan.title(4)


def test_without_proxy_clips_there_is_no_rehearsal() -> None:
    assert len(Schedule(tiny.data(), section(tiny.PHASE, proxy_epochs=4, epochs=2))) == 2


def test_the_spectral_term_never_hears_a_rehearsal(tmp_path: Path) -> None:
    term, data = FakeTerm(), tiny.with_proxy()
    changes = {
        "loss": {"spectral_every": 1, "spectral_start": 0.0},
        "phase": {"proxy_epochs": 2, "epochs": 1},
    }
    phase.fit(
        tiny.model(),
        data,
        tiny.settings(**changes),
        state=tmp_path,
        log=tiny.Silent(),
        proxy_term=term,
    )
    assert term.rows and max(map(max, term.rows)) < data.n_host


def test_normalisation_and_validation_are_the_hosts() -> None:
    alone, beside = tiny.data(), tiny.with_proxy()
    assert all(
        torch.equal(a, b) for a, b in zip(alone.statistics(), beside.statistics(), strict=True)
    )
    assert all((rows < beside.n_host).all() for rows in beside.valid.values())


def test_every_epoch_has_a_progress_bar_of_its_steps(tmp_path: Path) -> None:
    log, data = tiny.Silent(), tiny.with_proxy()
    phase.fit(tiny.model(), data, tiny.settings(), state=tmp_path, log=log)
    plan = Schedule(data, tiny.settings().phase)
    assert [total for _, total in log.bars] == [
        len(plan.batches(epoch)) for epoch in range(len(plan))
    ]


def test_phases_see_their_own_and_earlier_clips_only() -> None:
    data = tiny.data("nonlinear")
    phases = data.features.patches.phase
    assert set(phases[data.new]) == {"nonlinear"} and set(phases[data.earlier]) == {"dry"}
    assert list(data.valid) == ["dry", "nonlinear"] and data.phase == "nonlinear"
    only_dry = tiny.features(tiny.patches(phases=("dry",)))
    with pytest.raises(StageError, match="phase full"):
        PhaseData.of(only_dry, "full")


def test_learning_rate_rises_then_falls_to_zero() -> None:
    values = [phase.one_cycle(s, 0.2) for s in np.linspace(0, 1, 101)]
    assert (
        values[0] == pytest.approx(0.1)
        and values[20] == pytest.approx(1.0)
        and values[-1] == pytest.approx(0.0)
    )
    assert (np.diff(values[:21]) > 0).all() and (np.diff(values[20:]) < 0).all()


def test_averaged_points_stay_in_the_ball_and_follow_the_weights() -> None:
    model = tiny.model()
    progress = phase.PhaseProgress(phase._weights(model), step=10_000)
    with torch.no_grad():
        model.chain.effects.copy_(model.chain.space.expmap0(torch.full((8, 6), 3.0)))
    for _ in range(400):
        phase._average(progress, model, 0.98)
    averaged = progress.averaged["chain.effects"]
    assert (0.3 * averaged.square().sum(-1) < 1).all()
    torch.testing.assert_close(averaged, model.chain.effects.detach(), rtol=1e-2, atol=1e-2)


def test_batches_cover_all_rows_and_never_hold_one_clip() -> None:
    for n in range(2, 40):
        batches = list(batches_of(np.arange(n), 8))
        assert np.array_equal(np.concatenate(batches), np.arange(n)) and min(map(len, batches)) >= 2


def test_macro_f1_is_sklearns_over_classes_that_occur() -> None:
    from sklearn.metrics import f1_score

    g = torch.Generator().manual_seed(1)
    guessed, true = (torch.rand(50, 8, generator=g) < 0.4 for _ in range(2))
    assert assessment.macro_f1(guessed, true) == pytest.approx(
        f1_score(true.numpy(), guessed.numpy(), average="macro")
    )
    nothing = torch.zeros(5, 8, dtype=torch.bool)
    assert assessment.macro_f1(nothing, nothing) == 1.0
