"""From a clip's features, note and gate to patches: the best guess, other candidates, and how sure the model is of a knob.

Candidates are contexts (a chain from the beam, classes, which amounts move) crossed with components of the knobs'
mixtures. The first one is the point estimate: the chain that agrees best with the whole beam (minimum Bayes risk, Kumar,
Byrne, NAACL 2004), the likeliest classes, and the heaviest component's mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmixer_core.model.heads import Context
from unmixer_core.model.mixture import Mixture, to_logit, to_unit
from unmixer_core.model.targets import AMOUNTS, N_EFFECTS, STILL, Targets, one_hot_choices, slots_of
from unmixer_core.model.unmixer import Belief, Unmixer, context_of
from unmixer_core.schema.chain import LTI
from unmixer_core.schema.patch import Patch, Patches
from unmixer_core.schema.rack import RACK

BEAM = 24
FLIPPED_CHAINS = 4
"""How many of the beam's chains are combined with other classes."""
RANKED = 48
"""Contexts whose knobs are worked out."""
DRAWS = 3
"""Drawn contexts per candidate that is still wanted, since some repeat."""
MOVING_DRAWS = 16
STILL_LOGIT = float(to_logit(torch.tensor(0.5 + STILL)))
"""A modulation amount within this of zero, in logits, is at its atom."""


@dataclass(frozen=True)
class Proposal:
    """A candidate. `log_prob` is that of its audible discrete parts and of its mixture components; `source` says where it
    came from: "point", "ranked" (among the likeliest contexts) or "drawn" (from the posterior)."""

    patch: Patch
    log_prob: float
    source: str


@dataclass(frozen=True)
class Intervals:
    """Central intervals of every knob in unit terms: low, high [levels, b, K], median [b, K]."""

    levels: tuple[float, ...]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    median: NDArray[np.float32]


@dataclass(frozen=True)
class _Contexts:
    """m discrete answers for one clip: chain [m, 8], its log-probability [m], answers [m, C + A]: an item for each choice,
    0 (still) or 1 (moving) for each modulation amount."""

    chain: Tensor
    chain_log_prob: Tensor
    answers: Tensor

    @property
    def choices(self) -> Tensor:
        return self.answers[:, : RACK.n_choices]

    @property
    def moving(self) -> Tensor:
        return self.answers[:, RACK.n_choices :]

    def context(self, device: torch.device) -> Context:
        weights = [choice.to(device) for choice in one_hot_choices(self.choices)]
        return Context(weights, slots_of(self.chain).to(device), self.moving.float().to(device))


@torch.no_grad()
def propose(
    model: Unmixer, features: Tensor, note: Tensor, gate_s: Tensor, n_candidates: int, seed: int
) -> list[list[Proposal]]:
    """Up to n_candidates different patches a clip, the point estimate first, then ranked and drawn ones in halves.

    features [b, 2, mels, frames], note [b] (MIDI), gate_s [b] in seconds. Equal inputs and seed give equal proposals.
    """
    model.eval()
    belief = model(features, note, gate_s)
    chains, scores = (x.cpu() for x in model.chain.beam(belief.vector, belief.classes.present, BEAM))
    return [
        _propose(model, belief[i : i + 1], chains[i], scores[i], int(note[i]), float(gate_s[i]), n_candidates, seed)
        for i in range(len(features))
    ]


def _propose(
    model: Unmixer, belief: Belief, chains: Tensor, scores: Tensor, note: int, gate_s: float, n: int, seed: int
) -> list[Proposal]:
    generator = torch.Generator().manual_seed(seed)
    questions = _questions(belief)
    ranked = _proposals(model, belief, questions, _ranked(questions, chains, scores), "ranked", note, gate_s)
    contexts = _drawn(questions, chains, scores, DRAWS * n, generator)
    drawn = _proposals(model, belief, questions, contexts, "drawn", note, gate_s, generator)
    ranked = _unique([replace(ranked[0], source="point"), *ranked[1:]])
    first = 1 + n // 2
    return _unique([*ranked[:first], *drawn, *ranked[first:]])[:n]


def _unique(proposals: Sequence[Proposal]) -> list[Proposal]:
    """The first of each group of patches that sound the same."""
    return list({p.patch.digest: p for p in reversed(proposals)}.values())[::-1]


def _questions(belief: Belief) -> list[Tensor]:
    """Log-probabilities of each discrete question of one clip: [items] a choice, then [2] (still, moving) an amount."""
    choices = [logits[0].log_softmax(-1).cpu() for logits in belief.classes.choices]
    moving = torch.nn.functional.logsigmoid(torch.stack([-belief.classes.moving[0], belief.classes.moving[0]], dim=-1))
    return [*choices, *moving.cpu()]


