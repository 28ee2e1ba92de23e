"""Patches that differ from one in a single decision: another item of a choice, one effect more, fewer, or moved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from unmixer_core.constraints import Constraints
from unmixer_core.schema import chain as chains
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK


def changes(patch: Patch, constraints: Constraints) -> list[Patch]:
    """Every audibly different patch one decision away that keeps the constraints. Knobs stay as they are."""
    found: dict[str, Patch] = {}
    for other in (*_items(patch, constraints), *(() if constraints.chain is not None else _orders(patch))):
        found.setdefault(other.digest, other)
    found.pop(patch.digest, None)
    return list(found.values())


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
