"""The hybrid loss of the inverse model (specification 2.2, methods.md section 3).

    L = lambda_p NLL(knobs) + lambda_c CE(choices) + lambda_o NLL(chain)
        + lambda_e BCE(presence) + lambda_s L_spectral

The parametric terms are teacher-forced: knobs are scored given the true classes and chain. The
spectral term renders a sample of the predicted distribution through the proxy, so its gradient
reaches the encoder through the reparameterised knobs and, where switched on, through the
straight-through choices and chain slots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from unmixer_core import config
from unmixer_core.model.heads import Context
from unmixer_core.model.mixture import Mixture, to_logit
from unmixer_core.model.targets import AMOUNTS, Targets, slots_of
from unmixer_core.model.unmixer import Belief, Draw, Unmixer, context_of
from unmixer_core.proxy.twin import Proxy


@dataclass(frozen=True)
class Terms:
    """Batch means, before their lambdas.

    Knobs in nats per active knob, choices in nats per audible choice, chain in nats per clip,
    present in nats per question (effect presence and use of each modulation amount).
    """

    knobs: Float[Tensor, ""]
    choices: Float[Tensor, ""]
    chain: Float[Tensor, ""]
    present: Float[Tensor, ""]

    def total(self, settings: config.Loss) -> Float[Tensor, ""]:
        """The sum of the terms, each times its lambda."""
        s = settings
        return (
            s.lambda_p * self.knobs
            + s.lambda_c * self.choices
            + s.lambda_o * self.chain
            + s.lambda_e * self.present
        )

    def floats(self) -> dict[str, float]:
        """The terms as numbers, by name."""
        return {
            name: float(getattr(self, name).detach())
            for name in ("knobs", "choices", "chain", "present")
        }


def parametric(model: Unmixer, belief: Belief, targets: Targets, settings: config.Loss) -> Terms:
    """All terms that compare with the true patch."""
    return Terms(
        knob_nll(model, belief, context_of(targets), targets, settings.nll_cap),
        choice_cross_entropy(belief.classes.choices, targets, settings.label_smoothing),
        chain_nll(
            model.chain_log_probs(belief, targets.chain), targets.chain, settings.label_smoothing
        ),
        presence_cross_entropy(belief, targets),
    )


def knob_nll(
    model: Unmixer, belief: Belief, context: Context, targets: Targets, cap: float
) -> Float[Tensor, ""]:
    """Mean over clips of the negative log density (in logit space) per scored knob."""
    goal, mask = to_logit(targets.knobs), scored_knobs(targets)
    total, count = goal.new_zeros(len(goal)), mask.sum(-1).clamp_min(1)
    for columns, mixture in zip(model.knobs.columns, model.mixtures(belief, context), strict=True):
        total = total + device_nll(mixture, goal[:, columns], mask[:, columns], cap)
    return (total / count).mean()


def device_nll(
    mixture: Mixture,
    goal: Float[Tensor, "batch knobs"],
    mask: Bool[Tensor, "batch knobs"],
    cap: float,
) -> Float[Tensor, "batch"]:
    """Negative log density [b] of one device's masked knobs, soft-capped at `cap` nats per knob."""
    count = mask.sum(-1)
    per_knob = -mixture.log_prob(goal, mask) / count.clamp_min(1)
    return soft_cap(per_knob, cap) * count


def soft_cap(value: Float[Tensor, "*shape"], cap: float) -> Float[Tensor, "*shape"]:
    """The identity up to `cap`, then logarithmic: an outlier still pulls, but ever more weakly."""
    return torch.where(value > cap, cap + torch.log1p((value - cap).clamp_min(0.0)), value)


def scored_knobs(targets: Targets) -> Bool[Tensor, "batch knobs"]:
    """Knobs with a density to score [b, K]: audible, and not a modulation amount at its atom."""
    mask = targets.knob_mask.clone()
    mask[:, list(AMOUNTS)] &= targets.moving
    return mask


def choice_cross_entropy(
    logits: list[Float[Tensor, "batch _items"]], targets: Targets, smoothing: float
) -> Float[Tensor, ""]:
    """Mean over clips of the cross-entropy per audible choice, each weighted by the logarithm of
    its number of items (what there is to learn: 2.8 nats of a wavetable, 0.7 of a switch).
    """
    each = [
        F.cross_entropy(score, targets.choices[:, i], reduction="none", label_smoothing=smoothing)
        for i, score in enumerate(logits)
    ]
    weight = targets.choice_mask * torch.tensor([math.log(score.shape[1]) for score in logits]).to(
        each[0]
    )
    return ((torch.stack(each, dim=-1) * weight).sum(-1) / weight.sum(-1).clamp_min(1e-6)).mean()