def _ranked(questions: list[Tensor], chains: Tensor, scores: Tensor) -> _Contexts:
    """The point estimate, then the likeliest: each chain with all likeliest answers, the best chains also with one
    answer replaced by its second choice."""
    best = torch.stack([q.argmax() for q in questions])
    second = torch.stack([q.topk(2).indices[1] for q in questions])
    cost = [float(q[a] - q[b]) for q, a, b in zip(questions, best, second, strict=True)]
    answers = best.repeat(1 + len(questions), 1)
    answers[torch.arange(1, len(answers)), torch.arange(len(questions))] = second
    point = consensus(chains, scores)
    rows = [point, *(i for i in range(int(torch.isfinite(scores).sum())) if i != point)]
    pairs = [(row, a) for i, row in enumerate(rows) for a in range(len(answers) if i < FLIPPED_CHAINS else 1)]
    value = [float(scores[row]) - (cost[a - 1] if a else 0.0) for row, a in pairs]
    order = [0, *sorted(range(1, len(pairs)), key=lambda i: -value[i])][:RANKED]
    row, answer = torch.tensor(pairs)[order].unbind(-1)
    return _Contexts(chains[row], scores[row], answers[answer])


def _drawn(
    questions: list[Tensor], chains: Tensor, scores: Tensor, count: int, generator: torch.Generator
) -> _Contexts:
    """Contexts drawn from the predicted distribution (chains from the beam's share of it)."""
    row = torch.multinomial(scores.exp(), count, True, generator=generator)
    answers = [torch.multinomial(q.exp(), count, True, generator=generator) for q in questions]
    return _Contexts(chains[row], scores[row], torch.stack(answers, dim=-1))


def _proposals(
    model: Unmixer,
    belief: Belief,
    questions: list[Tensor],
    contexts: _Contexts,
    source: str,
    note: int,
    gate_s: float,
    generator: torch.Generator | None = None,
) -> list[Proposal]:
    """Patches of one clip's contexts; knobs are component means: the heaviest's, or with a generator a drawn one's."""
    mixtures = model.mixtures(belief.repeat(len(contexts.chain)), contexts.context(belief.vector.device))
    picked = [_components(mixture, generator) for mixture in mixtures]
    logits = model.knobs.scatter([m.component(index) for m, (index, _) in zip(mixtures, picked, strict=True)])
    knobs = model.stilled(to_unit(logits).cpu(), contexts.moving).numpy().astype(np.float32)
    weights = torch.stack([log_weight for _, log_weight in picked], dim=-1).cpu().numpy()
    choices, chain = contexts.choices.numpy(), contexts.chain.numpy().astype(np.int8)
    knob_mask, choice_mask = RACK.active(choices, chain, knobs)
    heard = np.concatenate([choice_mask, knob_mask[:, list(AMOUNTS)]], axis=1)
    chosen = [q[contexts.answers[:, i]] for i, q in enumerate(questions)]
    total = contexts.chain_log_prob.numpy() + (torch.stack(chosen, dim=-1).numpy() * heard).sum(1)
    total = total + (weights * RACK.devices_on(chain)).sum(1)
    patches = (Patch(knobs[i], choices[i], chain[i], note, gate_s).canonical() for i in range(len(knobs)))
    return [Proposal(patch, float(value), source) for patch, value in zip(patches, total, strict=True)]


