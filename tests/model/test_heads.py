from __future__ import annotations

import pytest
import torch

from tests.model import tiny
from unmixer_core.model.heads import Context
from unmixer_core.model.targets import AMOUNTS, Targets, one_hot_choices
from unmixer_core.model.unmixer import Unmixer, context_of, straight_through_bernoulli
from unmixer_core.schema import chain as chains
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK
from unmixer_core.training.augment import augment


def targets_of(*effects: str) -> Targets:
    return Targets.of_list([Patch.init(effects=effects)])


def test_context_tells_who_stands_before_whom() -> None:
    targets = targets_of("Saturator", "Reverb", "Compressor")
    features = context_of(targets).features()
    assert features.shape == (1, Context.width())
    before = features[0, -64:].unflatten(0, (8, 8))
    present = features[0, -72:-64]
    ids = chains.encode(("Saturator", "Reverb", "Compressor"))[:3]
    assert present.nonzero()[:, 0].tolist() == sorted(ids.tolist())
    expected = {(ids[0], ids[1]), (ids[0], ids[2]), (ids[1], ids[2])}
    assert {(int(a), int(b)) for a, b in before.nonzero()} == {
        (int(a), int(b)) for a, b in expected
    }


def test_targets_use_the_canonical_order_and_mark_what_is_heard() -> None:
    one, two = (
        targets_of("Reverb", "EQ Eight", "Saturator"),
        targets_of("EQ Eight", "Reverb", "Saturator"),
    )
    assert torch.equal(one.chain, two.chain)
    assert one.knob_mask[0, RACK.knob_index["reverb.decay_time"]]
    assert not one.knob_mask[0, RACK.knob_index["delay.feedback"]]
    assert not one.moving.any()  # the init patch modulates nothing
    assert len(one[torch.tensor([0, 0])]) == 2


def test_knobs_are_scattered_to_their_place_in_the_rack() -> None:
    heads = tiny.model().knobs
    parts = [torch.as_tensor(columns, dtype=torch.float32)[None] for columns in heads.columns]
    assert torch.equal(heads.scatter(parts)[0], torch.arange(RACK.n_knobs, dtype=torch.float32))


def test_mixtures_have_floored_scales_and_bounded_means() -> None:
    model = tiny.model().eval()
    x, targets = tiny.batch()
    belief = model(100 * x, targets.note, targets.gate_s)
    for mixture in model.mixtures(belief, context_of(targets)):
        unit = torch.sigmoid(mixture.mean)
        in_unit = mixture.scale * unit * (1 - unit)
        assert (in_unit >= 0.015 - 1e-6).all() and (mixture.mean.abs() < 5.5).all()


def test_still_amounts_lie_at_zero_and_moving_ones_stay() -> None:
    knobs = torch.rand(2, RACK.n_knobs, generator=torch.Generator().manual_seed(1))
    moving = torch.zeros(2, len(AMOUNTS))
    moving[1] = 1.0
    stilled = Unmixer.stilled(knobs, moving)
    assert (stilled[0, list(AMOUNTS)] == 0.5).all() and torch.equal(stilled[1], knobs[1])
    others = [i for i in range(RACK.n_knobs) if i not in AMOUNTS]
    assert torch.equal(stilled[0, others], knobs[0, others])


def test_bernoulli_samples_have_their_probability_and_a_gradient() -> None:
    logits = torch.tensor([-1.0, 0.5], requires_grad=True)
    drawn = straight_through_bernoulli(
        logits.expand(20_000, 2), 0.7, torch.Generator().manual_seed(2)
    )
    assert drawn.mean(0).tolist() == pytest.approx(torch.sigmoid(logits).tolist(), abs=0.015)
    drawn.sum().backward()
    assert (logits.grad > 0).all()


def test_knobs_depend_on_choices_and_on_the_order_of_effects() -> None:
    model = tiny.model().eval()
    x, targets = tiny.batch(2)
    belief = model(x, targets.note, targets.gate_s)
    base = context_of(targets_of("Saturator", "Auto Filter")[torch.tensor([0, 0])])
    swapped = context_of(targets_of("Auto Filter", "Saturator")[torch.tensor([0, 0])])
    other = Context(
        one_hot_choices(torch.ones(2, RACK.n_choices, dtype=torch.long)), base.slots, base.moving
    )
    means = [model.mixtures(belief, c)[1].mean for c in (base, swapped, other)]
    assert not torch.allclose(means[0], means[1]) and not torch.allclose(means[0], means[2])


def test_augmentation_repeats_with_its_seed_keeps_the_floor_and_can_be_off() -> None:
    x, _ = tiny.batch(6)
    x[:, :, :, -3:] = -1.0
    settings = tiny.section(tiny.AUGMENT, mask_mels=0, mask_frames=0, shift_frames=0)
    one, two = (augment(x, settings, tiny.SPEC, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two) and not torch.equal(one, x)
    assert (one >= -1).all() and (one[..., -3:] == -1).all()
    off = tiny.section(dict.fromkeys(tiny.AUGMENT, 0))
    assert torch.equal(augment(x, off, tiny.SPEC, torch.Generator().manual_seed(3)), x)
    later = augment(
        x,
        tiny.section(dict.fromkeys(tiny.AUGMENT, 0), shift_frames=4),
        tiny.SPEC,
        torch.Generator().manual_seed(4),
    )
    shifts = [
        next(s for s in range(5) if torch.equal(later[i, ..., s:], x[i, ..., : x.shape[-1] - s]))
        for i in range(6)
    ]
    assert len(set(shifts)) > 1
