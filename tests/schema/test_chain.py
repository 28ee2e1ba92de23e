"""Chains: codes, and which orders can be told apart."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmixer_core.schema import chain as chains
from unmixer_core.schema.rack import RACK

chain_names = st.permutations(RACK.effect_names).flatmap(
    lambda p: st.integers(0, 8).map(lambda n: tuple(p[:n]))
)


@given(chain_names)
def test_encode_then_decode_is_identity(names):
    assert chains.decode(chains.encode(names)) == names


@pytest.mark.parametrize("names", [("Reverb", "Reverb"), ("Echo",)])
def test_encode_refuses_repeats_and_strangers(names):
    with pytest.raises(ValueError, match="Reverb|Echo"):
        chains.encode(names)


@pytest.mark.parametrize(
    "codes", [[0, -1, 1, -1, -1, -1, -1, -1], [0, 0, -1, -1, -1, -1, -1, -1], [9] + [-1] * 7]
)
def test_decode_refuses_what_is_not_a_chain(codes):
    with pytest.raises(ValueError, match="not an effect chain"):
        chains.decode(codes)


def _reachable(names):
    """All orders reachable by swapping commuting neighbours, by brute force."""
    seen, frontier = {names}, [names]
    while frontier:
        current = frontier.pop()
        for i in range(len(current) - 1):
            if chains.commutes(current[i], current[i + 1]):
                swapped = (*current[:i], current[i + 1], current[i], *current[i + 2 :])
                if swapped not in seen:
                    seen.add(swapped)
                    frontier.append(swapped)
    return seen


@given(chain_names.filter(lambda names: len(names) <= 5))
def test_canonical_is_one_representative_of_the_commutation_class(names):
    reachable = _reachable(names)
    assert chains.canonical(names) in reachable
    assert {chains.canonical(other) for other in reachable} == {chains.canonical(names)}


@given(chain_names.filter(lambda names: len(names) <= 4))
def test_audible_pairs_are_those_no_inaudible_swap_reverses(names):
    reachable = _reachable(names)
    always = {
        (a, b) for a, b in permutations(names, 2) if all(o.index(a) < o.index(b) for o in reachable)
    }
    assert chains.audible_pairs(names) == always
