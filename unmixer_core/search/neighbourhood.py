"""Patches that differ from one patch in one discrete decision, or in two.

A decision is another item of a choice, or an effect that is added, removed or moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from unmixer_core.inference.constraints import Constraints
from unmixer_core.schema import chain as chains
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK


def changes(patch: Patch, constraints: Constraints) -> list[Patch]:
    """Every audibly different patch one decision away that meets the constraints.

    Knobs do not change.
    """
    different: dict[str, Patch] = {}
    for other in _other_items(patch, constraints):
        different.setdefault(other.digest, other)
    if constraints.chain is None:
        for other in _other_chains(patch):
            different.setdefault(other.digest, other)
    different.pop(patch.digest, None)
    return list(different.values())


def both(patch: Patch, changed: Sequence[Patch]) -> list[Patch]:
    """Every patch two decisions away: two of the changed patches combined.

    Two changes of the same choice, of the chain, or of the gate are not combined.
    """
    combined: dict[str, Patch] = {}
    for first, second in combinations(changed, 2):
        if not _conflict(patch, first, second):
            other = _combine(patch, first, second)
            combined.setdefault(other.digest, other)
    for nearer in (patch, *changed):
        combined.pop(nearer.digest, None)
    return list(combined.values())


def _conflict(patch: Patch, first: Patch, second: Patch) -> bool:
    """Whether two changes of a patch concern the same decision."""
    first_items = first.choices != patch.choices
    second_items = second.choices != patch.choices
    same_choice = bool((first_items & second_items).any())
    same_chain = first.effects != patch.effects and second.effects != patch.effects
    same_gate = first.gate_s != patch.gate_s and second.gate_s != patch.gate_s
    return same_choice or same_chain or same_gate


def _combine(patch: Patch, first: Patch, second: Patch) -> Patch:
    """`first` with what `second` changes of the patch."""
    items = second.choices != patch.choices
    other = replace(first, choices=np.where(items, second.choices, first.choices))
    if second.effects != patch.effects:
        other = replace(other, chain=second.chain)
    if second.gate_s != patch.gate_s:
        other = replace(other, gate_s=second.gate_s)
    return other


def _other_items(patch: Patch, constraints: Constraints) -> Iterator[Patch]:
    """The patch with each item of each audible, unlocked choice."""
    _, audible = RACK.active(patch.choices, patch.chain)
    locked = constraints.choices
    for column, size in enumerate(RACK.sizes):
        if locked[column] or not audible[column]:
            continue
        for item in range(size):
            choices = patch.choices.copy()
            choices[column] = item
            yield replace(patch, choices=choices)


def _other_chains(patch: Patch) -> Iterator[Patch]:
    """The patch with each chain that is one effect shorter, longer, or has two swapped."""
    names = patch.effects
    seen = {chains.canonical(names)}
    for order in (*_shorter(names), *_longer(names), *_swapped(names)):
        if chains.canonical(order) not in seen:
            seen.add(chains.canonical(order))
            yield replace(patch, chain=chains.encode(order))


def _shorter(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for i in range(len(names)):
        yield names[:i] + names[i + 1 :]


def _longer(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for effect in RACK.effect_names:
        if effect in names:
            continue
        for i in range(len(names) + 1):
            yield (*names[:i], effect, *names[i:])


def _swapped(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for i in range(len(names) - 1):
        yield (*names[:i], names[i + 1], names[i], *names[i + 2 :])
