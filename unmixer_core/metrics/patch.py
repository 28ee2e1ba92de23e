"""How well a predicted patch matches the true one.

Knobs, choices, the set of effects and their order.

Chains are tuples of effect names; "audible" is the notion of `schema.chain`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unmixer_core.metrics.statistics import _masked_mean, _mean, f1
from unmixer_core.schema.chain import audible_pairs, canonical, commutes

Chain = tuple[str, ...]


# Knobs, classes, calibration


def knob_mae(predicted: ArrayLike, actual: ArrayLike, active: ArrayLike) -> float:
    """Mean absolute error over active knobs only; arrays [clips, knobs], active boolean.

    nan when none is active.
    """
    return _masked_mean(
        np.abs(np.asarray(predicted) - np.asarray(actual)), np.asarray(active, dtype=bool)
    )


def mae_by_knob(predicted: ArrayLike, actual: ArrayLike, active: ArrayLike) -> NDArray[np.float64]:
    """The same per knob, [knobs]; nan for knobs that are never active."""
    error, mask = np.abs(np.asarray(predicted) - np.asarray(actual)), np.asarray(active, dtype=bool)
    return np.array([_masked_mean(error[:, k], mask[:, k]) for k in range(error.shape[1])])


def class_accuracy(predicted: ArrayLike, actual: ArrayLike, active: ArrayLike) -> float:
    """Share of active choices that are right; arrays [clips, choices] of class indices.

    nan when none is active.
    """
    return _masked_mean(np.asarray(predicted) == np.asarray(actual), np.asarray(active, dtype=bool))


# Chains


def chain_scores(predicted: Sequence[Chain], actual: Sequence[Chain]) -> dict[str, float]:
    """Every chain metric of a set of clips, by name; orders are scored on audible pairs only.

    exact, exact_audible: share right, literally and up to swaps nobody can hear. ceiling: best
    `exact` in reach of a model that cannot hear those swaps. levenshtein: mean edits. set_f1: mean
    over clips, order ignored. precision, recall, f1: mean over effects. pair_order: share of the
    truth's audible pairs found in the right order (a missing effect is a miss); pair_order_present:
    the same among pairs of which both effects were predicted.
    """
    pairs = list(zip(predicted, actual, strict=True))
    by_effect = effect_scores(predicted, actual).values()
    right, present, total = (
        np.sum([order_hits(p, a) for p, a in pairs], axis=0) if pairs else (0, 0, 0)
    )
    return {
        "exact": _mean(p == a for p, a in pairs),
        "exact_audible": _mean(canonical(p) == canonical(a) for p, a in pairs),
        "ceiling": _mean(1.0 / class_size(a) for a in actual),
        "levenshtein": _mean(levenshtein(p, a) for p, a in pairs),
        "set_f1": _mean(set_f1(p, a) for p, a in pairs),
        **{
            name: _mean(scores[name] for scores in by_effect)
            for name in ("precision", "recall", "f1")
        },
        "pair_order": float(right / total) if total else float("nan"),
        "pair_order_present": float(right / present) if present else float("nan"),
    }


def majority_chain(train: Sequence[Chain]) -> Chain:
    """The commonest chain: score `[majority_chain(train)] * n` with `chain_scores` for the
    baseline.
    """
    return Counter(train).most_common(1)[0][0]


def levenshtein(a: Sequence[str], b: Sequence[str]) -> int:
    """Fewest insertions, deletions and substitutions that turn one chain into the other."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        previous, row = row, [i]
        for j, y in enumerate(b, start=1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (x != y)))
    return row[-1]


def set_f1(predicted: Iterable[str], actual: Iterable[str]) -> float:
    """F1 of the effects present, order ignored; 1 when both chains are empty."""
    p, a = set(predicted), set(actual)
    return f1(len(p & a), len(p), len(a), empty=1.0)


def effect_scores(
    predicted: Sequence[Chain], actual: Sequence[Chain]
) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and support (clips that have it) of every effect that occurs on
    either side; 0/0 = 0.
    """
    hits = Counter(e for p, a in zip(predicted, actual, strict=True) for e in set(p) & set(a))
    found, wanted = (
        Counter(e for p in predicted for e in set(p)),
        Counter(e for a in actual for e in set(a)),
    )
    return {
        e: {
            "precision": hits[e] / max(found[e], 1),
            "recall": hits[e] / max(wanted[e], 1),
            "f1": f1(hits[e], found[e], wanted[e], empty=0.0),
            "support": float(wanted[e]),
        }
        for e in sorted(found | wanted)
    }


def order_hits(predicted: Chain, actual: Chain) -> tuple[int, int, int]:
    """Audible pairs of the true chain.

    (in the right order in the prediction, with both effects in it, in all).
    """
    place = {effect: i for i, effect in enumerate(predicted)}
    pairs = audible_pairs(actual)
    present = [(a, b) for a, b in pairs if a in place and b in place]
    return sum(place[a] < place[b] for a, b in present), len(present), len(pairs)


@lru_cache(maxsize=65536)
def class_size(chain: Chain) -> int:
    """Number of orders of these effects that sound like this one, itself included.

    Counts the orders that keep every non-commuting pair, by dynamic programming over prefixes as
    sets.
    """
    before = [{j for j in range(i) if not commutes(chain[j], chain[i])} for i in range(len(chain))]
    ways = {frozenset[int](): 1}
    for _ in chain:
        longer: Counter[frozenset[int]] = Counter()
        for prefix, count in ways.items():
            for i in set(range(len(chain))) - prefix:
                if before[i] <= prefix:
                    longer[prefix | {i}] += count
        ways = longer
    return next(iter(ways.values()))
