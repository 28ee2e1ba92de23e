"""Marginal distributions of single knobs: intervals, medians, probability integral transform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmixer_core.model.heads import Context
from unmixer_core.model.mixture import Mixture, to_logit, to_unit
from unmixer_core.model.targets import AMOUNTS, STILL, Targets
from unmixer_core.model.unmixer import Unmixer, context_of
from unmixer_core.schema.patch import Patch, Patches
from unmixer_core.schema.rack import RACK

#: Draws of which modulation amounts move, over which the distributions are averaged.
MOVING_DRAWS = 16
#: A modulation amount within this of zero, in logits, is at its atom.
STILL_LOGIT = float(to_logit(torch.tensor(0.5 + STILL)))


@dataclass(frozen=True)
class Intervals:
    """Central intervals of every knob in unit terms: low, high [levels, b, K], median [b, K]."""

    levels: tuple[float, ...]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    median: NDArray[np.float32]


@torch.no_grad()
def intervals(
    model: Unmixer,
    features: Tensor,
    note: Tensor,
    gate_s: Tensor,
    patches: Sequence[Patch],
    *,
    levels: tuple[float, ...] = (0.5, 0.9),
    seed: int = 0,
) -> Intervals:
    """Central intervals of the knobs given the classes and the chain of patches.

    features [b, 2, mels, frames], note [b] (MIDI), gate_s [b]. One patch a clip, or any number of
    patches where there is one clip.
    """
    marginals = _Marginals.of(model, features, note, gate_s, Targets.of_list(patches), seed)
    edges = {
        level: [marginals.quantile((1 - level) / 2), marginals.quantile((1 + level) / 2)]
        for level in levels
    }
    median = marginals.quantile(0.5)
    low, high = (
        np.array([edges[level][side] for level in levels]).reshape(-1, *median.shape)
        for side in (0, 1)
    )
    return Intervals(levels, low, high, median)


@torch.no_grad()
def pit(
    model: Unmixer,
    features: Tensor,
    note: Tensor,
    gate_s: Tensor,
    truth: Patches,
    *,
    given: Sequence[Patch] | None = None,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Probability integral transform [b, K] of the true knobs; nan for inaudible knobs.

    It is uniform in [0, 1] when the model is calibrated. A value at an atom gets a random place
    within the atom's probability. `given`: patches whose classes and chain the knobs are
    conditioned on (default: the truth's).
    """
    targets = Targets.of(truth)
    context = Targets.of_list(given) if given is not None else targets
    marginals = _Marginals.of(model, features, note, gate_s, context, seed)
    place = marginals.cdf(to_logit(targets.knobs), torch.Generator().manual_seed(seed + 1))
    audible = targets.knob_mask
    if given is not None:
        audible = audible & context.knob_mask
    return torch.where(audible, place, torch.nan).numpy().astype(np.float32)


@dataclass(frozen=True)
class _Marginals:
    """The knobs' marginal distributions.

    `mixtures`: one a device, in logits; `weights`: theirs [b, k, n]; `atom`: the probability [b, K]
    that a modulation amount is zero.
    """

    model: Unmixer
    mixtures: list[Mixture]
    weights: list[Tensor]
    atom: Tensor

    @classmethod
    def of(
        cls,
        model: Unmixer,
        features: Tensor,
        note: Tensor,
        gate_s: Tensor,
        given: Targets,
        seed: int,
    ) -> _Marginals:
        """Average over draws of which amounts move.

        The density of an amount is conditioned on its moving. With one clip, `given` may have any
        number of rows; the rows are independent.
        """
        model.eval()
        belief = model(features, note, gate_s)
        generator = torch.Generator().manual_seed(seed)
        probability = torch.sigmoid(belief.classes.moving).cpu()
        moving = [torch.bernoulli(probability, generator=generator) for _ in range(MOVING_DRAWS)]
        if len(features) == 1:
            n = len(given.knobs)
            belief = belief.repeat(n)
            probability = probability.expand(n, -1)
            moving = [m.expand(n, -1) for m in moving]
        contexts = [_on(replace(context_of(given), moving=m), belief.vector.device) for m in moving]
        drawn = [model.mixtures(belief, context) for context in contexts]
        mixtures = [Mixture.pooled(list(same)).cpu() for same in zip(*drawn, strict=True)]
        draw_weights = torch.ones(MOVING_DRAWS, len(probability), RACK.n_knobs)
        # an amount that moves in no draw still has a density
        draw_weights[:, :, list(AMOUNTS)] = torch.stack(moving).clamp_min(1e-6)
        weights = [
            _reweighted(m, draw_weights[..., c])
            for m, c in zip(mixtures, model.knobs.columns, strict=True)
        ]
        atom = torch.zeros(len(probability), RACK.n_knobs)
        atom[:, list(AMOUNTS)] = 1 - probability
        return cls(model, mixtures, weights, atom)

    def cdf(self, logit: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """P(knob <= logit) [b, K].

        With a generator, a random part of an atom's probability counts at the atom, else all of it.
        """
        within = torch.ones_like(logit)
        if generator is not None:
            within = torch.rand(logit.shape, generator=generator)
        parts = zip(self.mixtures, self.weights, self.model.knobs.columns, strict=True)
        smooth = self.model.knobs.scatter(
            [m.cdf(logit[:, c], w, within[:, c]) for m, w, c in parts]
        )
        share = (logit > -STILL_LOGIT).float()
        if generator is not None:
            share = torch.where(logit.abs() <= STILL_LOGIT, within, share)
        return self.atom * share + (1 - self.atom) * smooth

    def quantile(self, level: float, *, steps: int = 30) -> NDArray[np.float32]:
        """Unit values [b, K] below which the probability is `level`, by bisection."""
        # unit values of 0.0003 and 0.9997
        low = torch.full_like(self.atom, -8.0)
        high = -low
        for _ in range(steps):
            middle = (low + high) / 2
            below = self.cdf(middle) < level
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        unit = to_unit((low + high) / 2)
        # bisection ends at the edge of the atom's interval
        at_atom = ((unit - 0.5).abs() < STILL + 1e-4) & (self.atom > 0)
        return torch.where(at_atom, 0.5, unit).numpy().astype(np.float32)


def _reweighted(mixture: Mixture, draw_weights: Tensor) -> Tensor:
    """Weights [b, draws * k, n] of a pooled mixture times `draw_weights` [draws, b, n]."""
    n_components = mixture.weights.shape[1] // len(draw_weights)
    each = draw_weights.transpose(0, 1).repeat_interleave(n_components, dim=1)
    weights = mixture.weights[..., None] * each
    return weights / weights.sum(1, keepdim=True)


def _on(context: Context, device: torch.device) -> Context:
    return Context(
        [c.to(device) for c in context.choices], context.slots.to(device), context.moving.to(device)
    )
