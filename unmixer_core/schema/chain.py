"""Ordered effect chains: codes and names, and which orders are audibly different.

Linear time-invariant effects commute, so a chain is only identifiable up to swaps of neighbours
that are both LTI. `canonical` picks one representative of each such class (the lexicographically
least order reachable by those swaps); two chains sound alike exactly when their canonical forms are
equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from unmixer_core.schema.rack import RACK

END = -1
#: Every effect may occur once, so a full chain holds all of them.
MAX_EFFECTS = len(RACK.effects)
_ID = {name: i for i, name in enumerate(RACK.effect_names)} | {
    key: i for i, key in enumerate(RACK.effect_keys)
}
LTI = frozenset(
    name for name, device in zip(RACK.effect_names, RACK.effects, strict=True) if device.lti
)


def encode(names: Sequence[str]) -> NDArray[np.int8]:
    """Effect names (or keys) in order → int8 [MAX_EFFECTS] of effect ids, −1 padded.

    Raises ValueError on unknown or repeated ones.
    """
    unknown = [name for name in names if name not in _ID]
    if unknown:
        raise ValueError(f"unknown effect {unknown[0]!r}; known are {', '.join(RACK.effect_names)}")
    codes = [_ID[name] for name in names]
    if len(set(codes)) != len(codes):
        raise ValueError(f"an effect may occur once in a chain, but got {' > '.join(names)}")
    return np.array(codes + [END] * (MAX_EFFECTS - len(codes)), dtype=np.int8)


def decode(codes: Iterable[int]) -> tuple[str, ...]:
    """Effect ids, −1 padded → names in order. Raises ValueError when the codes are not a chain."""
    values = [int(code) for code in codes]
    length = values.index(END) if END in values else len(values)
    chain, rest = values[:length], values[length:]
    if (
        any(code != END for code in rest)
        or len(set(chain)) != length
        or any(not 0 <= c < MAX_EFFECTS for c in chain)
    ):
        raise ValueError(f"not an effect chain: {values}")
    return tuple(RACK.effect_names[code] for code in chain)


def commutes(first: str, second: str) -> bool:
    """True when swapping these two neighbours is inaudible: both are LTI effects."""
    return first in LTI and second in LTI


def canonical(names: Sequence[str]) -> tuple[str, ...]:
    """The representative of all orders that sound like this one.

    Runs of LTI neighbours sorted by name.
    """
    result: list[str] = []
    run: list[str] = []
    for name in names:
        if name in LTI:
            run.append(name)
            continue
        result += [*sorted(run), name]
        run = []
    return tuple(result + sorted(run))


def audible_pairs(names: Sequence[str]) -> set[tuple[str, str]]:
    """Ordered pairs (earlier, later) whose order is audible.

    No sequence of inaudible swaps reverses them.

    A pair of LTI effects is audible too when a non-LTI effect stands between them.
    """
    runs: dict[str, int] = {}
    run = 0
    for name in names:
        if name not in LTI:
            run += 1
        runs[name] = run
    return {
        (a, b) for a, b in combinations(names, 2) if not (commutes(a, b) and runs[a] == runs[b])
    }
