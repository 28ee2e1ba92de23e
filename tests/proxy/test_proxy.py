"""The whole proxy: a batch is its rows, weights are choices, nothing leaves it that is not a
number, every heard knob moves it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.proxy.conftest import CLIP_S, RATE, batch
from unmixer_core.errors import SchemaMismatch, StageError
from unmixer_core.proxy.effects.registry import make_effects
from unmixer_core.proxy.effects.tone import Saturator
from unmixer_core.proxy.proxy import RackProxy
from unmixer_core.schema import chain as chains
from unmixer_core.schema.devices import EFFECTS
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK

SAMPLES = round(RATE * CLIP_S)


def one_hot(patches: list[Patch]) -> list[torch.Tensor]:
    columns = torch.as_tensor(np.stack([p.choices for p in patches])).unbind(-1)
    return [
        torch.nn.functional.one_hot(c, size).float()
        for c, size in zip(columns, RACK.sizes, strict=True)
    ]


def test_batch_equals_loop(proxy: RackProxy, full_patches: list[Patch]) -> None:
    with torch.no_grad():
        together = proxy(*batch(full_patches))
        alone = torch.cat([proxy(*batch([patch])) for patch in full_patches])
    assert together.shape == (len(full_patches), 2, SAMPLES)
    assert torch.allclose(together, alone, atol=1e-4 * float(together.abs().max()))


def test_weights_and_straight_through_equal_choices(
    proxy: RackProxy, full_patches: list[Patch]
) -> None:
    arguments = batch(full_patches)
    weights = [w.requires_grad_() for w in one_hot(full_patches)]
    slots = torch.nn.functional.one_hot(arguments.chain % 9, 9).float().requires_grad_()
    hard = proxy(*arguments).detach()
    soft = proxy(arguments.knobs, weights, slots, arguments.note, arguments.gate_s)
    assert torch.allclose(hard, soft, atol=1e-3 * float(hard.abs().max()))
    soft.square().sum().backward()
    assert (slots.grad != 0).any() and torch.isfinite(slots.grad).all()
    for weight, ref in zip(weights, RACK.choices, strict=True):
        assert weight.grad is not None and torch.isfinite(weight.grad).all(), ref.id
        assert (weight.grad != 0).any(), ref.id


def test_relaxed_weights_are_finite(proxy: RackProxy, full_patches: list[Patch]) -> None:
    arguments = batch(full_patches[:3])
    generator = torch.Generator().manual_seed(0)
    weights = [
        torch.rand(3, size, generator=generator).softmax(-1).requires_grad_() for size in RACK.sizes
    ]
    slots = (4.0 * torch.rand(3, 8, 9, generator=generator)).softmax(-1).requires_grad_()
    sound = proxy(arguments.knobs, weights, slots, arguments.note, arguments.gate_s)
    sound.square().mean().backward()
    assert (
        torch.isfinite(sound).all() and torch.isfinite(slots.grad).all() and (slots.grad != 0).any()
    )


def corners() -> list[Patch]:
    """All knobs low, high, alternating and random stops, under every item of every choice, in
    forward and backward chains.
    """
    rng = np.random.default_rng(5)
    ends = [
        np.zeros(RACK.n_knobs),
        np.ones(RACK.n_knobs),
        np.arange(RACK.n_knobs) % 2,
        (np.arange(RACK.n_knobs) + 1) % 2,
    ]
    ends += [rng.integers(0, 2, RACK.n_knobs) for _ in range(12)]
    orders = [
        list(range(8)),
        list(range(7, -1, -1)),
        *[rng.permutation(8).tolist() for _ in range(2)],
    ]
    patches = []
    for i, (knobs, order) in enumerate(product(ends, orders)):
        choices = np.array([i % size for size in RACK.sizes])
        note, gate_s = ((24, 0.01), (108, 0.4), (60, 0.2))[i % 3]
        patches.append(
            Patch(knobs.astype(np.float32), choices, np.array(order, dtype=np.int8), note, gate_s)
        )
    return patches


def test_corners_of_every_range_are_finite(proxy: RackProxy) -> None:
    arguments = batch(corners())
    knobs = arguments.knobs.requires_grad_()
    sound = proxy(*arguments)
    assert torch.isfinite(sound).all()
    sound.square().mean().backward()
    assert torch.isfinite(knobs.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in proxy.parameters() if p.grad is not None)


def drawn_corners(n: int, seed: int) -> list[Patch]:
    """Every knob at one of its stops, every choice and the order of all eight effects drawn on
    their own.
    """
    rng = np.random.default_rng(seed)
    return [_drawn(rng, rng.integers(0, 2, RACK.n_knobs), rng.permutation(8)) for _ in range(n)]


def single_stops(seed: int) -> list[Patch]:
    """Each knob of each device at both its stops, the others anywhere, its device alone behind
    the voice.
    """
    rng, patches = np.random.default_rng(seed), []
    for column, ref in enumerate(RACK.knobs):
        for stop in (0.0, 1.0):
            knobs = rng.uniform(size=RACK.n_knobs)
            knobs[column] = stop
            chain = np.full(8, -1)
            chain[0] = ref.device - 1  # the voice's own knobs: no effect
            patches.append(_drawn(rng, knobs, chain))
    return patches


def _drawn(rng: np.random.Generator, knobs: np.ndarray, chain: np.ndarray) -> Patch:
    choices = np.array([rng.integers(size) for size in RACK.sizes])
    note, gate_s = int(rng.choice([24, 60, 108])), float(rng.choice([0.01, 0.1, 0.4]))
    return Patch(knobs.astype(np.float32), choices, chain.astype(np.int8), note, gate_s)


PRETRAINED = Path(__file__).resolve().parents[2] / "models" / "pretrained" / "proxy"
TOGETHER = 16


def not_finite(
    proxy: RackProxy, patches: list[Patch], clip_s: float, *, weighed: bool
) -> list[str]:
    """What is NaN or infinite in the sound of these patches or in its gradient; `weighed`.

    Choices and chain as weights.
    """
    found = []
    for start in range(0, len(patches), TOGETHER):
        knobs, choices, chain, *played = batch(patches[start : start + TOGETHER])
        leaves = {"knobs": knobs.requires_grad_()}
        if weighed:
            choices = [w.requires_grad_() for w in one_hot(patches[start : start + TOGETHER])]
            chain = torch.nn.functional.one_hot(chain % 9, 9).float().requires_grad_()
            leaves |= {"chain": chain} | {
                ref.id: w for ref, w in zip(RACK.choices, choices, strict=True)
            }
        proxy.zero_grad()
        sound = proxy(knobs, choices, chain, *played, clip_s=clip_s)
        sound.square().mean().backward()
        parts = {name: leaf.grad for name, leaf in leaves.items()} | {"sound": sound}
        parts |= {
            name: value.grad for name, value in proxy.named_parameters() if value.grad is not None
        }
        found += [
            f"{name} of patches from {start}"
            for name, value in parts.items()
            if not torch.isfinite(value).all()
        ]
    return found


@pytest.mark.parametrize("rate", [22050, 44100])
def test_the_shipped_calibration_is_finite_at_corners_and_stops(rate: int) -> None:
    if not (PRETRAINED / "proxy.safetensors").exists():
        pytest.skip(f"the shipped proxy is not here: {PRETRAINED}")
    shipped = RackProxy.load(PRETRAINED, sample_rate=rate)
    assert not not_finite(shipped, drawn_corners(32, seed=rate), 0.3, weighed=False)
    assert not not_finite(shipped, single_stops(seed=rate), 0.2, weighed=False)
    assert not not_finite(shipped, drawn_corners(TOGETHER, seed=rate + 1), 0.2, weighed=True)


def heard_patch(order: list[int], mode: int, on: int, other: int) -> Patch:
    """A patch in which many controls are heard.

    Choices picked by a few digits, knobs off their stops.
    """
    rng = np.random.default_rng([mode, on, other])
    knobs = rng.uniform(0.3, 0.7, RACK.n_knobs).astype(np.float32)
    for key in (
        "env_2_to_filter_1_freq",
        "env_2_to_osc_1_pos",
        "lfo_1_to_filter_1_freq",
        "lfo_1_to_osc_1_pos",
    ):
        knobs[RACK.knob_index[f"wavetable.{key}"]] = 0.65
    for key in (
        "wavetable.amp_attack",
        "wavetable.env_2_attack",
        "wavetable.amp_decay",
        "compressor.threshold",
    ):
        knobs[RACK.knob_index[key]] = 0.05
    values = {
        "wavetable.osc_1_effect_mode": mode,
        "wavetable.osc_2_on": on,
        "wavetable.sub_on": on,
        "wavetable.filter_1_on": 1,
    }
    values |= {
        "wavetable.unison_mode": on,
        "eq_eight.low_type": other,
        "phaser_flanger.mode": other,
        "delay.ping_pong": other,
    }
    choices = RACK.choice_defaults.copy()
    for key, item in values.items():
        choices[RACK.choice_index[key]] = item
    return Patch(knobs, choices, np.array(order, dtype=np.int8), 57, 0.2)


MIXED = [5, 7, 1, 3, 0, 6, 2, 4]


@pytest.mark.parametrize("order", [list(range(8)), *(MIXED[i:] + MIXED[:i] for i in range(8))])
def test_every_heard_knob_has_a_gradient(proxy: RackProxy, order: list[int]) -> None:
    patches = [heard_patch(order, mode, 1, mode % 2) for mode in range(4)]
    heard, found = np.zeros(RACK.n_knobs, bool), np.zeros(RACK.n_knobs, bool)
    for patch in patches:
        arguments = batch([patch])
        knobs = arguments.knobs.requires_grad_()
        proxy(*arguments).square().mean().backward()
        assert torch.isfinite(knobs.grad).all()
        mask = RACK.active(patch.choices, patch.chain, patch.knobs)[0]
        silent = [RACK.knobs[i].id for i in np.flatnonzero(mask & (knobs.grad[0].numpy() == 0))]
        assert not silent, silent
        heard |= mask
        found |= knobs.grad[0].numpy() != 0
    assert heard.all() and found.all()


def test_note_and_gate_have_gradients(proxy: RackProxy, full_patches: list[Patch]) -> None:
    arguments = batch(full_patches[:2])
    note, gate_s = arguments.note.requires_grad_(), arguments.gate_s.requires_grad_()
    proxy(*arguments).square().mean().backward()
    assert (note.grad != 0).all() and (gate_s.grad != 0).all()


def test_effects_change_the_sound_and_their_order_matters(proxy: RackProxy) -> None:
    base = Patch.init(48, 0.3)
    orders = [(), ("Saturator", "Delay"), ("Delay", "Saturator"), ("Reverb",)]
    patches = [Patch(base.knobs, base.choices, chains.encode(order), 48, 0.3) for order in orders]
    with torch.no_grad():
        sounds = proxy(*batch(patches))
    for i in range(4):
        for j in range(i):
            assert (sounds[i] - sounds[j]).abs().max() > 1e-3


def test_listening_in_inference_mode_does_not_spoil_learning() -> None:
    fresh, arguments = RackProxy(RATE, CLIP_S), batch(corners()[:2])
    with torch.inference_mode():
        fresh(*arguments)
    knobs = arguments.knobs.requires_grad_()
    fresh(*arguments).square().mean().backward()
    assert torch.isfinite(knobs.grad).all()


def test_a_flat_residual_filter_that_is_left_out_changes_nothing(full_patches: list[Patch]) -> None:
    fresh, arguments = RackProxy(RATE, CLIP_S), batch(full_patches)
    through = fresh(*arguments).detach()
    with torch.no_grad():
        assert fresh.voice.residual.idle
        past = fresh(*arguments)
        fresh.voice.residual.gain_db += 3.0
        assert not fresh.voice.residual.idle
        louder = fresh(*arguments)
    assert torch.allclose(through, past, atol=2e-4 * float(through.abs().max()))
    assert (louder - past).abs().max() > 0.01 * past.abs().max()


def test_other_rates_and_lengths(full_patches: list[Patch]) -> None:
    with torch.no_grad():
        sound = RackProxy(44100, 2.0)(*batch(full_patches[:2]), clip_s=0.25)
    assert sound.shape == (2, 2, 11025) and torch.isfinite(sound).all()


def test_save_and_load(proxy: RackProxy, full_patches: list[Patch], tmp_path: Path) -> None:
    changed = RackProxy(RATE, CLIP_S)
    changed.load_state_dict({key: value + 0.01 for key, value in proxy.state_dict().items()})
    changed.save(tmp_path)
    with torch.no_grad():
        assert torch.equal(
            RackProxy.load(tmp_path)(*batch(full_patches[:2])), changed(*batch(full_patches[:2]))
        )


def test_a_proxy_of_another_schema_is_refused(proxy: RackProxy, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="holds no proxy"):
        RackProxy.load(tmp_path)
    proxy.save(tmp_path)
    path = tmp_path / "proxy.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": "0123"}))
    with pytest.raises(SchemaMismatch, match="0123"):
        RackProxy.load(tmp_path)


def test_missing_torn_and_outdated_proxies_are_refused_in_one_sentence(
    proxy: RackProxy, tmp_path: Path
) -> None:
    proxy.save(tmp_path)
    weights = tmp_path / "proxy.safetensors"
    whole, state = weights.read_bytes(), proxy.state_dict()
    save_file({f"renamed.{name}": value.contiguous() for name, value in state.items()}, weights)
    with pytest.raises(StageError, match="another version of this code; run `dvc repro"):
        RackProxy.load(tmp_path)
    weights.write_bytes(whole[:100])
    with pytest.raises(StageError, match="cannot be read .* run `dvc repro"):
        RackProxy.load(tmp_path)
    weights.unlink()
    with pytest.raises(StageError, match="cannot be read"):
        RackProxy.load(tmp_path)
    (tmp_path / "proxy.json").write_text("{")
    with pytest.raises(StageError, match="cannot be read"):
        RackProxy.load(tmp_path)


def test_an_effect_that_the_proxy_cannot_play_is_refused_in_a_sentence() -> None:
    ninth = replace(EFFECTS[0], key="echo", name="Echo")
    with pytest.raises(StageError, match='no module for the effect "Echo"; add one to MODULES'):
        make_effects((*EFFECTS, ninth))


def test_an_item_that_the_proxy_cannot_play_is_refused_in_a_sentence() -> None:
    saturator = next(device for device in EFFECTS if device.key == "saturator")
    choice = saturator.choices[0]
    fifth = replace(choice, items=(*choice.items, "Bit Crush"))
    with pytest.raises(StageError, match="Saturator's type has"):
        Saturator(replace(saturator, choices=(fifth,)))
