from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmixer_core.model import geometry


def tangents(seed: int, n: int, d: int, length: float) -> torch.Tensor:
    v = torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return v / v.norm(dim=-1, keepdim=True) * length


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    c=st.sampled_from([0.01, 0.1, 0.3, 1.0]),
    d=st.integers(2, 32),
    radius=st.floats(1e-3, 5),
)
def test_log_undoes_exp(seed: int, c: float, d: int, radius: float) -> None:
    ball = geometry.Poincare(c)
    v = tangents(seed, 5, d, radius)
    torch.testing.assert_close(ball.logmap0(ball.expmap0(v)), v, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("c", [0.01, 0.3, 1.0])
def test_distance_from_origin_is_twice_the_tangent_length(c: float) -> None:
    ball = geometry.Poincare(c)
    v = tangents(1, 7, 16, 1.7)
    torch.testing.assert_close(
        ball.dist(torch.zeros_like(v), ball.expmap0(v)), 2 * v.norm(dim=-1), rtol=1e-9, atol=1e-9
    )


def test_distance_is_symmetric_and_keeps_the_triangle_inequality() -> None:
    ball = geometry.Poincare(0.7)
    a, b, c = (ball.expmap0(tangents(s, 50, 8, 1.2)) for s in (1, 2, 3))
    torch.testing.assert_close(ball.dist(a, b), ball.dist(b, a))
    assert (ball.dist(a, c) <= ball.dist(a, b) + ball.dist(b, c) + 1e-9).all()
    assert (ball.dist(a, a) < 1e-6).all()


def test_distance_equals_geoopt() -> None:
    ball = geometry.Poincare(0.3)
    a, b = ball.expmap0(tangents(4, 20, 8, 1.0)), ball.expmap0(tangents(5, 20, 8, 2.0))
    torch.testing.assert_close(ball.dist(a, b), ball.manifold.dist(a, b), rtol=1e-6, atol=1e-6)


def test_addition_moves_the_origin_and_is_undone_from_the_left() -> None:
    ball = geometry.Poincare(1.0)
    a, b = ball.expmap0(tangents(6, 9, 4, 0.8)), ball.expmap0(tangents(7, 9, 4, 0.5))
    torch.testing.assert_close(ball.add(a, torch.zeros_like(a)), a)
    torch.testing.assert_close(ball.add(-a, ball.add(a, b)), b, rtol=1e-9, atol=1e-9)
    assert (ball.add(a, b) - ball.add(b, a)).abs().max() > 1e-2


@pytest.mark.parametrize("length", [0.0, 1e-8, 6.0, 12.0, 100.0])
def test_finite_value_and_gradient_from_origin_to_boundary(length: float) -> None:
    ball = geometry.Poincare(1.0)
    v = (tangents(8, 4, 16, 1.0) * length).requires_grad_()
    point = ball.expmap0(v)
    assert (point.norm(dim=-1) < 1).all()
    normals = tangents(9, 9, 16, 0.5)
    out = (
        ball.logits(point, normals, torch.zeros(9)).sum()
        + ball.dist(point, ball.expmap0(tangents(3, 4, 16, 0.4))).sum()
    )
    (gradient,) = torch.autograd.grad(out, v)
    assert torch.isfinite(out) and torch.isfinite(gradient).all()


def test_float64_keeps_distances_that_float32_loses() -> None:
    ball = geometry.Poincare(1.0)
    far = [
        ball.dist(torch.zeros(2), ball.expmap0(torch.tensor([r, 0.0]))).item() for r in (4.0, 5.0)
    ]
    assert far == pytest.approx([8.0, 10.0], rel=1e-9)


def test_logits_vanish_on_the_hyperplane_and_change_sign_across() -> None:
    ball = geometry.Poincare(0.5)
    normals = tangents(10, 3, 6, 0.9)
    side = ball.logits(ball.expmap0(normals), normals, torch.zeros(3)).diagonal()
    assert (side > 0).all()
    torch.testing.assert_close(
        ball.logits(ball.expmap0(-normals), normals, torch.zeros(3)).diagonal(), -side
    )
    assert ball.logits(torch.zeros(1, 6), normals, torch.zeros(3)).abs().max() < 1e-12


def test_the_ball_becomes_flat_as_curvature_goes_to_zero() -> None:
    ball, flat = geometry.Poincare(1e-8), geometry.Flat()
    v, w = tangents(11, 5, 8, 0.7), tangents(12, 9, 8, 1.1)
    offsets = torch.linspace(-0.5, 0.5, 9)
    close = dict(rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ball.expmap0(v), flat.expmap0(v), **close)
    torch.testing.assert_close(ball.add(v, -v * 0.3), flat.add(v, -v * 0.3), **close)
    torch.testing.assert_close(ball.dist(v, v * 0.2), flat.dist(v, v * 0.2), **close)
    torch.testing.assert_close(ball.logits(v, w, offsets), flat.logits(v, w, offsets), **close)


def test_clip_shortens_only_long_vectors() -> None:
    v = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    torch.testing.assert_close(
        geometry.clip_radius(v, 1.0), torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]])
    )


def test_unknown_manifold_and_flat_ball_are_refused() -> None:
    with pytest.raises(ValueError, match="poincare or euclidean"):
        geometry.space("spherical", 1.0)
    with pytest.raises(ValueError, match="curvature > 0"):
        geometry.space("poincare", 0.0)
