"""Mixtures of correlated Gaussians in the logit of each knob: the distribution every MDN head predicts for one device.

x = logit(u) with u in (0, 1) the knob's unit value, so bounds hold by construction and a reparameterised sample is one
line. One component index is shared by all knobs of a device, and each component's covariance is diagonal + low rank,
diag(scale^2) + factor factor^T, so that it can lie along a ridge (Bishop, "Mixture Density Networks", 1994).
Shapes: b clips, k components, n knobs, r rank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from unmixer_core.noise import draw

EDGE = 0.005
"""Room beyond each stop of a knob, so that a value at its stop has a finite logit (+-5.3)."""
_LOG_2PI = math.log(2 * math.pi)


def to_logit(unit: Tensor) -> Tensor:
    """unit [0, 1] -> logit, finite at both stops."""
    return torch.logit(EDGE + (1 - 2 * EDGE) * unit)


def to_unit(logit: Tensor) -> Tensor:
    """Inverse of to_logit; any logit gives a unit value in [0, 1]."""
    return ((torch.sigmoid(logit) - EDGE) / (1 - 2 * EDGE)).clamp(0.0, 1.0)


@dataclass(frozen=True)
class Mixture:
    """logits [b, k], mean [b, k, n], scale [b, k, n] > 0, factor [b, k, n, r]; all in logit space."""

    logits: Tensor
    mean: Tensor
    scale: Tensor
    factor: Tensor

    @property
    def weights(self) -> Tensor:
        """Component probabilities [b, k]."""
        return self.logits.softmax(-1)

    def log_prob(self, x: Tensor, mask: Tensor) -> Tensor:
        """Log density [b] in logit space of the knobs in `mask`, the others integrated out. x, mask: [b, n]."""
        on = mask[:, None].to(x.dtype)
        residual = (x[:, None] - self.mean) / self.scale * on
        factor = self.factor / self.scale[..., None] * on[..., None]
        inner = torch.eye(factor.shape[-1], dtype=x.dtype, device=x.device) + factor.mT @ factor
        projected = (factor.mT @ residual[..., None])[..., 0]
        lower = torch.linalg.cholesky(inner)
        whitened = torch.linalg.solve_triangular(lower, projected[..., None], upper=False)[..., 0]
        distance = residual.square().sum(-1) - whitened.square().sum(-1)
        volume = 2 * (self.scale.log() * on).sum(-1) + 2 * lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        each = -0.5 * (distance + volume + _LOG_2PI * on.sum(-1))
        return torch.logsumexp(self.logits.log_softmax(-1) + each, dim=-1)

    def sample(self, generator: torch.Generator | None, *, temperature: float = 1.0) -> Tensor:
        """Reparameterised sample [b, n] in logit space: gradients reach means, scales and factors as they are and the
        component weights by the straight-through Gumbel-Softmax (Jang, Gu, Poole, ICLR 2017)."""
        component = gumbel_one_hot(self.logits, temperature, generator)
        noise = _normal(self.mean.shape, self.mean, generator)
        ridge = _normal((*self.logits.shape, self.factor.shape[-1]), self.mean, generator)
        each = self.mean + self.scale * noise + (self.factor @ ridge[..., None])[..., 0]
        return (component[..., None] * each).sum(1)

    def component(self, index: Tensor) -> Tensor:
        """Mean [b, n] of component index [b]."""
        return self.mean.gather(1, index[:, None, None].expand(-1, 1, self.mean.shape[-1]))[:, 0]

    def cdf(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """Marginal distribution functions at x [b, n] -> [b, n] in [0, 1]; `weights` [b, k, n] replace the components'."""
        z = (x[:, None] - self.mean) / self.marginal_scale()
        return ((self.weights[..., None] if weights is None else weights) * torch.special.ndtr(z)).sum(1)

    def marginal_scale(self) -> Tensor:
        """Standard deviation of each knob in each component [b, k, n]."""
        return (self.scale.square() + self.factor.square().sum(-1)).sqrt()

    def quantile(self, level: float, *, steps: int = 40) -> Tensor:
        """Marginal quantiles [b, n], by bisection."""
        spread = 8 * self.marginal_scale()
        low, high = (self.mean - spread).amin(1), (self.mean + spread).amax(1)
        for _ in range(steps):
            middle = (low + high) / 2
            below = self.cdf(middle) < level
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def cpu(self) -> Mixture:
        return Mixture(self.logits.cpu(), self.mean.cpu(), self.scale.cpu(), self.factor.cpu())

    @staticmethod
    def pooled(mixtures: list[Mixture]) -> Mixture:
        """The equal-weight mixture of several mixtures over the same clips and knobs."""
        return Mixture(
            torch.cat([m.logits.log_softmax(-1) for m in mixtures], 1),
            torch.cat([m.mean for m in mixtures], 1),
            torch.cat([m.scale for m in mixtures], 1),
            torch.cat([m.factor for m in mixtures], 1),
        )


def gumbel_one_hot(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    """A one-hot sample of softmax(logits) [..., n] whose gradient is that of the tempered Gumbel-Softmax."""
    uniform = draw(torch.rand, logits.shape, generator=generator, dtype=logits.dtype, device=logits.device)
    noise = -torch.log(-torch.log(uniform.clamp(1e-9, 1 - 1e-7)))
    soft = F.softmax((logits + noise) / temperature, dim=-1)
    hard = F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype)
    return hard + soft - soft.detach()


def _normal(shape: tuple[int, ...] | torch.Size, like: Tensor, generator: torch.Generator | None) -> Tensor:
    return draw(torch.randn, shape, generator=generator, dtype=like.dtype, device=like.device)
