"""ITF within a time limit, with the best state of every candidate so far.

`finetune.refine` runs a number of steps, and the time of a step depends on the chains. So the proxy
and the distance are wrapped: the knobs with the smallest distance of each candidate are recorded
while it runs, and are the result whenever the time is up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unmixer_core import config
from unmixer_core.inference import finetune
from unmixer_core.proxy.controls import Choices
from unmixer_core.proxy.twin import Proxy
from unmixer_core.schema.patch import Patch

#: Seconds between two calls of `progress`.
PROGRESS_INTERVAL_S = 0.1
#: Indices of the candidates in a batch -> the distance of that batch.
Distances = Callable[[Sequence[int]], finetune.Distance]
#: Unit knobs [K].
Knobs = NDArray[np.float32]


class _TimeIsUp(Exception):
    """Ends `finetune.refine` from its progress callback."""


class _BestStates:
    """A proxy and a distance that record the best knobs of each candidate.

    Everything else is the proxy's own.
    """

    def __init__(self, proxy: Proxy, distance: finetune.Distance, n: int) -> None:
        self._proxy = proxy
        self._distance = distance
        self.losses = np.full(n, np.inf)
        self.knobs: list[Knobs | None] = [None] * n
        self._current: NDArray[np.float32] | None = None

    def __getattr__(self, name: str) -> Any:  # every other member of the proxy
        return getattr(self._proxy, name)

    def __call__(
        self,
        knobs: Tensor,
        choices: Choices,
        chain: Tensor,
        note: Tensor,
        gate_s: Tensor,
        clip_s: float | None = None,
    ) -> Tensor:
        self._current = knobs.detach().cpu().numpy().astype(np.float32)
        return self._proxy(knobs, choices, chain, note, gate_s, clip_s=clip_s)

    def distance(self, predicted: Tensor) -> Tensor:
        """The distance of the sound that the proxy made last."""
        losses = self._distance(predicted)
        assert self._current is not None
        for i, loss in enumerate(losses.detach().cpu().numpy()):
            if loss < self.losses[i]:
                self.losses[i] = loss
                self.knobs[i] = self._current[i].copy()
        return losses


def refine(
    proxy: Proxy,
    target_audio: NDArray[np.float32],
    patches: Sequence[Patch],
    itf: config.Itf,
    locked: NDArray[np.bool_],
    *,
    sample_rate: int,
    distances: Distances,
    seconds: float,
    progress: Callable[[], None],
    threads: int = 1,
) -> list[Patch | None]:
    """Refine patches for about `seconds` at most (a step is never cut); return the best states.

    target_audio: [2, time] at `sample_rate`. locked: bool [K], True = keep. The candidates are
    divided among `threads`, one compute thread each (`finetune.refine_side_by_side` says why).
    `progress` is called in the caller's thread; an exception of it ends the refinement. None stands
    for a candidate whose distance was never finite.
    """
    end = time.perf_counter() + seconds
    stop = threading.Event()
    n = max(1, min(threads, len(patches)))
    shares = [list(range(i, len(patches), n)) for i in range(n) if patches]

    def check_time(*_: object) -> None:
        if stop.is_set() or time.perf_counter() >= end:
            raise _TimeIsUp

    def refine_share(share: list[int]) -> list[Knobs | None]:
        states = _BestStates(proxy, distances(share), len(share))
        with suppress(_TimeIsUp):
            finetune.refine(
                states,
                target_audio,
                [patches[i] for i in share],
                itf,
                locked,
                sample_rate=sample_rate,
                distance=states.distance,
                progress=check_time,
            )
        return states.knobs

    with finetune.frozen(proxy), finetune.one_thread_each(), ThreadPoolExecutor(n) as pool:
        running = [pool.submit(refine_share, share) for share in shares]
        try:
            while wait(running, PROGRESS_INTERVAL_S).not_done:
                progress()
            progress()
        finally:
            stop.set()
    refined: list[Patch | None] = [None] * len(patches)
    for share, future in zip(shares, running, strict=True):
        for i, knobs in zip(share, future.result(), strict=True):
            if knobs is not None:
                refined[i] = replace(patches[i], knobs=knobs)
    return refined