def chain_nll(
    log_probs: Float[Tensor, "batch slots codes"],
    chain: Int[Tensor, "batch slots"],
    smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean over clips of -log p(chain).

    log_probs [b, 8, 9] teacher-forced, chain [b, 8] (-1 = none); what follows the first END does
    not count. Smoothing spreads over the classes that are still free.
    """
    slots = slots_of(chain).to(log_probs)
    live = torch.cat([torch.ones_like(chain[:, :1], dtype=torch.bool), chain[:, :-1] >= 0], dim=1)
    right = (log_probs * slots).sum(-1)
    free = log_probs > -1e3
    spread = log_probs.masked_fill(~free, 0.0).sum(-1) / free.sum(-1)
    return -(((1 - smoothing) * right + smoothing * spread) * live).sum(-1).mean()


def presence_cross_entropy(belief: Belief, targets: Targets) -> Float[Tensor, ""]:
    """Mean binary cross-entropy of effect presence and, where audible, of each modulation
    amount's use.
    """
    present = F.binary_cross_entropy_with_logits(belief.classes.present, targets.present)
    audible = targets.knob_mask[:, list(AMOUNTS)].float()
    moving = F.binary_cross_entropy_with_logits(
        belief.classes.moving, targets.moving.float(), weight=audible
    )
    return present + 0.5 * moving


# --- through the proxy ------------------------------------------------------------------------


def level_matched(
    audio: Float[Tensor, "batch channels time"],
) -> Float[Tensor, "batch channels time"]:
    """Audio [b, channel, time] at unit root mean square.

    Level is stored apart and not the model's to predict.
    """
    return audio / audio.square().mean((-2, -1), keepdim=True).add(1e-10).sqrt()


def rendered(
    proxy: Proxy, draw: Draw, note: Float[Tensor, "batch"], gate_s: Float[Tensor, "batch"]
) -> Float[Tensor, "batch 2 time"]:
    """A sample's sound [b, 2, time]; the discrete parts go in as weights."""
    return proxy(draw.knobs, draw.context.choices, draw.context.slots, note, gate_s)


def parted(draw: Draw) -> Draw:
    """The same sample cut off from the model, each part that carried a gradient a leaf.

    What `carried` differentiates at.

    Knobs are conditioned on choices and slots, so a derivative taken at the parts of `draw` itself
    would hold the way through the knobs twice.
    """

    def leaf(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return x.detach().requires_grad_(x.requires_grad)

    context = draw.context
    choices = [leaf(choice) for choice in context.choices]
    return replace(
        draw,
        knobs=leaf(draw.knobs),
        context=replace(context, choices=choices, slots=leaf(context.slots)),
    )


def carried(
    distance: Float[Tensor, "batch"], at: Draw, draw: Draw, limit: float | None
) -> tuple[Float[Tensor, ""], int]:
    """A stand-in for mean(distance) whose gradient at the sample is that of each clip's distance
    [b], clipped.

    The gradient through a synthesizer reaches 1e20 for some clips, which would leave nothing of the
    other clips' or the other terms' after clipping the sum. So each clip's is shortened to `limit`
    on its own, where it enters the model's outputs (None: as it is); one that is not finite is
    dropped. Returns the stand-in and the number dropped.

    Args:
        distance: of the sample `at` [b], which is `parted(draw)`.
    """
    pairs = [
        (leaf, x) for leaf, x in zip(_parts(at), _parts(draw), strict=True) if leaf.requires_grad
    ]
    leaves, parts = [leaf for leaf, _ in pairs], [x for _, x in pairs]
    found = torch.autograd.grad(distance.sum(), leaves, allow_unused=True)
    gradients = [torch.zeros_like(x) if g is None else g for x, g in zip(parts, found, strict=True)]
    if limit is None:
        return _inner(gradients, parts).mean(), 0
    flat = torch.cat([g.flatten(1) for g in gradients], dim=1).double()
    finite = torch.isfinite(flat).all(1)
    norm = torch.where(finite[:, None], flat, 0.0).norm(dim=1)
    scale = (limit / norm.clamp_min(1e-30)).clamp_max(1.0)
    kept = [torch.where(_like(finite, g), g * _like(scale, g).to(g), 0.0) for g in gradients]
    return _inner(kept, parts).mean(), int((~finite).sum())


def _parts(draw: Draw) -> list[Float[Tensor, "batch ..."]]:
    """What the proxy is given of a sample."""
    return [draw.knobs, draw.context.slots, *draw.context.choices]


def _inner(
    gradients: list[Float[Tensor, "batch ..."]], parts: list[Float[Tensor, "batch ..."]]
) -> Float[Tensor, "batch"]:
    return torch.stack(
        [(g.detach() * x).flatten(1).sum(1) for g, x in zip(gradients, parts, strict=True)]
    ).sum(0)


def _like(
    per_clip: Shaped[Tensor, "batch"], x: Float[Tensor, "batch ..."]
) -> Shaped[Tensor, "batch ..."]:
    return per_clip.view(-1, *[1] * (x.dim() - 1))


def schedule(progress: float, start: float, ramp: float) -> float:
    """0 until `start`, then rising linearly to 1 over `ramp`; all are shares of a phase."""
    return min(1.0, max(0.0, (progress - start) / max(ramp, 1e-9)))


def temperature(progress: float, settings: config.Loss) -> float:
    """Gumbel-Softmax temperature, linear over a phase."""
    return settings.temperature_start + progress * (
        settings.temperature_end - settings.temperature_start
    )
