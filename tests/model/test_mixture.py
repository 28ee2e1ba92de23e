from __future__ import annotations

import pytest
import torch

from unmixer_core.model.mixture import Mixture, gumbel_one_hot, to_logit, to_unit


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixture(seed: int, b: int = 1, k: int = 3, n: int = 2, r: int = 2) -> Mixture:
    g = rng(seed)
    draw = lambda *shape: torch.randn(shape, generator=g, dtype=torch.float64)  # noqa: E731
    return Mixture(draw(b, k), draw(b, k, n), 0.3 + draw(b, k, n).abs(), 0.5 * draw(b, k, n, r))


def all_on(m: Mixture, x: torch.Tensor) -> torch.Tensor:
    return torch.ones(x.shape, dtype=torch.bool)


def test_density_integrates_to_one() -> None:
    m = mixture(1)
    axis = torch.linspace(-12, 12, 241, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    wide = Mixture(*(t.expand(len(x), *t.shape[1:]) for t in (m.logits, m.mean, m.scale, m.factor)))
    total = wide.log_prob(x, all_on(m, x)).exp().sum() * 0.1**2
    assert total.item() == pytest.approx(1.0, abs=1e-3)


def test_density_equals_torch_distributions() -> None:
    m = mixture(2, b=4, n=5)
    x = torch.randn(4, 5, generator=rng(3), dtype=torch.float64)
    dist = torch.distributions
    each = dist.LowRankMultivariateNormal(m.mean, m.factor, m.scale.square())
    peer = dist.MixtureSameFamily(dist.Categorical(logits=m.logits), each)
    torch.testing.assert_close(m.log_prob(x, all_on(m, x)), peer.log_prob(x))


def test_masked_knobs_are_integrated_out() -> None:
    m = mixture(4, b=3, n=4)
    x = torch.randn(3, 4, generator=rng(5), dtype=torch.float64)
    mask = torch.tensor([True, False, True, False]).expand(3, 4)
    part = Mixture(m.logits, m.mean[..., ::2], m.scale[..., ::2], m.factor[..., ::2, :])
    torch.testing.assert_close(m.log_prob(x, mask), part.log_prob(x[:, ::2], mask[:, ::2]))
    silent = m.log_prob(x, torch.zeros_like(mask))
    torch.testing.assert_close(silent, torch.zeros_like(silent))


def test_samples_follow_the_density() -> None:
    m = mixture(6)
    many = Mixture(*(t.expand(20_000, *t.shape[1:]) for t in (m.logits, m.mean, m.scale, m.factor)))
    x = many.sample(rng(7))
    levels = many.cdf(x)  # uniform if the samples follow the marginals
    for level in (0.1, 0.5, 0.9):
        assert (levels < level).double().mean(0).numpy() == pytest.approx(level, abs=0.015)
    mean = (m.weights[..., None] * m.mean).sum(1)[0]
    assert x.mean(0).numpy() == pytest.approx(mean.numpy(), abs=0.05)
    each = torch.diag_embed(m.scale.square()) + m.factor @ m.factor.mT + m.mean[..., None] * m.mean[..., None, :]
    covariance = (m.weights[..., None, None] * each).sum(1)[0] - torch.outer(mean, mean)
    torch.testing.assert_close(torch.cov(x.T), covariance, rtol=0.1, atol=0.1)


def test_quantile_undoes_cdf() -> None:
    m = mixture(8, b=5, n=3)
    for level in (0.05, 0.5, 0.95):
        got = m.cdf(m.quantile(level))
        torch.testing.assert_close(got, torch.full_like(got, level))


def test_pooled_density_is_the_mean_density() -> None:
    a, b = mixture(9, b=2), mixture(10, b=2, k=4)
    x = torch.randn(2, 2, generator=rng(11), dtype=torch.float64)
    mask = all_on(a, x)
    mean = (a.log_prob(x, mask).exp() + b.log_prob(x, mask).exp()) / 2
    torch.testing.assert_close(Mixture.pooled([a, b]).log_prob(x, mask).exp(), mean)


def test_logit_and_unit_are_inverse_and_bounded_at_the_stops() -> None:
    u = torch.linspace(0, 1, 101, dtype=torch.float64)
    assert to_logit(u).abs().max() < 6
    torch.testing.assert_close(to_unit(to_logit(u)), u)
    assert to_unit(torch.tensor([-40.0, 40.0])).tolist() == [0.0, 1.0]


def test_gumbel_samples_are_one_hot_with_the_right_frequencies_and_a_gradient() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0], requires_grad=True)
    one_hot = gumbel_one_hot(logits.expand(20_000, 3), 0.5, rng(12))
    assert set(one_hot.detach().round(decimals=5).unique().tolist()) == {0.0, 1.0}
    assert one_hot.mean(0).tolist() == pytest.approx(logits.softmax(-1).tolist(), abs=0.015)
    one_hot[:, 0].sum().backward()
    assert logits.grad is not None and logits.grad[0] > 0 > logits.grad[1]
