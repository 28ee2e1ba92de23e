"""Every gradient path of the hybrid loss, one by one, and the laws of its terms."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.model import tiny
from unmixer_core.model.targets import slots_of
from unmixer_core.model.unmixer import Belief, Draw, Unmixer, context_of
from unmixer_core.schema import chain as chains
from unmixer_core.training import losses


def forward(model: Unmixer) -> tuple[Belief, losses.Targets]:
    model.train()
    x, targets = tiny.batch()
    return model(x, targets.note, targets.gate_s), targets


def gradients(loss: Tensor, module: torch.nn.Module) -> Tensor:
    """All gradients of `loss` in a module, as one vector.

    Parameters that are not reached count as zero.
    """
    found = torch.autograd.grad(
        loss, list(module.parameters()), retain_graph=True, allow_unused=True
    )
    return torch.cat(
        [torch.zeros(1).double() if g is None else g.flatten().double() for g in found]
    )


def reaches(loss: Tensor, module: torch.nn.Module) -> bool:
    gradient = gradients(loss, module)
    assert torch.isfinite(gradient).all()
    return bool(gradient.abs().max() > 0)


def spectral(
    model: Unmixer,
    belief: Belief,
    targets: losses.Targets,
    *,
    knobs: bool = True,
    carry: bool = False,
    **switches: bool,
) -> Tensor:
    """`knobs`: let the gradient through them; `carry`.

    As training takes it, unlimited, in place of the plain mean.
    """
    draw = model.draw(belief, 1.0, torch.Generator().manual_seed(3), **switches)
    if not knobs:
        draw = replace(draw, knobs=draw.knobs.detach())
    if carry:
        at = losses.parted(draw)
        return losses.carried(heard(at, targets), at, draw, None)[0]
    return heard(draw, targets).mean()


def heard(draw: Draw, targets: losses.Targets) -> Tensor:
    """Distance [b] of a sample's sound to the targets', through the toy proxy."""
    wanted = tiny.FakeProxy()(
        targets.knobs, context_of(targets).choices, targets.slots, targets.note, targets.gate_s
    )
    found = losses.level_matched(
        losses.rendered(tiny.FakeProxy(), draw, targets.note, targets.gate_s)
    )
    return (found - losses.level_matched(wanted)).square().mean((-2, -1))


def test_knob_likelihood_reaches_encoder_and_knob_heads_only() -> None:
    model = tiny.model()
    belief, targets = forward(model)
    loss = losses.knob_nll(model, belief, context_of(targets), targets, 6.0)
    assert reaches(loss, model.encoder) and reaches(loss, model.knobs)
    assert not reaches(loss, model.classifier) and not reaches(loss, model.chain)


def test_choices_reach_encoder() -> None:
    model = tiny.model()
    belief, targets = forward(model)
    loss = losses.choice_cross_entropy(belief.classes.choices, targets, 0.05)
    assert reaches(loss, model.encoder) and reaches(loss, model.classifier)


@pytest.mark.parametrize("manifold", ["poincare", "euclidean"])
def test_chain_reaches_encoder_and_manifold_points(manifold: str) -> None:
    model = tiny.model(manifold=manifold)
    belief, targets = forward(model)
    loss = losses.chain_nll(model.chain_log_probs(belief, targets.chain), targets.chain)
    assert reaches(loss, model.neck), "by the decoder's own vector, not only by the presence logits"
    assert reaches(loss, model.encoder)
    (points,) = torch.autograd.grad(loss, [model.chain.effects], retain_graph=True)
    assert torch.isfinite(points).all()
    assert torch.equal(points.abs().sum(-1) > 0, targets.present.any(0))


def test_chain_reaches_the_shared_presence_logits() -> None:
    model = tiny.model()
    belief, targets = forward(model)
    loss = losses.chain_nll(model.chain_log_probs(belief, targets.chain), targets.chain)
    assert reaches(loss, model.classifier)


def test_spectral_reaches_encoder_through_knobs_alone() -> None:
    model = tiny.model()
    belief, targets = forward(model)
    loss = spectral(model, belief, targets, through_choices=False, through_chain=False)
    assert reaches(loss, model.encoder) and reaches(loss, model.neck) and reaches(loss, model.knobs)
    assert not reaches(loss, model.classifier) and not reaches(loss, model.chain)


def test_knob_likelihood_and_sound_reach_the_atoms_at_the_stops() -> None:
    model = tiny.model()
    belief, targets = forward(model)
    head, columns = model.knobs.heads[0], model.knobs.columns[0]  # Wavetable, which every patch has
    at_stop = (targets.knobs[:, columns] == 0.0) | (targets.knobs[:, columns] == 1.0)
    assert (at_stop & losses.scored_knobs(targets)[:, columns]).any()
    for loss in (
        losses.knob_nll(model, belief, context_of(targets), targets, 6.0),
        spectral(model, belief, targets, through_choices=False, through_chain=False),
    ):
        (bias,) = torch.autograd.grad(loss, [head.out.bias], retain_graph=True)
        atoms = bias[-2 * head.components * head.n :]
        assert torch.isfinite(atoms).all() and atoms.abs().max() > 0


def test_spectral_reaches_choices_when_switched_on() -> None:
    model = tiny.model()
    belief, targets = forward(model)
    loss = spectral(model, belief, targets, knobs=False, through_choices=True, through_chain=False)
    found = torch.autograd.grad(loss, belief.classes.choices, allow_unused=True, retain_graph=True)
    assert all(g is not None and g.abs().max() > 0 for g in found)
    assert reaches(loss, model.classifier) and reaches(loss, model.encoder)


def test_spectral_reaches_the_order_when_switched_on() -> None:
    model = tiny.model()
    belief, targets = forward(model)
    loss = spectral(model, belief, targets, knobs=False, through_choices=False, through_chain=True)
    assert reaches(loss, model.chain) and reaches(loss, model.encoder)
    assert model.chain.effects.requires_grad
    (points,) = torch.autograd.grad(loss, [model.chain.effects], allow_unused=True)
    assert points is not None and points.abs().max() > 0


def test_carried_gradient_is_each_clips_own_clipped_at_the_sample() -> None:
    model = tiny.model().eval()
    x, targets = tiny.batch(4)
    belief = model(x, targets.note, targets.gate_s)
    draw = model.draw(
        belief, 1.0, torch.Generator().manual_seed(3), through_choices=False, through_chain=False
    )
    strength, at = torch.tensor([1e-3, 1.0, 1e30, float("inf")]), losses.parted(draw)
    term, dropped = losses.carried((at.knobs * strength[:, None]).sum(1), at, draw, 1.0)
    (gradient,) = torch.autograd.grad(term, draw.knobs, retain_graph=True)
    norms = 4 * gradient.norm(dim=1)  # the term is a mean over 4 clips
    assert dropped == 1
    assert norms.tolist() == pytest.approx([1e-3 * 63**0.5, 1.0, 1.0, 0.0], rel=1e-4)
    plain, _ = losses.carried((at.knobs * strength[:, None]).sum(1)[:2], at, draw, None)
    (gradient,) = torch.autograd.grad(plain, draw.knobs)
    assert gradient[:2].norm(dim=1).tolist() == pytest.approx(
        [1e-3 * 63**0.5 / 4, 63**0.5 / 4], rel=1e-4
    )


@pytest.mark.parametrize("through_choices", [False, True])
@pytest.mark.parametrize("through_chain", [False, True])
def test_the_carried_term_has_the_gradient_of_the_mean_distance(
    through_choices: bool, through_chain: bool
) -> None:
    """Whatever may pass, and once.

    Knobs are conditioned on choices and chain, which enter the proxy themselves too.
    """
    model = tiny.model()
    belief, targets = forward(model)
    model.eval()  # both samples without dropout
    switches = {"through_choices": through_choices, "through_chain": through_chain}
    plain = gradients(spectral(model, belief, targets, **switches), model)
    carried = gradients(spectral(model, belief, targets, carry=True, **switches), model)
    assert plain.abs().max() > 0
    assert (carried - plain).norm() <= 1e-4 * plain.norm()


def test_draws_are_patches_and_repeat_with_the_seed() -> None:
    model = tiny.model().eval()
    x, targets = tiny.batch()
    belief = model(x, targets.note, targets.gate_s)
    one, two = (model.draw(belief, 0.7, torch.Generator().manual_seed(9)) for _ in range(2))
    assert torch.equal(one.knobs, two.knobs)
    assert ((one.knobs >= 0) & (one.knobs <= 1)).all()
    slots = one.context.slots.detach().round(decimals=4)
    assert (slots.sum(-1) == 1).all()
    assert (slots[..., :8].sum(1) <= 1).all()  # no effect twice
    ended = slots[..., 8].cummax(1).values
    assert torch.equal(ended, slots[..., 8])  # nothing after END


def test_loss_is_the_weighted_sum_of_its_terms() -> None:
    model = tiny.model()
    belief, targets = forward(model)
    weights = dict(lambda_p=0.5, lambda_c=2.0, lambda_o=0.25, lambda_e=3.0)
    settings = tiny.section(tiny.LOSS, **weights)
    terms = losses.parametric(model, belief, targets, settings)
    f = terms.floats()
    expected = 0.5 * f["knobs"] + 2.0 * f["choices"] + 0.25 * f["chain"] + 3.0 * f["present"]
    assert terms.total(settings).item() == pytest.approx(expected, rel=1e-5)


def test_inaudible_knobs_and_choices_do_not_count() -> None:
    model = tiny.model().eval()
    x, targets = tiny.batch()
    belief = model(x, targets.note, targets.gate_s)
    silent_knobs = torch.where(losses.scored_knobs(targets), targets.knobs, 0.123)
    silent_choices = torch.where(targets.choice_mask, targets.choices, 0)
    context = context_of(targets)
    for cap in (1.0, 6.0):
        a = losses.knob_nll(model, belief, context, targets, cap)
        b = losses.knob_nll(
            model, belief, context, losses.Targets(**{**vars(targets), "knobs": silent_knobs}), cap
        )
        assert torch.equal(a, b)
    a = losses.choice_cross_entropy(belief.classes.choices, targets, 0.1)
    other = losses.Targets(**{**vars(targets), "choices": silent_choices})
    assert torch.equal(a, losses.choice_cross_entropy(belief.classes.choices, other, 0.1))


def test_chain_likelihood_stops_at_the_first_end() -> None:
    chain = torch.as_tensor(chains.encode(("Delay", "Reverb"))).long()[None]
    log_probs = torch.full((1, 8, 9), -2.0)
    assert losses.chain_nll(log_probs, chain).item() == pytest.approx(6.0)  # two effects and END
    full = torch.arange(8)[None]
    assert losses.chain_nll(log_probs, full).item() == pytest.approx(
        16.0
    )  # eight effects need no END
    smoothed = losses.chain_nll(
        log_probs.scatter(2, slots_of(full).argmax(-1)[..., None], -1.0), full, 0.1
    )
    assert smoothed.item() == pytest.approx(8 * (0.9 * 1.0 + 0.1 * (17 / 9)))


def test_soft_cap_is_the_identity_below_and_keeps_a_shrinking_slope_above() -> None:
    x = torch.tensor([-3.0, 5.9, 6.1, 1e6], requires_grad=True)
    y = losses.soft_cap(x, 6.0)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert y[:2].tolist() == pytest.approx([-3.0, 5.9])
    assert y[3].item() == pytest.approx(6 + math.log1p(1e6 - 6), rel=1e-5)
    assert slope[:2].tolist() == [1.0, 1.0] and 0 < slope[3] < 1e-5


def test_schedules() -> None:
    assert [losses.schedule(s, 0.5, 0.2) for s in (0.0, 0.5, 0.6, 0.7, 1.0)] == pytest.approx(
        [0, 0, 0.5, 1, 1]
    )
    settings = tiny.section(tiny.LOSS, temperature_start=1.0, temperature_end=0.3)
    assert [losses.temperature(s, settings) for s in (0.0, 1.0)] == pytest.approx([1.0, 0.3])


def test_level_matching_removes_gain() -> None:
    audio = torch.randn(3, 2, 100, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        losses.level_matched(audio), losses.level_matched(7 * audio), rtol=1e-4, atol=1e-5
    )
    assert torch.isfinite(losses.level_matched(torch.zeros(1, 2, 10))).all()
