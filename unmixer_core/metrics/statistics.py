"""Summaries of many values: bootstrap intervals of a median, coverage of predictive intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def coverage(
    pit_values: ArrayLike, active: ArrayLike, levels: Sequence[float] = (0.5, 0.9)
) -> dict[float, float]:
    """Share of active truths inside each central predictive interval.

    Calibrated when every share equals its level.
    """
    offset, mask = np.abs(np.asarray(pit_values) - 0.5), np.asarray(active, dtype=bool)
    return {level: _masked_mean(offset <= level / 2.0, mask) for level in levels}


def _masked_mean(values: NDArray, mask: NDArray[np.bool_]) -> float:
    return float(values[mask].mean()) if mask.any() else float("nan")


def f1(hits: float, predicted: float, actual: float, *, empty: float) -> float:
    """F1 from counts: `hits` on both sides, all `predicted`, all `actual`; `empty` for 0/0."""
    total = predicted + actual
    return float(2.0 * hits / total) if total else empty


def bootstrap(
    values: ArrayLike,
    statistic: Callable[..., NDArray] = np.median,
    *,
    n: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of a statistic (called with axis=1) under resampling of `values` with
    replacement.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        return float("nan"), float("nan")
    drawn = data[np.random.default_rng(seed).integers(0, data.size, (n, data.size))]
    low, high = np.quantile(
        statistic(drawn, axis=1), [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0]
    )
    return float(low), float(high)


def _mean(values: Iterable[float]) -> float:
    numbers = [float(v) for v in values]
    return float(np.mean(numbers)) if numbers else float("nan")
