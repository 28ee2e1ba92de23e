"""Patches with different chains in one batch, at the cost of the effects that they have.

Rows advance through their chains independently. At each turn, the effect that most rows wait for is
applied to all of those rows at once. A slot's output is x + Σₑ wₑ(fₑ(x) − x). With a hard slot that
is fₑ(x), and a straight-through one-hot still receives the gradient ⟨g, f(x) − x⟩ of the effect
against no effect. Relaxed slots run one after the other through every effect whose weight is
audible.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unmixer_core.proxy.controls import Chain
from unmixer_core.schema.chain import END

#: Effects below this weight are left out of a relaxed slot.
AUDIBLE_WEIGHT = 0.01
#: Weights above this one make a slot hard; float32 one-hots miss 1 by a rounding.
HARD_WEIGHT = 1.0 - 1e-4
#: (effect id, audio, row indices) → audio.
Apply: TypeAlias = Callable[
    [int, Float[Tensor, "rows 2 time"], Int[Tensor, "rows"]], Float[Tensor, "rows 2 time"]
]


def run_chain(
    audio: Float[Tensor, "batch 2 time"], chain: Chain, apply: Apply
) -> Float[Tensor, "batch 2 time"]:
    """Audio through the chain of its row.

    chain: effect ids, or weights over the effects and the end. `apply` plays one effect.
    """
    if not chain.is_floating_point():
        return _run_hard(audio, chain, None, apply)
    codes = chain.detach().argmax(dim=-1)
    if bool((chain.detach().amax(dim=-1) > HARD_WEIGHT).all()):
        end = chain.shape[-1] - 1
        return _run_hard(audio, torch.where(codes == end, END, codes), chain, apply)
    return _run_relaxed(audio, chain, apply)


def _run_hard(
    audio: Float[Tensor, "batch 2 time"],
    chain: Int[Tensor, "batch slots"],
    weights: Float[Tensor, "batch slots codes"] | None,
    apply: Apply,
) -> Float[Tensor, "batch 2 time"]:
    rows = list(audio.unbind(0))
    todo = [_before_end(codes) for codes in chain.tolist()]
    done = [0] * len(rows)
    while waiting := [i for i, codes in enumerate(todo) if done[i] < len(codes)]:
        effect = Counter(todo[i][done[i]] for i in waiting).most_common(1)[0][0]
        group = [i for i in waiting if todo[i][done[i]] == effect]
        source = torch.stack([rows[i] for i in group])
        index = torch.tensor(group, device=audio.device)
        result = apply(effect, source, index)
        if weights is not None:
            slots = torch.tensor([done[i] for i in group], device=audio.device)
            weight = weights[index, slots, effect][:, None, None]
            result = source + weight * (result - source)
        for i, row in zip(group, result.unbind(0), strict=True):
            rows[i] = row
            done[i] += 1
    return torch.stack(rows)


def _before_end(codes: list[int]) -> list[int]:
    if END in codes:
        return codes[: codes.index(END)]
    return codes


def _run_relaxed(
    audio: Float[Tensor, "batch 2 time"],
    weights: Float[Tensor, "batch slots codes"],
    apply: Apply,
) -> Float[Tensor, "batch 2 time"]:
    for slot in range(weights.shape[1]):
        change = torch.zeros_like(audio)
        for effect in range(weights.shape[2] - 1):
            index = (weights[:, slot, effect].detach() > AUDIBLE_WEIGHT).nonzero()[:, 0]
            if not len(index):
                continue
            source = audio[index]
            weight = weights[index, slot, effect][:, None, None]
            change = change.index_add(0, index, weight * (apply(effect, source, index) - source))
        audio = audio + change
    return audio
