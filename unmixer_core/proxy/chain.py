"""Patches with different chains in one batch, at the cost of the effects they really have.

Rows advance through their chains on their own; at each turn the effect that most rows wait for is
applied to all of those at once. A slot's output is x + Σₑ wₑ(fₑ(x) − x): with a hard slot that is
fₑ(x), and a straight-through one-hot still receives the gradient ⟨g, f(x) − x⟩ of taking the effect
rather than none. Relaxed slots go slot by slot through the effects whose weight is heard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

END = -1
AUDIBLE_WEIGHT = 0.01
#: (effect id, audio [rows, 2, time], row indices [rows]) → audio of the same shape.
Apply = Callable[[int, Tensor, Tensor], Tensor]


def run_chain(audio: Tensor, chain: Tensor, apply: Apply) -> Tensor:
    """audio [batch, 2, time] through chain.

    LongTensor [batch, 8] (−1 = end), or weights [batch, 8, effects + 1] (last = end).
    """
    if not chain.is_floating_point():
        return _run_hard(audio, chain, None, apply)
    hard = chain.detach().argmax(dim=-1)
    if bool((chain.detach().amax(dim=-1) > 1.0 - 1e-4).all()):
        end = chain.shape[-1] - 1
        return _run_hard(audio, torch.where(hard == end, END, hard), chain, apply)
    return _run_relaxed(audio, chain, apply)


def _run_hard(audio: Tensor, chain: Tensor, weights: Tensor | None, apply: Apply) -> Tensor:
    rows = list(audio.unbind(0))
    todo = [_prefix(codes) for codes in chain.tolist()]
    done = [0] * len(rows)
    while waiting := [i for i, codes in enumerate(todo) if done[i] < len(codes)]:
        effect = Counter(todo[i][done[i]] for i in waiting).most_common(1)[0][0]
        group = [i for i in waiting if todo[i][done[i]] == effect]
        source = torch.stack([rows[i] for i in group])
        index = torch.tensor(group, device=audio.device)
        result = apply(effect, source, index)
        if weights is not None:
            slots = torch.tensor([done[i] for i in group], device=audio.device)
            result = source + weights[index, slots, effect][:, None, None] * (result - source)
        for i, row in zip(group, result.unbind(0), strict=True):
            rows[i], done[i] = row, done[i] + 1
    return torch.stack(rows)


def _prefix(codes: list[int]) -> list[int]:
    return codes[: codes.index(END)] if END in codes else codes


def _run_relaxed(audio: Tensor, weights: Tensor, apply: Apply) -> Tensor:
    for slot in range(weights.shape[1]):
        change = torch.zeros_like(audio)
        for effect in range(weights.shape[2] - 1):
            index = (weights[:, slot, effect].detach() > AUDIBLE_WEIGHT).nonzero()[:, 0]
            if len(index):
                source = audio[index]
                step = weights[index, slot, effect][:, None, None] * (
                    apply(effect, source, index) - source
                )
                change = change.index_add(0, index, step)
        audio = audio + change
    return audio
