"""The encoder tuned on one sound, through the frozen proxy; the model does not change."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.model import tiny
from unmixer_core import sampling
from unmixer_core.comparison import encoder_tuning
from unmixer_core.inference import finetune
from unmixer_core.inference.constraints import Constraints
from unmixer_core.inference.posterior import PatchPosterior
from unmixer_core.proxy.proxy import RackProxy
from unmixer_core.schema.patch import Patch

RATE, CLIP_S = 8000, 0.3


@pytest.fixture(scope="module")
def parts(params) -> tuple[object, RackProxy, PatchPosterior, Patch, finetune.Distance]:
    proxy, model = RackProxy(RATE, CLIP_S), tiny.model().eval()
    patch = sampling.draw("dry", "train", 3, 9, params.sample)
    batch = finetune.batch([patch])
    with torch.no_grad():
        sound = batch.render(proxy, batch.knobs, CLIP_S)[0].numpy()
    clip = np.pad(np.repeat(sound, 1, axis=0), [(0, 0), (0, 2 * 44100 - sound.shape[1])]).astype(
        np.float32
    )
    posterior = PatchPosterior.of(model, clip)
    point = posterior.propose(patch.note, patch.gate_s, 1, 0, Constraints())[0]
    return model, proxy, posterior, point, finetune.target_distance(proxy, sound, RATE, CLIP_S)


def losses(parts, patches: list[Patch]) -> np.ndarray:
    _, proxy, _, _, distance = parts
    batch = finetune.batch(patches)
    with torch.no_grad():
        return distance(batch.render(proxy, batch.knobs, CLIP_S)).numpy()


def tuned(parts, **changes) -> list[Patch]:
    model, proxy, posterior, point, distance = parts
    options = {"steps": 8, "lr": 1e-3, "clip_s": CLIP_S} | changes
    return encoder_tuning.tune(model, posterior.features, point, proxy, distance, **options)


def test_before_any_step_it_is_the_point_estimate(parts):
    first = tuned(parts, steps=0)
    assert len(first) == 1
    assert np.array_equal(first[0].knobs, parts[3].knobs)


def test_later_steps_come_nearer_and_classes_chain_and_model_stay(parts):
    model, proxy, *_ = parts
    before = {name: value.clone() for name, value in model.state_dict().items()}
    answers = tuned(parts, lr=1e-2)
    found = losses(parts, answers)
    assert len(answers) == 9 and found[2:].min() < found[1] - 1e-4
    for answer in answers:
        assert (
            np.array_equal(answer.choices, parts[3].choices) and answer.effects == parts[3].effects
        )
        assert np.array_equal(
            answer.knobs[~answer.active_knobs], parts[3].knobs[~answer.active_knobs]
        )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in (*model.parameters(), *proxy.parameters()))


def test_it_ends_where_the_distance_is_no_number(parts):
    model, proxy, posterior, point, _ = parts
    calls = iter([1.0, 1.0, float("nan")])

    def broken(audio: torch.Tensor) -> torch.Tensor:
        return audio.mean(dim=(1, 2)) * 0.0 + next(calls) * audio.square().mean(dim=(1, 2))

    answers = encoder_tuning.tune(
        model, posterior.features, point, proxy, broken, steps=8, lr=1e-3, clip_s=CLIP_S
    )
    assert len(answers) == 2 and all(np.isfinite(a.knobs).all() for a in answers)
