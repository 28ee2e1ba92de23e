"""The neural proxy: a Twin like the other one, that learns spectrograms and sounds what it
draws.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.proxy.conftest import CLIP_S, RATE, batch
from tests.proxy.test_proxy import one_hot
from unmixer_core import config, sampling
from unmixer_core.calibration import neural_training
from unmixer_core.calibration.material import Material
from unmixer_core.errors import StageError
from unmixer_core.inference import finetune
from unmixer_core.proxy.neural import NeuralProxy, mel_levels_db
from unmixer_core.proxy.proxy import RackProxy
from unmixer_core.schema.patch import Patch, Patches
from unmixer_core.schema.rack import RACK


@pytest.fixture(scope="module")
def network() -> NeuralProxy:
    return neural_training.new_network(RATE, CLIP_S, 8, seed=0)


def test_it_sounds_a_batch_as_its_rows(network: NeuralProxy, full_patches: list[Patch]) -> None:
    with torch.no_grad():
        together = network(*batch(full_patches))
        alone = torch.cat([network(*batch([patch])) for patch in full_patches])
    assert together.shape == (len(full_patches), 2, round(RATE * CLIP_S))
    assert torch.isfinite(together).all() and torch.allclose(
        together, alone, atol=1e-3 * float(together.abs().max())
    )


def test_the_sound_has_the_levels_that_were_drawn(
    network: NeuralProxy, full_patches: list[Patch]
) -> None:
    arguments = batch(full_patches)
    with torch.no_grad():
        wanted, found = network.levels_db(*arguments), mel_levels_db(network(*arguments), RATE)
    assert (found - wanted)[:, :, 1:-1].abs().mean() < 4.0


def test_what_is_drawn_is_the_same_filter_at_every_note(full_patches: list[Patch]) -> None:
    """Where the note's harmonics lie is the tone's own.

    A network that draws nothing filters every note alike.
    """
    still = NeuralProxy(RATE, CLIP_S, width=8)
    for parameter in still.grow[-1].parameters():
        torch.nn.init.zeros_(parameter)
    low, high = (batch([replace(full_patches[0], note=note)]) for note in (40, 57))
    with torch.no_grad():
        levels = [
            still.levels_db(*arguments) - still.own_db(arguments.note) for arguments in (low, high)
        ]
        assert (still.own_db(low.note) - still.own_db(high.note)).abs().max() > 6.0
    assert torch.allclose(levels[0], still.mean_db.expand_as(levels[0]), atol=1e-3)
    assert torch.allclose(*levels, atol=1e-3)


def test_what_is_drawn_at_the_floor_is_silence(full_patches: list[Patch]) -> None:
    silent = NeuralProxy(RATE, CLIP_S, width=8)
    silent.mean_db.fill_(-1000.0)
    with torch.no_grad():
        assert not silent(*batch(full_patches)).any()


def test_one_that_draws_levels_as_such_is_of_another_version(
    network: NeuralProxy, tmp_path: Path
) -> None:
    network.save(tmp_path)
    about = network.description()
    about.pop("draws")
    with pytest.raises(StageError, match="another version of this code; run"):
        NeuralProxy.open(tmp_path, about)


def test_weights_slots_note_and_every_knob_have_gradients(
    network: NeuralProxy, full_patches: list[Patch]
) -> None:
    arguments = batch(full_patches)
    knobs, note = arguments.knobs.requires_grad_(), arguments.note.requires_grad_()
    weights = [w.requires_grad_() for w in one_hot(full_patches)]
    slots = torch.nn.functional.one_hot(arguments.chain % 9, 9).float().requires_grad_()
    soft = network(knobs, weights, slots, note, arguments.gate_s)
    assert torch.allclose(
        soft, network(*batch(full_patches)), atol=1e-3 * float(soft.detach().abs().max())
    )
    soft.square().mean().backward()
    for tensor in (knobs, note, slots, *weights):
        assert (
            tensor.grad is not None
            and torch.isfinite(tensor.grad).all()
            and (tensor.grad != 0).any()
        )
    there = torch.tensor(
        np.array([[d == 0 or d - 1 in p.chain for d in RACK.device_of_knob] for p in full_patches])
    )
    assert (knobs.grad[there] != 0).all() and (knobs.grad[~there] == 0).all()


def test_the_weights_of_a_new_one_are_its_seeds_and_nothing_elses() -> None:
    def weights(seed: int) -> torch.Tensor:
        return torch.cat(
            [w.flatten() for w in neural_training.new_network(RATE, CLIP_S, 8, seed).parameters()]
        )

    before = torch.get_rng_state()
    first = weights(5)
    assert torch.equal(torch.get_rng_state(), before), (
        "whoever draws next draws what they would have drawn"
    )
    torch.rand(3)
    assert torch.equal(weights(5), first) and not torch.equal(weights(6), first)


def test_training_comes_closer_than_the_mean_spectrogram(params: config.Params) -> None:
    patches = Patches.stack(
        [sampling.draw("dry", "train", i, 3, params.sample) for i in range(24)], "dry", "train"
    )
    with torch.no_grad():
        clips = RackProxy(RATE, CLIP_S)(*batch(list(patches))).numpy()
    material = Material(SimpleNamespace(patches=patches, rate=RATE, audio=lambda i: clips[i]), RATE)
    settings = params.proxy.model_copy(
        update={
            "seed": 1,
            "neural_clips": 24,
            "neural_steps": 120,
            "neural_batch": 12,
            "neural_lr": 5e-3,
        }
    )
    learner = neural_training.new_network(RATE, CLIP_S, 8, seed=0)
    losses: list[float] = []
    neural_training.fit(
        learner,
        material,
        settings,
        lambda v, step: losses.append(v["neural_loss_db"]),
        lambda steps, n, words: steps,
    )
    wanted = neural_training.spectrograms(material, np.arange(24), learner.frames, 1).float()
    mean_error = float((wanted - wanted.mean(dim=0)).abs().mean())
    assert neural_training.levels_gap_db(learner, material, np.arange(24)) < 0.7 * mean_error
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_whoever_loads_a_proxy_gets_the_kind_that_was_saved(
    network: NeuralProxy, full_patches: list[Patch], tmp_path: Path
) -> None:
    network.save(tmp_path)
    loaded = RackProxy.load(tmp_path)
    assert isinstance(loaded, NeuralProxy)
    with torch.no_grad():
        assert torch.equal(loaded(*batch(full_patches[:2])), network(*batch(full_patches[:2])))
    with pytest.raises(StageError, match="8000 Hz only"):
        RackProxy.load(tmp_path, sample_rate=44100)
    with pytest.raises(StageError, match="0.4 s at most"):
        loaded(*batch(full_patches[:2]), clip_s=1.0)


def test_refinement_and_ranking_run_through_it(
    network: NeuralProxy, full_patches: list[Patch]
) -> None:
    with torch.no_grad():
        target = network(*batch(full_patches[:1]))[0].numpy()
    settings = SimpleNamespace(
        steps=8, lr=0.05, lambda_b=0.0, clip_norm=1.0, logit_limit=5.0, clip_s=CLIP_S
    )
    order = finetune.rank(network, target, full_patches[:4], sample_rate=RATE)
    assert order.argmin() == 0 and order[0] < 0.1
    start = [
        Patch(
            np.full(RACK.n_knobs, 0.5, np.float32),
            full_patches[0].choices,
            full_patches[0].chain,
            57,
            0.2,
        )
    ]
    found = finetune.refine(network, target, start, settings, sample_rate=RATE)[0]
    assert found.finite and found.loss < found.initial_loss
