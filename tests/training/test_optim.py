from __future__ import annotations

import copy

import geoopt
import pytest
import torch
from torch import Tensor, nn

from unmixer_core.errors import TrainingError
from unmixer_core.model.geometry import Poincare
from unmixer_core.training.optim import GCWD


def line(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.linspace(-1, 1, int(torch.tensor(shape).prod())).reshape(shape))


def with_gradient(p: nn.Parameter, gradient: Tensor | float) -> nn.Parameter:
    p.grad = torch.as_tensor(gradient, dtype=p.dtype).expand_as(p).clone()
    return p


def ball_point() -> geoopt.ManifoldParameter:
    ball = Poincare(0.7)
    return geoopt.ManifoldParameter(ball.expmap0(line(4, 3).detach()), manifold=ball.manifold)


def test_without_clipping_it_is_adamw() -> None:
    ours, theirs = line(4, 5), line(4, 5)
    mine = GCWD([("w", ours)], lr=1e-2, beta2=0.999, weight_decay=0.1, clip="none")
    peer = torch.optim.AdamW([theirs], lr=1e-2, betas=(0.9, 0.999), weight_decay=0.1)
    for i in range(5):
        for p in (ours, theirs):
            with_gradient(p, torch.sin(p.detach() * (i + 1)))
        mine.step()
        peer.step()
    torch.testing.assert_close(ours, theirs)


def test_norm_clipping_equals_adamw_on_torch_clipped_gradients() -> None:
    ours, theirs = [line(4, 5), line(7)], [line(4, 5), line(7)]
    mine = GCWD(zip("ab", ours, strict=True), lr=1e-2, beta2=0.999, clip="norm", threshold=0.3)
    peer = torch.optim.AdamW(theirs, lr=1e-2, betas=(0.9, 0.999), weight_decay=0.0)
    for i in range(4):
        for p in ours + theirs:
            with_gradient(p, 10.0**-i * p.detach())
        norm = torch.nn.utils.clip_grad_norm_(theirs, 0.3)
        mine.step()
        peer.step()
        assert mine.report.gradient_norm == pytest.approx(norm.item(), rel=1e-5)
        assert mine.report.clipped_share == float(norm > 0.3)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_element_clipping_saturates_to_sign_and_is_linear_below() -> None:
    p = with_gradient(nn.Parameter(torch.zeros(4)), torch.tensor([5.0, -1e30, 1e-4, 0.0]))
    optimiser = GCWD([("w", p)], lr=1.0, beta1=0.0, clip="element", threshold=0.01)
    optimiser.step()
    torch.testing.assert_close(p.detach(), torch.tensor([-1.0, 1.0, -0.01, 0.0]))
    assert optimiser.report.clipped_share == 0.5


@pytest.mark.parametrize("clip", ["norm", "element", "none"])
def test_decay_touches_matrices_only(clip: str) -> None:
    weight, bias, point = line(3, 3), line(3), ball_point()
    before = [x.detach().clone() for x in (weight, bias, point)]
    for p in (weight, bias, point):
        with_gradient(p, 0.0)
    GCWD([("w", weight), ("b", bias), ("p", point)], lr=0.1, weight_decay=0.5, clip=clip).step()
    torch.testing.assert_close(weight.detach(), before[0] * 0.95)
    torch.testing.assert_close(bias.detach(), before[1])
    torch.testing.assert_close(point.detach(), before[2])


@pytest.mark.parametrize("clip", ["norm", "element"])
def test_points_stay_in_the_ball_and_reach_a_target(clip: str) -> None:
    ball, point = Poincare(0.7), ball_point()
    goal = ball.expmap0(torch.full((4, 3), 0.6))
    optimiser = GCWD([("p", point)], lr=0.03, clip=clip, threshold=0.5)
    start = ball.dist(point, goal).sum().item()
    for _ in range(300):
        optimiser.zero_grad()
        ball.dist(point, goal).square().sum().backward()
        optimiser.step()
        assert (0.7 * point.square().sum(-1) < 1).all()
    assert ball.dist(point, goal).sum().item() < 0.1 * start


