"""Laws of inference-time finetuning, on a proxy whose sound is linear in two knobs (so its
optimum is known).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unmixer_core import config
from unmixer_core.errors import HostError
from unmixer_core.inference import finetune
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.model.mixture import to_unit
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK

RATE = 8000
ITF = config.load(Path(__file__).resolve().parents[2] / "params.yaml").itf
FIRST, SECOND = RACK.knob_index["wavetable.osc_1_pos"], RACK.knob_index["wavetable.amp_attack"]
UNHEARD = RACK.knob_index["reverb.decay_time"]


class LinearProxy(nn.Module):
    """FIRST sets the level of a 500 Hz tone, SECOND that of a 1200 Hz tone.

    Not a number above `nan_above`.
    """

    def __init__(self, nan_above: float = 2.0) -> None:
        super().__init__()
        self.sample_rate, self.nan_above = RATE, nan_above
        self.phi = nn.Parameter(torch.ones(2))

    def forward(
        self,
        knobs: Tensor,
        choices: Tensor,
        chain: Tensor,
        note: Tensor,
        gate_s: Tensor,
        clip_s: float | None = None,
    ) -> Tensor:
        time_s = torch.arange(int(RATE * (clip_s or 0.1))) / RATE
        tones = torch.stack([torch.sin(2 * torch.pi * f * time_s) for f in (500.0, 1200.0)])
        levels = knobs[:, [FIRST, SECOND]] * self.phi
        audio = (levels[:, :, None] * tones).sum(dim=1)
        audio = torch.where(knobs[:, FIRST, None] > self.nan_above, torch.nan, audio)
        return audio[:, None].repeat(1, 2, 1)


def patch(first: float, second: float) -> Patch:
    return Patch.init(60, 1.0).with_values(
        {"wavetable.osc_1_pos": first, "wavetable.amp_attack": second}
    )


def settings(**changes: Any) -> config.Itf:
    defaults: dict[str, Any] = {
        "steps": 60,
        "lr": 0.1,
        "lambda_b": 0.0,
        "clip_norm": 0.0,
        "logit_limit": 5.2,
        "clip_s": 0.05,
    }
    return ITF.model_copy(update=defaults | changes)


def to(proxy: LinearProxy, goal: Patch) -> finetune.Distance:
    """Mean squared error to the sound of `goal`."""
    batch = finetune.batch([goal])
    target = batch.render(proxy, batch.knobs, 0.05).detach()
    return lambda audio: (audio - target).square().mean(dim=(1, 2))


def run(
    proxy: LinearProxy,
    starts: list[Patch],
    goal: Patch,
    locked: np.ndarray | None = None,
    **changes: float,
) -> list[finetune.Refined]:
    silence = np.zeros((2, 400), dtype=np.float32)
    return finetune.refine(
        proxy,
        silence,
        starts,
        settings(**changes),
        locked,
        sample_rate=RATE,
        distance=to(proxy, goal),
    )


def test_refinement_approaches_the_optimum() -> None:
    found = run(LinearProxy(), [patch(0.2, 0.8), patch(0.9, 0.5)], patch(0.7, 0.3))
    for refined in found:
        assert refined.loss < 0.01 * refined.initial_loss
        assert refined.patch.knobs[[FIRST, SECOND]] == pytest.approx([0.7, 0.3], abs=0.03)


def test_best_loss_is_never_above_the_first() -> None:
    for refined in run(
        LinearProxy(), [patch(0.7, 0.3), patch(0.1, 0.1)], patch(0.7, 0.3), lr=3.0, steps=5
    ):
        assert refined.loss <= refined.initial_loss


def test_locked_and_unheard_knobs_keep_their_exact_value() -> None:
    locked = np.zeros(RACK.n_knobs, dtype=bool)
    locked[FIRST] = True
    start = patch(0.2, 0.8)
    refined = run(LinearProxy(), [start], patch(0.7, 0.3), locked)[0].patch
    others = np.arange(RACK.n_knobs) != SECOND
    assert np.array_equal(refined.knobs[others], start.knobs[others])
    assert refined.knobs[SECOND] != start.knobs[SECOND]
    assert np.array_equal(refined.choices, start.choices) and np.array_equal(
        refined.chain, start.chain
    )


def test_free_knobs_are_the_audible_unlocked_ones() -> None:
    locked = np.zeros(RACK.n_knobs, dtype=bool)
    locked[FIRST] = True
    free = finetune._free([patch(0.5, 0.5), Patch.init(60, 1.0, ["Reverb"])], locked)
    assert not free[:, FIRST].any() and free[:, SECOND].all()
    assert list(free[:, UNHEARD]) == [False, True]


def test_an_infinite_anchor_keeps_the_proposal() -> None:
    start = patch(0.2, 0.8)
    refined = run(LinearProxy(), [start], patch(0.7, 0.3), lambda_b=1e9)[0]
    assert refined.best_step == 0
    assert np.array_equal(refined.patch.knobs, start.knobs)


def test_a_stronger_anchor_stays_closer() -> None:
    def moved(weight: float) -> float:
        return float(
            np.abs(
                run(LinearProxy(), [patch(0.2, 0.8)], patch(0.7, 0.3), lambda_b=weight)[
                    0
                ].patch.knobs
                - patch(0.2, 0.8).knobs
            ).sum()
        )

    assert moved(0.0) > moved(0.05) > moved(1.0)


def test_the_anchor_is_scaled_by_the_proposals_spread() -> None:
    """A knob that the model is sure of (small sigma) moves less than one it is not sure of."""
    proxy, sigma = LinearProxy(), np.ones((1, RACK.n_knobs), dtype=np.float32)
    sigma[0, FIRST] = 0.05
    found = finetune.refine(
        proxy,
        np.zeros((2, 400), np.float32),
        [patch(0.5, 0.5)],
        settings(lambda_b=0.2),
        sample_rate=RATE,
        sigma=sigma,
        distance=to(proxy, patch(0.7, 0.7)),
    )[0].patch.knobs
    assert abs(found[FIRST] - 0.5) < 0.2 * abs(found[SECOND] - 0.5)


def test_the_proxy_gets_no_gradient_and_its_flags_come_back() -> None:
    proxy = LinearProxy().train()
    run(proxy, [patch(0.2, 0.8)], patch(0.7, 0.3), steps=3)
    assert proxy.phi.grad is None
    assert proxy.phi.requires_grad and proxy.training
    with finetune.frozen(proxy):
        assert not proxy.phi.requires_grad and not proxy.training


def test_a_batch_equals_its_candidates_one_by_one() -> None:
    proxy, starts, goal = (
        LinearProxy(),
        [patch(0.2, 0.8), patch(0.6, 0.1), patch(0.9, 0.9)],
        patch(0.7, 0.3),
    )
    together = run(proxy, starts, goal, clip_norm=0.05, lambda_b=0.01, steps=20)
    for start, refined in zip(starts, together, strict=True):
        alone = run(proxy, [start], goal, clip_norm=0.05, lambda_b=0.01, steps=20)[0]
        assert refined.patch.knobs == pytest.approx(alone.patch.knobs, abs=1e-6)
        assert refined.best_step == alone.best_step


def test_a_candidate_that_stops_being_finite_keeps_its_last_finite_state() -> None:
    proxy, goal = LinearProxy(nan_above=0.6), patch(0.59, 0.3)
    sound_goal = to(LinearProxy(), patch(0.95, 0.3))  # pulls beyond the cliff
    lost, safe = finetune.refine(
        proxy,
        np.zeros((2, 400), np.float32),
        [patch(0.5, 0.3), patch(0.1, 0.3)],
        settings(steps=15),
        sample_rate=RATE,
        distance=sound_goal,
    )
    assert not lost.finite and safe.finite
    assert np.isfinite(lost.patch.knobs).all() and lost.patch.knobs[FIRST] <= 0.6
    assert lost.loss < lost.initial_loss
    alone = finetune.refine(
        proxy,
        np.zeros((2, 400), np.float32),
        [patch(0.1, 0.3)],
        settings(steps=15),
        sample_rate=RATE,
        distance=sound_goal,
    )
    assert safe.patch.knobs == pytest.approx(alone[0].patch.knobs, abs=1e-6)
    assert goal.knobs[FIRST] < 0.6


def test_a_proposal_that_is_not_finite_at_once_comes_back_unchanged() -> None:
    start = patch(0.9, 0.3)
    refined = run(LinearProxy(nan_above=0.6), [start], patch(0.5, 0.3), steps=3)[0]
    assert not refined.finite and np.isnan(refined.loss)
    assert np.array_equal(refined.patch.knobs, start.knobs)


def test_knobs_stay_inside_the_logit_limit() -> None:
    refined = run(LinearProxy(), [patch(0.5, 0.0)], patch(1.0, 0.0), logit_limit=2.0, lr=1.0)[
        0
    ].patch
    assert refined.knobs[FIRST] <= float(to_unit(torch.tensor(2.0))) + 1e-6


def test_progress_reports_every_step() -> None:
    seen: list[int] = []
    proxy = LinearProxy()
    finetune.refine(
        proxy,
        np.zeros((2, 400), np.float32),
        [patch(0.5, 0.5)],
        settings(steps=4),
        sample_rate=RATE,
        distance=to(proxy, patch(0.7, 0.3)),
        progress=lambda step, best: seen.append(step),
    )
    assert seen == [0, 1, 2, 3, 4]


def test_rank_orders_candidates_by_proxy_distance() -> None:
    proxy = LinearProxy(nan_above=0.95)
    losses = finetune.rank(
        proxy,
        np.zeros((2, 400), np.float32),
        [patch(0.1, 0.9), patch(0.68, 0.3), patch(0.99, 0.3)],
        sample_rate=RATE,
        clip_s=0.05,
        distance=to(LinearProxy(), patch(0.7, 0.3)),
    )
    assert losses[1] < losses[0] < losses[2] == np.inf


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_side_by_side_equals_together(threads: int) -> None:
    proxy, rng = LinearProxy(), np.random.default_rng(6)
    target = rng.normal(size=(2, RATE)).astype(np.float32) * 0.1
    starts, options = (
        [patch(0.2, 0.8), patch(0.6, 0.1), patch(0.9, 0.9)],
        settings(steps=6, clip_s=1.0),
    )
    together = finetune.refine(proxy, target, starts, options, sample_rate=RATE)
    before = torch.get_num_threads(), proxy.training, proxy.phi.requires_grad
    apart = finetune.refine_side_by_side(
        proxy, target, starts, options, sample_rate=RATE, threads=threads
    )
    assert (torch.get_num_threads(), proxy.training, proxy.phi.requires_grad) == before
    for a, b in zip(together, apart, strict=True):
        assert a.patch.knobs == pytest.approx(b.patch.knobs, abs=1e-5) and a.loss == pytest.approx(
            b.loss, abs=1e-5
        )


def test_rank_judges_by_mss_as_the_host_is_judged() -> None:
    proxy, rng = LinearProxy(), np.random.default_rng(5)
    target = rng.normal(size=(2, 16000)).astype(np.float32) * 0.1
    candidates = [patch(0.1, 0.9), patch(0.7, 0.3)]
    found = finetune.rank(proxy, target, candidates, sample_rate=RATE, clip_s=1.0)
    batch = finetune.batch(candidates)
    sounds = batch.render(proxy, batch.knobs, 1.0).detach().numpy()
    expected = [metrics_sound.mss(sound, target[:, :RATE], RATE) for sound in sounds]
    assert found == pytest.approx(expected, abs=0.02)


def test_the_prepared_distance_is_level_blind_and_zero_at_the_target() -> None:
    rng = np.random.default_rng(3)
    target = rng.normal(size=(2, 16000)).astype(np.float32) * 0.1
    distance = finetune.target_distance(LinearProxy(), target, RATE, 1.0)
    same = torch.from_numpy(target[None, :, :8000])
    losses = distance(
        torch.cat([same, 3.0 * same, torch.flip(same, dims=(-1,)) * torch.linspace(0, 1, 8000)])
    )
    assert losses.shape == (3,)
    assert losses[0] == pytest.approx(0.0, abs=1e-4) and losses[1] == pytest.approx(0.0, abs=1e-4)
    assert losses[2] > 0.05


class FakeHost:
    """Renders a patch as a tone whose pitch is knob FIRST; fails above 0.9."""

    def render(self, patches: list[Patch]) -> list[object]:
        time_s = np.arange(4410 * 4) / 44100
        return [
            np.tile(np.sin(2 * np.pi * (200 + 2000 * p.knobs[FIRST]) * time_s), (2, 1)).astype(
                np.float32
            )
            if p.knobs[FIRST] <= 0.9
            else "refused"
            for p in patches
        ]


def test_verify_is_never_worse_than_the_best_proposal() -> None:
    host, rng = FakeHost(), np.random.default_rng(5)
    target = host.render([patch(0.4, 0.5)])[0]
    proposals = [patch(float(v), 0.5) for v in rng.uniform(0, 0.9, 3)]
    refined = [patch(float(v), 0.5) for v in rng.uniform(0, 1.0, 3)]
    before = finetune.verify(host, target, proposals, sample_rate=44100)
    after = finetune.verify(host, target, [*proposals, *refined], sample_rate=44100)
    assert np.nanmin(after.mss_db) == after.mss_db[after.index] <= before.mss_db[before.index]
    assert np.array_equal(after.audio, host.render([after.patch])[0])


def test_verify_survives_failed_renders_and_names_a_host_that_renders_nothing() -> None:
    host = FakeHost()
    target = host.render([patch(0.4, 0.5)])[0]
    assert (
        finetune.verify(host, target, [patch(0.95, 0.5), patch(0.4, 0.5)], sample_rate=44100).index
        == 1
    )
    with pytest.raises(HostError, match="refused"):
        finetune.verify(host, target, [patch(0.95, 0.5)], sample_rate=44100)


# --- a proxy that errs ------------------------------------------------------------------------


def test_a_corrected_distance_is_the_hosts_at_the_patch_and_tells_where_to_go_from_there():
    """The host's tone at 1200 Hz is twice as loud as the proxy's.

    The proxy alone would overshoot, corrected it does not.
    """
    proxy, clip_s = LinearProxy(), 0.5

    def host(patch: Patch) -> np.ndarray:
        twice = LinearProxy()
        twice.phi.data = torch.tensor([1.0, 2.0])
        batch = finetune.batch([patch])
        return batch.render(twice, batch.knobs, clip_s)[0].detach().numpy()

    goal, starts = patch(0.5, 0.25), [patch(0.5, 0.2), patch(0.3, 0.4)]
    sounds = [host(start) for start in starts]
    of = finetune.corrected_distances(
        proxy, host(goal), starts, sounds, sample_rate=RATE, clip_s=clip_s
    )
    batch = finetune.batch(starts)
    made = batch.render(proxy, batch.knobs, clip_s).detach()
    true = [metrics_sound.mss(sound, host(goal), RATE) for sound in sounds]
    assert (of([0, 1])(made) / finetune.MSS_WEIGHT).tolist() == pytest.approx(true, rel=0.05)
    assert float(of([1])(made[1:])) == pytest.approx(float(of([0, 1])(made)[1]), rel=1e-4)

    def refined(distance: finetune.Distance | None) -> float:
        (found,) = finetune.refine(
            proxy,
            host(goal),
            starts[:1],
            settings(clip_s=clip_s, lr=0.02),
            sample_rate=RATE,
            distance=distance,
        )
        return metrics_sound.mss(host(found.patch), host(goal), RATE)

    assert refined(of([0])) < 0.5 * true[0] < refined(None)
