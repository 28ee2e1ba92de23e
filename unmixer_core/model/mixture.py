"""Mixtures of correlated Gaussians in the logit of each knob.

The distribution every MDN head predicts for one device.

x = logit(u) with u in (0, 1) the knob's unit value, so bounds hold by construction and a
reparameterised sample is one line. One component index is shared by all knobs of a device, and each
component's covariance is diagonal + low rank, diag(scale^2) + factor factor^T, so that it can lie
along a ridge (Bishop, "Mixture Density Networks", 1994).

A knob turned all the way has a value of positive probability, which no density can give it. So each
component may give each knob an atom at either stop: the knob is at its low stop, at its high stop,
or between them, where the Gaussian holds. A patch's likelihood is then that of its atoms times the
density of the rest, the knobs at their stops integrated out of the Gaussian. Over {low} + {high} +
the real line it sums to one. Shapes: b clips, k components, n knobs, r rank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from unmixer_core.model.noise import draw

#: Room beyond each stop of a knob, so that a value at its stop has a finite logit (+-5.3).
EDGE = 0.005
#: A unit value within this of a stop is at it.
AT_STOP = 1e-3
BETWEEN, LOW, HIGH = range(3)
_LOG_2PI = math.log(2 * math.pi)


def to_logit(unit: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """unit [0, 1] -> logit, finite at both stops."""
    return torch.logit(EDGE + (1 - 2 * EDGE) * unit)


def to_unit(logit: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Inverse of to_logit; any logit gives a unit value in [0, 1]."""
    return ((torch.sigmoid(logit) - EDGE) / (1 - 2 * EDGE)).clamp(0.0, 1.0)


#: What a sample at its high stop has (the low one's is its negative): a hair within, where
#: `to_unit` has a gradient.
STOP_LOGIT = float(to_logit(torch.tensor(1 - AT_STOP / 10, dtype=torch.float64)))
_NEAR_STOP = float(to_logit(torch.tensor(1 - AT_STOP, dtype=torch.float64)))
#: A logit that `to_unit` takes to the stop itself.
_BEYOND = 8.0


