from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from unmixer_core.model.mixture import (
    BETWEEN,
    HIGH,
    LOW,
    STOP_LOGIT,
    Mixture,
    gumbel_one_hot,
    place_of,
    to_logit,
    to_unit,
)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixture(seed: int, b: int = 1, k: int = 3, n: int = 2, r: int = 2) -> Mixture:
    g = rng(seed)
    draw = lambda *shape: torch.randn(shape, generator=g, dtype=torch.float64)  # noqa: E731
    return Mixture(draw(b, k), draw(b, k, n), 0.3 + draw(b, k, n).abs(), 0.5 * draw(b, k, n, r))


def with_stops(seed: int, **sizes: int) -> Mixture:
    """The same with atoms of some 10 % to 50 %."""
    m = mixture(seed, **sizes)
    logits = torch.randn((*m.mean.shape, 3), generator=rng(seed + 50), dtype=torch.float64)
    return replace(m, stops=0.5 * logits)


def expanded(m: Mixture, n: int) -> Mixture:
    """One clip's mixture for n rows."""
    parts = (m.logits, m.mean, m.scale, m.factor, m.stops)
    return Mixture(*(t if t is None else t.expand(n, *t.shape[1:]) for t in parts))


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
    each = (
        torch.diag_embed(m.scale.square())
        + m.factor @ m.factor.mT
        + m.mean[..., None] * m.mean[..., None, :]
    )
    covariance = (m.weights[..., None, None] * each).sum(1)[0] - torch.outer(mean, mean)
    torch.testing.assert_close(torch.cov(x.T), covariance, rtol=0.1, atol=0.1)


def quantile(m: Mixture, level: float) -> Tensor:
    """Marginal quantiles [b, n], by bisection of `cdf`."""
    spread = 8 * m.marginal_scale()
    low = (m.mean - spread).amin(1)
    high = (m.mean + spread).amax(1)
    if m.stops is not None:
        low = low.clamp_max(-STOP_LOGIT)
        high = high.clamp_min(STOP_LOGIT)
    for _ in range(40):
        middle = (low + high) / 2
        below = m.cdf(middle) < level
        low = torch.where(below, middle, low)
        high = torch.where(below, high, middle)
    return (low + high) / 2


def test_quantile_undoes_cdf() -> None:
    m = mixture(8, b=5, n=3)
    for level in (0.05, 0.5, 0.95):
        got = m.cdf(quantile(m, level))
        torch.testing.assert_close(got, torch.full_like(got, level))


def test_pooled_density_is_the_mean_density() -> None:
    a, b = mixture(9, b=2), mixture(10, b=2, k=4)
    x = torch.randn(2, 2, generator=rng(11), dtype=torch.float64)
    mask = all_on(a, x)
    mean = (a.log_prob(x, mask).exp() + b.log_prob(x, mask).exp()) / 2
    torch.testing.assert_close(Mixture.pooled([a, b]).log_prob(x, mask).exp(), mean)


def test_atoms_and_density_together_sum_to_one() -> None:
    m = with_stops(13)
    axis, total = torch.linspace(-14, 14, 281, dtype=torch.float64), 0.0
    for first in (BETWEEN, LOW, HIGH):
        for second in (BETWEEN, LOW, HIGH):
            x = torch.cartesian_prod(
                *(axis if p == BETWEEN else torch.zeros(1).double() for p in (first, second))
            )
            place = torch.tensor([first, second]).expand(len(x), 2)
            volume = 0.1 ** [first, second].count(BETWEEN)
            total += (
                expanded(m, len(x)).log_prob_at(x, all_on(m, x), place).exp().sum().item() * volume
            )
    assert total == pytest.approx(1.0, abs=1e-3)


def test_values_at_a_stop_count_as_the_atoms_and_the_rest_by_their_density() -> None:
    m, mask = with_stops(14, b=1, k=1, n=3), torch.ones(1, 3, dtype=torch.bool)
    x = to_logit(torch.tensor([[0.0, 0.4, 1.0]], dtype=torch.float64))
    assert place_of(x).tolist() == [[LOW, BETWEEN, HIGH]]
    share = m.stops.log_softmax(-1)[0, 0]
    alone = replace(m, stops=None).log_prob(x, torch.tensor([[False, True, False]]))
    expected = share[0, LOW] + share[1, BETWEEN] + share[2, HIGH] + alone
    torch.testing.assert_close(m.log_prob(x, mask), expected)
    silent = m.log_prob(x, torch.zeros_like(mask))
    torch.testing.assert_close(silent, torch.zeros_like(silent))


