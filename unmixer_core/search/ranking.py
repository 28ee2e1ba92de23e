"""Rank patches by the proxy's distance to the note, within a time limit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from unmixer_core.inference import finetune
from unmixer_core.schema.patch import Patch
from unmixer_core.search.context import SearchBudget, SearchContext

#: Patches that the proxy renders at once.
BATCH_SIZE = 8


def rank(
    context: SearchContext,
    budget: SearchBudget,
    patches: Sequence[Patch],
    seconds: float = np.inf,
    distance: finetune.Distance | None = None,
) -> list[Patch]:
    """Patches in the order of their proxy distance (MSS, unless another is given), nearest first.

    After `seconds` the remaining batches are left out; the first batch always runs. Raises
    KeyboardInterrupt once the search was cancelled.
    """
    begun = time.perf_counter()
    proxy = context.resources.proxy
    note = context.note
    batches = [patches[i : i + BATCH_SIZE] for i in range(0, len(patches), BATCH_SIZE)]

    def distances(batch: Sequence[Patch]) -> list[float]:
        late = batch is not batches[0] and time.perf_counter() - begun >= seconds
        if budget.cancelled or late:
            return []
        return finetune.rank(
            proxy,
            note.clip,
            batch,
            sample_rate=note.rate,
            clip_s=context.itf.clip_s,
            distance=distance,
        ).tolist()

    ranked: list[tuple[Patch, float]] = []
    with (
        finetune.frozen(proxy),
        finetune.one_thread_each(),
        ThreadPoolExecutor(context.threads) as pool,
    ):
        for batch, known in zip(batches, pool.map(distances, batches), strict=True):
            # a batch that was left out has no distances
            ranked.extend(zip(batch[: len(known)], known, strict=True))
    budget.raise_if_cancelled()
    ranked.sort(key=lambda pair: pair[1])
    return [patch for patch, _ in ranked]