def place_of(x: Float[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Where logits lie: BETWEEN, LOW or HIGH, of the shape of x."""
    return torch.where(x >= _NEAR_STOP, HIGH, torch.where(x <= -_NEAR_STOP, LOW, BETWEEN))


@dataclass(frozen=True)
class Mixture:
    """logits [b, k], mean [b, k, n], scale [b, k, n] > 0, factor [b, k, n, r]; all in logit space.

    stops [b, k, n, 3]: logits of BETWEEN, LOW and HIGH, or None where no knob has an atom.
    """

    logits: Float[Tensor, "batch components"]
    mean: Float[Tensor, "batch components knobs"]
    scale: Float[Tensor, "batch components knobs"]
    factor: Float[Tensor, "batch components knobs rank"]
    stops: Float[Tensor, "batch components knobs 3"] | None = None

    @property
    def weights(self) -> Float[Tensor, "batch components"]:
        """Component probabilities [b, k]."""
        return self.logits.softmax(-1)

    def log_prob(
        self, x: Float[Tensor, "batch knobs"], mask: Bool[Tensor, "batch knobs"]
    ) -> Float[Tensor, "batch"]:
        """Log density [b] in logit space of the knobs in `mask`, the others integrated out.

        With atoms, the log probability of those that lie at a stop and the density of the others.
        x, mask: [b, n].
        """
        if self.stops is None:
            return self._sum(self._density(x, mask))
        return self.log_prob_at(x, mask, place_of(x))

    def log_prob_at(
        self,
        x: Float[Tensor, "batch knobs"],
        mask: Bool[Tensor, "batch knobs"],
        place: Int[Tensor, "batch knobs"],
    ) -> Float[Tensor, "batch"]:
        """The same where it is known which knobs lie at a stop.

        Place [b, n], x of those that do is not read.
        """
        assert self.stops is not None
        index = place[:, None, :, None].expand(-1, self.mean.shape[1], -1, 1)
        atoms = self.stops.log_softmax(-1).gather(-1, index)[..., 0] * mask[:, None]
        return self._sum(atoms.sum(-1) + self._density(x, mask & (place == BETWEEN)))

    def _sum(self, each: Float[Tensor, "batch components"]) -> Float[Tensor, "batch"]:
        """Log-likelihoods of the components [b, k] -> of the mixture [b]."""
        return torch.logsumexp(self.logits.log_softmax(-1) + each, dim=-1)

    def _density(
        self, x: Float[Tensor, "batch knobs"], mask: Bool[Tensor, "batch knobs"]
    ) -> Float[Tensor, "batch components"]:
        """Each component's log density [b, k] of the knobs in `mask`."""
        on = mask[:, None].to(x.dtype)
        residual = (x[:, None] - self.mean) / self.scale * on
        factor = self.factor / self.scale[..., None] * on[..., None]
        inner = torch.eye(factor.shape[-1], dtype=x.dtype, device=x.device) + factor.mT @ factor
        projected = (factor.mT @ residual[..., None])[..., 0]
        lower = torch.linalg.cholesky(inner)
        whitened = torch.linalg.solve_triangular(lower, projected[..., None], upper=False)[..., 0]
        distance = residual.square().sum(-1) - whitened.square().sum(-1)
        volume = 2 * (self.scale.log() * on).sum(-1) + 2 * lower.diagonal(
            dim1=-2, dim2=-1
        ).log().sum(-1)
        return -0.5 * (distance + volume + _LOG_2PI * on.sum(-1))

    def sample(
        self, generator: torch.Generator | None, *, temperature: float = 1.0
    ) -> Float[Tensor, "batch knobs"]:
        """Reparameterised sample [b, n] in logit space.

        Gradients reach means, scales and factors as they are, the component weights and the atoms
        by the straight-through Gumbel-Softmax (Jang, Gu, Poole, ICLR 2017).
        """
        component = gumbel_one_hot(self.logits, temperature, generator)
        noise = _normal(self.mean.shape, self.mean, generator)
        ridge = _normal((*self.logits.shape, self.factor.shape[-1]), self.mean, generator)
        each = self.mean + self.scale * noise + (self.factor @ ridge[..., None])[..., 0]
        x = (component[..., None] * each).sum(1)
        if self.stops is None:
            return x
        place = gumbel_one_hot(
            (component[..., None, None] * self.stops).sum(1), temperature, generator
        )
        return place[..., BETWEEN] * x + (place[..., HIGH] - place[..., LOW]) * STOP_LOGIT

    def component(self, index: Int[Tensor, "batch"]) -> Float[Tensor, "batch knobs"]:
        """The likeliest value [b, n] of component index [b].

        Its mean, or a stop where that is likelier than the rest.
        """
        mean = self.mean.gather(1, index[:, None, None].expand(-1, 1, self.mean.shape[-1]))[:, 0]
        if self.stops is None:
            return mean
        place = self.stops.gather(
            1, index[:, None, None, None].expand(-1, 1, *self.stops.shape[2:])
        )[:, 0].argmax(-1)
        return torch.where(
            place == BETWEEN, mean, torch.where(place == HIGH, _BEYOND, -_BEYOND).to(mean)
        )

    def cdf(
        self,
        x: Float[Tensor, "batch knobs"],
        weights: Float[Tensor, "batch components knobs"] | None = None,
        within: Float[Tensor, "#batch #knobs"] | float = 1.0,
    ) -> Float[Tensor, "batch knobs"]:
        """Marginal distribution functions of the knobs at x [b, n] -> [b, n] in [0, 1].

        Logits end at the stops if there are atoms. `weights` [b, k, n] replace the components'; at
        a stop, `within` of its mass counts.
        """
        weights = self.weights[..., None] if weights is None else weights
        below = torch.special.ndtr((x[:, None] - self.mean) / self.marginal_scale())
        if self.stops is None:
            return (weights * below).sum(1)
        between, low, _ = self.stops.softmax(-1).unbind(-1)
        inside = (weights * (low + between * below)).sum(1)
        bottom, top = (
            (weights * (low + between * self._share_below(edge))).sum(1)
            for edge in (-_NEAR_STOP, _NEAR_STOP)
        )
        place = place_of(x)
        at_top = top + within * (1 - top)
        return torch.where(
            place == LOW, within * bottom, torch.where(place == HIGH, at_top, inside)
        )

    def _share_below(self, edge: float) -> Float[Tensor, "batch components knobs"]:
        """How much of each Gaussian [b, k, n] lies below a logit."""
        return torch.special.ndtr((edge - self.mean) / self.marginal_scale())

    def marginal_scale(self) -> Float[Tensor, "batch components knobs"]:
        """Standard deviation of each knob in each component [b, k, n]."""
        return (self.scale.square() + self.factor.square().sum(-1)).sqrt()

    def cpu(self) -> Mixture:
        """The same on the CPU."""
        stops = None if self.stops is None else self.stops.cpu()
        return Mixture(
            self.logits.cpu(), self.mean.cpu(), self.scale.cpu(), self.factor.cpu(), stops
        )

    @staticmethod
    def pooled(mixtures: list[Mixture]) -> Mixture:
        """The equal-weight mixture of several mixtures over the same clips and knobs, all with
        atoms or none.
        """
        stops = [m.stops for m in mixtures if m.stops is not None]
        return Mixture(
            torch.cat([m.logits.log_softmax(-1) for m in mixtures], 1),
            torch.cat([m.mean for m in mixtures], 1),
            torch.cat([m.scale for m in mixtures], 1),
            torch.cat([m.factor for m in mixtures], 1),
            torch.cat(stops, 1) if stops else None,
        )


def gumbel_one_hot(
    logits: Float[Tensor, "*batch classes"],
    temperature: float,
    generator: torch.Generator | None,
) -> Float[Tensor, "*batch classes"]:
    """A one-hot sample of softmax(logits) [..., n] whose gradient is that of the tempered
    Gumbel-Softmax.
    """
    uniform = draw(
        torch.rand, logits.shape, generator=generator, dtype=logits.dtype, device=logits.device
    )
    noise = -torch.log(-torch.log(uniform.clamp(1e-9, 1 - 1e-7)))
    soft = F.softmax((logits + noise) / temperature, dim=-1)
    hard = F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype)
    return hard + soft - soft.detach()


def _normal(
    shape: tuple[int, ...] | torch.Size,
    like: Float[Tensor, "..."],
    generator: torch.Generator | None,
) -> Float[Tensor, "..."]:
    return draw(torch.randn, shape, generator=generator, dtype=like.dtype, device=like.device)