def _components(mixture: Mixture, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """A component per row and its log weight: the heaviest, or a drawn one."""
    log_weights = mixture.logits.log_softmax(-1)
    if generator is None:
        index = log_weights.argmax(-1)
    else:
        index = torch.multinomial(log_weights.exp().cpu(), 1, generator=generator)[:, 0].to(log_weights.device)
    return index, log_weights.gather(-1, index[:, None])[:, 0]


# --- which chain ---------------------------------------------------------------------------------------------------


def consensus(chains: Tensor, scores: Tensor) -> int:
    """The row of a beam (chains [w, 8], log-probabilities [w]) with the highest expected agreement with the others.

    Agreement is the F1 of what two chains say: which effects there are, and for each audible pair which comes first.
    """
    weight = torch.where(torch.isfinite(scores), scores, -torch.inf).softmax(0)
    said = statements(chains)
    size = said.sum(-1)
    agreement = 2 * (said @ said.T) / (size[:, None] + size).clamp_min(1)
    agreement = torch.where((size[:, None] + size) == 0, 1.0, agreement)
    return int((agreement @ weight).masked_fill(~torch.isfinite(scores), -1.0).argmax())


def statements(chains: Tensor) -> Tensor:
    """What chains [w, 8] say, float [w, 8 + 64]: presence of each effect; "a before b" for each pair whose order can be
    heard (two linear time-invariant effects commute, but for a third between them that is not)."""
    effects = slots_of(chains)[..., :N_EFFECTS]  # w, slot, effect
    before = (effects.cumsum(1) - effects).mT @ effects  # w, a, b
    linear = torch.tensor([name in LTI for name in RACK.effect_names])
    commute = (linear[:, None] & linear).float()
    loud = effects[..., ~linear].sum(-1)
    runs = (loud.cumsum(1)[..., None] * effects).sum(1)  # w, effect: how many audible neighbours came before
    same_run = (runs[:, :, None] == runs[:, None]).float()
    return torch.cat([effects.sum(1), (before * (1 - commute * same_run)).flatten(1)], dim=-1)


# --- how sure ------------------------------------------------------------------------------------------------------


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
    """Central intervals of the knobs given the classes and the chain of one patch a clip (a proposal, say), or of every
    patch where there is one clip."""
    marginals = _Marginals.of(model, features, note, gate_s, Targets.of_list(patches), seed)
    edges = {level: [marginals.quantile((1 - level) / 2), marginals.quantile((1 + level) / 2)] for level in levels}
    median = marginals.quantile(0.5)
    low, high = (np.array([edges[level][side] for level in levels]).reshape(-1, *median.shape) for side in (0, 1))
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
    """Where the true knobs lie in their predicted distributions [b, K], uniform in [0, 1] when the model is calibrated;
    nan for knobs that cannot be heard. A value at an atom gets a random place within the atom's share.

    `given`: patches whose classes and chain the knobs are conditioned on (default: the truth's).
    """
    targets = Targets.of(truth)
    context = Targets.of_list(given) if given is not None else targets
    marginals = _Marginals.of(model, features, note, gate_s, context, seed)
    place = marginals.cdf(to_logit(targets.knobs), torch.Generator().manual_seed(seed + 1))
    heard = targets.knob_mask & context.knob_mask if given is not None else targets.knob_mask
    return torch.where(heard, place, torch.nan).numpy().astype(np.float32)


@dataclass(frozen=True)
class _Marginals:
    """The knobs' marginal distributions: mixtures in logit space with weights [b, k, n] a device, and for the modulation
    amounts an atom at zero of probability [b, K]."""

    model: Unmixer
    mixtures: list[Mixture]
    weights: list[Tensor]
    atom: Tensor

    @classmethod
    def of(
        cls, model: Unmixer, features: Tensor, note: Tensor, gate_s: Tensor, given: Targets, seed: int
    ) -> _Marginals:
        """Averaged over which amounts move, drawn from the prediction; an amount's own density is that of it moving.
        One clip serves any number of given answers: what is told of each does not depend on the others."""
        model.eval()
        belief = model(features, note, gate_s)
        generator = torch.Generator().manual_seed(seed)
        probability = torch.sigmoid(belief.classes.moving).cpu()
        moving = [torch.bernoulli(probability, generator=generator) for _ in range(MOVING_DRAWS)]
        if len(features) == 1:
            n = len(given.knobs)
            belief, probability, moving = belief.repeat(n), probability.expand(n, -1), [m.expand(n, -1) for m in moving]
        contexts = [_on(replace(context_of(given), moving=m), belief.vector.device) for m in moving]
        drawn = [model.mixtures(belief, context) for context in contexts]
        mixtures = [Mixture.pooled(list(same)).cpu() for same in zip(*drawn, strict=True)]
        heard = torch.ones(MOVING_DRAWS, len(probability), RACK.n_knobs)
        heard[:, :, list(AMOUNTS)] = torch.stack(moving).clamp_min(1e-6)
        weights = [_reweighted(m, heard[..., c]) for m, c in zip(mixtures, model.knobs.columns, strict=True)]
        atom = torch.zeros(len(probability), RACK.n_knobs)
        atom[:, list(AMOUNTS)] = 1 - probability
        return cls(model, mixtures, weights, atom)

    def cdf(self, logit: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """P(knob <= logit) [b, K]; at an atom a random part of its mass where a generator is given, else all of it."""
        within = torch.ones_like(logit) if generator is None else torch.rand(logit.shape, generator=generator)
        parts = zip(self.mixtures, self.weights, self.model.knobs.columns, strict=True)
        smooth = self.model.knobs.scatter([m.cdf(logit[:, c], w, within[:, c]) for m, w, c in parts])
        share = (logit > -STILL_LOGIT).float()
        if generator is not None:
            share = torch.where(logit.abs() <= STILL_LOGIT, within, share)
        return self.atom * share + (1 - self.atom) * smooth

    def quantile(self, level: float, *, steps: int = 30) -> NDArray[np.float32]:
        """Unit values [b, K] below which a share `level` lies, by bisection."""
        low = torch.full_like(self.atom, -8.0)
        high = -low
        for _ in range(steps):
            middle = (low + high) / 2
            below = self.cdf(middle) < level
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        unit = to_unit((low + high) / 2)
        near = ((unit - 0.5).abs() < STILL + 1e-4) & (self.atom > 0)  # the atom's mass lies at the edge of its reach
        return torch.where(near, 0.5, unit).numpy().astype(np.float32)


def _reweighted(mixture: Mixture, heard: Tensor) -> Tensor:
    """Component weights [b, draws * k, n] of a pooled mixture, each draw counted as far as `heard` [draws, b, n]."""
    each = heard.transpose(0, 1).repeat_interleave(mixture.weights.shape[1] // len(heard), dim=1)
    weights = mixture.weights[..., None] * each
    return weights / weights.sum(1, keepdim=True)


def _on(context: Context, device: torch.device) -> Context:
    return Context([c.to(device) for c in context.choices], context.slots.to(device), context.moving.to(device))
