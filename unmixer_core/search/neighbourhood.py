"""Patches that differ from one in a single decision (another item of a choice, one effect more,
fewer, or moved) or in two.
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
    """Every audibly different patch one decision away that keeps the constraints.

    Knobs stay as they are.
    """
    found: dict[str, Patch] = {}
    for other in (
        *_items(patch, constraints),
        *(() if constraints.chain is not None else _orders(patch)),
    ):
        found.setdefault(other.digest, other)
    found.pop(patch.digest, None)
    return list(found.values())


def both(patch: Patch, changed: Sequence[Patch]) -> list[Patch]:
    """Every patch two decisions away.

    Those of two of the changed patches together, unless one undoes the other.
    """
    found: dict[str, Patch] = {}
    for one, other in combinations(changed, 2):
        items = [p.choices != patch.choices for p in (one, other)]
        orders = [p.effects != patch.effects for p in (one, other)]
        gates = [p.gate_s != patch.gate_s for p in (one, other)]
        if not ((items[0] & items[1]).any() or all(orders) or all(gates)):
            second = replace(one, choices=np.where(items[1], other.choices, one.choices))
            second = replace(second, chain=other.chain) if orders[1] else second
            second = replace(second, gate_s=other.gate_s) if gates[1] else second
            found.setdefault(second.digest, second)
    return [
        second
        for digest, second in found.items()
        if digest not in {patch.digest, *(p.digest for p in changed)}
    ]


def _items(patch: Patch, constraints: Constraints) -> Iterator[Patch]:
    heard, held = RACK.active(patch.choices, patch.chain)[1], constraints.choices
    for column, size in enumerate(RACK.sizes):
        for item in range(size) if heard[column] and not held[column] else ():
            choices = patch.choices.copy()
            choices[column] = item
            yield replace(patch, choices=choices)


def _orders(patch: Patch) -> Iterator[Patch]:
    names = patch.effects
    seen = {chains.canonical(names)}
    for order in (*_fewer(names), *_more(names), *_swapped(names)):
        if chains.canonical(order) not in seen:
            seen.add(chains.canonical(order))
            yield replace(patch, chain=chains.encode(order))


def _fewer(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for i in range(len(names)):
        yield names[:i] + names[i + 1 :]


def _more(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for effect in RACK.effect_names:
        for i in range(len(names) + 1) if effect not in names else ():
            yield (*names[:i], effect, *names[i:])


def _swapped(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for i in range(len(names) - 1):
        yield (*names[:i], names[i + 1], names[i], *names[i + 2 :])