def test_samples_with_atoms_follow_their_distribution_function() -> None:
    m = expanded(with_stops(15), 20_000)
    x = m.sample(rng(16))
    at_low, at_high = (place_of(x) == stop for stop in (LOW, HIGH))
    low, high = (
        m.cdf(to_logit(torch.full_like(x, edge)), within=within)[0]
        for edge, within in ((0.0, 1.0), (1.0, 0.0))
    )
    assert at_low.double().mean(0).numpy() == pytest.approx(low.numpy(), abs=0.015)
    assert at_high.double().mean(0).numpy() == pytest.approx((1 - high).numpy(), abs=0.015)
    place = m.cdf(x, within=torch.rand(x.shape, generator=rng(17), dtype=x.dtype))
    for level in (0.1, 0.3, 0.5, 0.7, 0.9):
        assert (place < level).double().mean(0).numpy() == pytest.approx(level, abs=0.015)


def test_quantiles_with_atoms_are_stops_within_their_share_and_else_undo_cdf() -> None:
    m = with_stops(18, b=5, n=3)
    share_low = m.cdf(torch.full((5, 3), -9.0).double())
    assert (place_of(quantile(m, 0.5 * float(share_low.min()))) == LOW).all()
    inside = 0.5
    x = quantile(m, inside)
    between = place_of(x) == BETWEEN
    assert between.any()
    torch.testing.assert_close(m.cdf(x)[between], torch.full_like(x, inside)[between])


def test_sampling_atoms_has_a_gradient_for_every_part() -> None:
    m = expanded(with_stops(19), 500)
    parts = [t.clone().requires_grad_() for t in (m.logits, m.mean, m.scale, m.factor, m.stops)]
    Mixture(*parts).sample(rng(20)).square().sum().backward()
    assert all(torch.isfinite(t.grad).all() and t.grad.abs().sum() > 0 for t in parts)


def test_a_sample_at_a_stop_still_pulls_at_its_atom() -> None:
    stops = torch.tensor([0.0, -9.0, 9.0]).expand(1, 1, 1, 3).clone().requires_grad_()
    m = Mixture(
        torch.zeros(1, 1), torch.zeros(1, 1, 1), torch.ones(1, 1, 1), torch.zeros(1, 1, 1, 1), stops
    )
    unit = to_unit(m.sample(rng(2), temperature=3.0))
    unit.sum().backward()
    assert unit.item() == pytest.approx(1.0, abs=1e-3) and stops.grad[..., HIGH].item() > 0


def test_a_component_answers_with_the_stop_where_that_is_likelier() -> None:
    m = with_stops(21, b=1, k=2, n=3)
    stops = torch.zeros(1, 2, 3, 3, dtype=torch.float64)
    stops[0, 1, 0, LOW] = stops[0, 1, 2, HIGH] = 3.0
    m = replace(m, stops=stops)
    assert torch.equal(m.component(torch.tensor([0])), m.mean[:, 0])
    found = to_unit(m.component(torch.tensor([1])))[0]
    assert found[0] == 0.0 and found[2] == 1.0 and found[1] == to_unit(m.mean[0, 1, 1])


def test_atoms_are_learned_where_knobs_sit_at_stops_independently_of_each_other() -> None:
    """Four knobs, of which three are at their high stop in 30 % each.

    8 patterns, more than two components can hold.
    """
    n, g = 800, rng(22)
    u = torch.rand(n, 4, generator=g, dtype=torch.float64).clamp(0.01, 0.99)
    u[:, :3][torch.rand(n, 3, generator=g) < 0.3] = 1.0
    x, mask, error = to_logit(u), torch.ones(n, 4, dtype=torch.bool), {}
    for atoms in (True, False):
        start = mixture(23, k=2, n=4)
        parts = [start.logits, start.mean, start.scale.log(), start.factor] + [
            torch.zeros(1, 2, 4, 3).double()
        ] * atoms
        parts = [p.clone().requires_grad_() for p in parts]
        optimiser = torch.optim.Adam(parts, lr=0.05)
        for _ in range(100):
            made = Mixture(parts[0], parts[1], parts[2].exp().clamp_min(0.05), parts[3], *parts[4:])
            optimiser.zero_grad()
            (-expanded(made, n).log_prob(x, mask).mean()).backward()
            optimiser.step()
        drawn = place_of(expanded(made, n).sample(rng(24)))
        error[atoms] = (
            ((drawn == HIGH).double().mean(0) - (u == 1.0).double().mean(0)).abs().max().item()
        )
    assert error[True] < 0.04 and error[False] > 2 * error[True]


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
