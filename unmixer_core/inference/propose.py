"""From a clip's features, note and gate to proposals: the point estimate and other patches.

A proposal is a context (a chain from the beam, classes, which amounts move) with one component of
each mixture of knobs. The first proposal is the point estimate: the chain that agrees best with the
whole beam (minimum Bayes risk; Kumar, Byrne, NAACL 2004), the likeliest classes, and the mean of
the heaviest component.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from unmixer_core.model.heads import Context
from unmixer_core.model.mixture import Mixture, to_unit
from unmixer_core.model.targets import AMOUNTS, N_EFFECTS, one_hot_choices, slots_of
from unmixer_core.model.unmixer import Belief, Unmixer
from unmixer_core.schema.chain import LTI
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK

#: Width of the beam search over chains.
BEAM = 24
#: How many of the beam's chains are combined with other classes.
FLIPPED_CHAINS = 4
#: Contexts whose knobs are computed.
RANKED = 48
#: Contexts that are drawn for each proposal asked for, since some repeat.
DRAWS = 3


@dataclass(frozen=True)
class Proposal:
    """A proposed patch.

    `log_prob`: of its audible discrete parts and of its mixture components. `source`: "point" (the
    point estimate), "ranked" (of the likeliest contexts) or "drawn" (from the posterior).
    """

    patch: Patch
    log_prob: float
    source: str


@dataclass(frozen=True)
class _Contexts:
    """m contexts of one clip: chain [m, 8], its log-probability [m], answers [m, C + A].

    An answer is the item of a choice, or 0 (still) or 1 (moving) for a modulation amount.
    """

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
    """Up to n_candidates patches a clip: the point estimate, then half ranked, half drawn.

    features [b, 2, mels, frames], note [b] (MIDI), gate_s [b] in seconds. Equal inputs and seed
    give equal proposals. All patches of a clip sound different.
    """
    model.eval()
    belief = model(features, note, gate_s)
    chains, scores = model.chain.beam(belief.vector, belief.classes.present, BEAM)
    chains = chains.cpu()
    scores = scores.cpu()
    return [
        _propose(
            model,
            belief[i : i + 1],
            chains[i],
            scores[i],
            int(note[i]),
            float(gate_s[i]),
            n_candidates,
            seed,
        )
        for i in range(len(features))
    ]


def _propose(
    model: Unmixer,
    belief: Belief,
    chains: Tensor,
    scores: Tensor,
    note: int,
    gate_s: float,
    n: int,
    seed: int,
) -> list[Proposal]:
    generator = torch.Generator().manual_seed(seed)
    questions = _questions(belief)
    ranked = _proposals(
        model, belief, questions, _ranked(questions, chains, scores), "ranked", note, gate_s
    )
    contexts = _drawn(questions, chains, scores, DRAWS * n, generator)
    drawn = _proposals(model, belief, questions, contexts, "drawn", note, gate_s, generator)
    ranked = _unique([replace(ranked[0], source="point"), *ranked[1:]])
    first = 1 + n // 2
    return _unique([*ranked[:first], *drawn, *ranked[first:]])[:n]


def _unique(proposals: Sequence[Proposal]) -> list[Proposal]:
    """The first of each group of patches that sound the same."""
    return list({p.patch.digest: p for p in reversed(proposals)}.values())[::-1]


def _questions(belief: Belief) -> list[Tensor]:
    """Log-probabilities of one clip: [items] of each choice, [2] (still, moving) of each amount."""
    choices = [logits[0].log_softmax(-1).cpu() for logits in belief.classes.choices]
    moving = torch.nn.functional.logsigmoid(
        torch.stack([-belief.classes.moving[0], belief.classes.moving[0]], dim=-1)
    )
    return [*choices, *moving.cpu()]


def _ranked(questions: list[Tensor], chains: Tensor, scores: Tensor) -> _Contexts:
    """The point estimate, then the likeliest contexts.

    These are each chain with all likeliest answers, and the FLIPPED_CHAINS best chains with one
    answer replaced by the second likeliest.
    """
    best = torch.stack([q.argmax() for q in questions])
    second = torch.stack([q.topk(2).indices[1] for q in questions])
    cost = [float(q[a] - q[b]) for q, a, b in zip(questions, best, second, strict=True)]
    answers = best.repeat(1 + len(questions), 1)
    answers[torch.arange(1, len(answers)), torch.arange(len(questions))] = second
    point = consensus(chains, scores)
    rows = [point, *(i for i in range(int(torch.isfinite(scores).sum())) if i != point)]
    pairs = [
        (row, a)
        for i, row in enumerate(rows)
        for a in range(len(answers) if i < FLIPPED_CHAINS else 1)
    ]
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
    """Proposals of one clip's contexts.

    Knobs are the means of the heaviest components, or with a generator of drawn ones.
    """
    mixtures = model.mixtures(
        belief.repeat(len(contexts.chain)), contexts.context(belief.vector.device)
    )
    picked = [_components(mixture, generator) for mixture in mixtures]
    logits = model.knobs.scatter(
        [m.component(index) for m, (index, _) in zip(mixtures, picked, strict=True)]
    )
    knobs = model.stilled(to_unit(logits).cpu(), contexts.moving).numpy().astype(np.float32)
    weights = torch.stack([log_weight for _, log_weight in picked], dim=-1).cpu().numpy()
    choices, chain = contexts.choices.numpy(), contexts.chain.numpy().astype(np.int8)
    knob_mask, choice_mask = RACK.active(choices, chain, knobs)
    audible = np.concatenate([choice_mask, knob_mask[:, list(AMOUNTS)]], axis=1)
    chosen = [q[contexts.answers[:, i]] for i, q in enumerate(questions)]
    total = contexts.chain_log_prob.numpy() + (torch.stack(chosen, dim=-1).numpy() * audible).sum(1)
    total = total + (weights * RACK.devices_on(chain)).sum(1)
    patches = (
        Patch(knobs[i], choices[i], chain[i], note, gate_s).canonical() for i in range(len(knobs))
    )
    return [
        Proposal(patch, float(value), source) for patch, value in zip(patches, total, strict=True)
    ]


def _components(mixture: Mixture, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """A component per row and its log weight: the heaviest, or a drawn one."""
    log_weights = mixture.logits.log_softmax(-1)
    if generator is None:
        index = log_weights.argmax(-1)
    else:
        index = torch.multinomial(log_weights.exp().cpu(), 1, generator=generator)[:, 0].to(
            log_weights.device
        )
    return index, log_weights.gather(-1, index[:, None])[:, 0]


def consensus(chains: Tensor, scores: Tensor) -> int:
    """The row of a beam with the highest expected agreement with the other rows.

    chains [w, 8], scores: log-probabilities [w]. Agreement is the F1 of the statements of two
    chains (`statements`).
    """
    weight = torch.where(torch.isfinite(scores), scores, -torch.inf).softmax(0)
    stated = statements(chains)
    size = stated.sum(-1)
    agreement = 2 * (stated @ stated.T) / (size[:, None] + size).clamp_min(1)
    agreement = torch.where((size[:, None] + size) == 0, 1.0, agreement)
    return int((agreement @ weight).masked_fill(~torch.isfinite(scores), -1.0).argmax())


def statements(chains: Tensor) -> Tensor:
    """Statements of chains [w, 8], float [w, 8 + 64]: the present effects and their order.

    An order is "a before b" for each pair whose order is audible. Two linear time-invariant effects
    commute, unless an effect of another kind is between them.
    """
    effects = slots_of(chains)[..., :N_EFFECTS]  # w, slot, effect
    before = (effects.cumsum(1) - effects).mT @ effects  # w, a, b
    linear = torch.tensor([name in LTI for name in RACK.effect_names])
    commute = (linear[:, None] & linear).float()
    other = effects[..., ~linear].sum(-1)
    # w, effect: how many effects that are not linear come before it
    runs = (other.cumsum(1)[..., None] * effects).sum(1)
    same_run = (runs[:, :, None] == runs[:, None]).float()
    return torch.cat([effects.sum(1), (before * (1 - commute * same_run)).flatten(1)], dim=-1)