def test_manifold_steps_equal_geoopts_riemannian_adam() -> None:
    ours, theirs, ball = ball_point(), ball_point(), Poincare(0.7)
    mine = GCWD([("p", ours)], lr=0.03, beta2=0.999, clip="none")
    peer = geoopt.optim.RiemannianAdam([theirs], lr=0.03)
    goal = ball.expmap0(torch.full((4, 3), 0.6))
    for _ in range(5):
        for p, optimiser in ((ours, mine), (theirs, peer)):
            optimiser.zero_grad()
            ball.dist(p, goal).square().sum().backward()
            optimiser.step()
    torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("clip", ["norm", "element", "none"])
def test_non_finite_gradient_names_the_head_and_changes_nothing(bad: float, clip: str) -> None:
    encoder, chain = with_gradient(line(3, 3), bad), with_gradient(line(4), bad)
    knobs = with_gradient(line(2), 1.0)
    optimiser = GCWD(
        [("encoder.w", encoder), ("chain.gru.b", chain), ("knobs.b", knobs)], lr=0.1, clip=clip
    )
    before = [p.detach().clone() for p in (encoder, chain, knobs)]
    with pytest.raises(TrainingError, match=r"gradient of chain is not finite"):
        optimiser.step()
    for p, old in zip((encoder, chain, knobs), before, strict=True):
        torch.testing.assert_close(p.detach(), old)
    assert not optimiser.state and not optimiser.norms


def test_finite_gradients_whose_squares_overflow_are_clipped_not_refused() -> None:
    p = with_gradient(line(3, 3), 1e30)
    optimiser = GCWD([("w", p)], lr=0.1, clip="norm")
    optimiser.step()
    assert optimiser.report.gradient_norm == pytest.approx(3e30)
    assert torch.isfinite(p).all()


def test_percentile_threshold_follows_the_recent_norms() -> None:
    p = line(4)
    optimiser = GCWD([("w", p)], lr=1e-3, clip="norm", percentile=50)
    shares = []
    for norm in (1.0, 1.0, 1.0, 100.0, 0.01):
        with_gradient(p, norm / 2)
        optimiser.step()
        shares.append(optimiser.report.clipped_share)
    assert shares == [0.0, 0.0, 0.0, 1.0, 0.0]


def test_element_percentile_clips_that_share() -> None:
    p = with_gradient(nn.Parameter(torch.zeros(1000)), torch.linspace(0, 1, 1000))
    optimiser = GCWD([("w", p)], lr=1e-3, beta1=0.0, clip="element", percentile=90)
    optimiser.step()
    assert optimiser.report.clipped_share == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("clip", ["norm", "element"])
def test_restored_state_continues_bit_for_bit(clip: str) -> None:
    def run(optimiser: GCWD, parameters: list[nn.Parameter], steps: range) -> None:
        for i in steps:
            for p in parameters:
                with_gradient(p, torch.cos(p.detach() * (i + 1)))
            optimiser.step()

    def fresh() -> tuple[list[nn.Parameter], GCWD]:
        parameters = [line(3, 3), ball_point()]
        return parameters, GCWD(
            zip("ab", parameters, strict=True), lr=0.05, clip=clip, percentile=60
        )

    whole, whole_optimiser = fresh()
    run(whole_optimiser, whole, range(6))
    first, optimiser = fresh()
    run(optimiser, first, range(3))
    second, resumed = fresh()
    for new, old in zip(second, first, strict=True):
        new.data.copy_(old.data)
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    run(resumed, second, range(3, 6))
    for a, b in zip(whole, second, strict=True):
        assert torch.equal(a, b)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="norm, element, none"):
        GCWD([("w", line(2))], lr=0.1, clip="value")
    with pytest.raises(ValueError, match="percentile"):
        GCWD([("w", line(2))], lr=0.1, percentile=0)
