"""ITF that stops when its time is up, with the best state of every candidate so far.

`finetune.refine` runs a number of steps, but how long a step takes depends on the chains. So the
proxy and the distance are watched while it runs: what was tried and how near it came is remembered
here, and may be used at any moment.
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

from unmixer_core.inference import finetune
from unmixer_core.proxy.twin import Proxy
from unmixer_core.schema.patch import Patch

EVERY_S = 0.1
#: Which candidates are in a batch -> the distance of that batch.
Distances = Callable[[Sequence[int]], finetune.Distance]


class _Enough(Exception):
    """The time is up."""


class _Watched:
    """A proxy that remembers the knobs it was last asked for.

    Everything else is the proxy's own.
    """

    def __init__(self, proxy: Proxy, distance: finetune.Distance, n: int) -> None:
        self._proxy, self._distance = proxy, distance
        self.losses = np.full(n, np.inf)
        self.knobs: list[NDArray[np.float32] | None] = [None] * n
        self._asked: NDArray[np.float32] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._proxy, name)

    def __call__(self, knobs: Tensor, *rest: Any, **named: Any) -> Tensor:
        self._asked = knobs.detach().cpu().numpy().astype(np.float32)
        return self._proxy(knobs, *rest, **named)

    def distance(self, predicted: Tensor) -> Tensor:
        losses = self._distance(predicted)
        assert self._asked is not None
        for i, loss in enumerate(losses.detach().cpu().numpy()):
            if loss < self.losses[i]:
                self.losses[i], self.knobs[i] = loss, self._asked[i].copy()
        return losses


def refine(
    proxy: Proxy,
    target_audio: NDArray[np.float32],
    patches: Sequence[Patch],
    settings: finetune.Settings,
    locked: NDArray[np.bool_],
    *,
    sample_rate: int,
    distances: Distances,
    seconds: float,
    progress: Callable[[], None],
    threads: int = 1,
) -> list[Patch | None]:
    """`finetune.refine` for at most about `seconds` (a step is never cut).

    The nearest state of each candidate by proxy.

    Candidates are shared out over `threads`, one compute thread each
    (`finetune.refine_side_by_side` says why). `progress` is called in the caller's thread; what it
    raises ends the refinement. None stands for a candidate that the proxy cannot sound (a distance
    that is not finite from the start).
    """
    end, stop = time.perf_counter() + seconds, threading.Event()
    n = max(1, min(threads, len(patches)))
    shares = [list(range(i, len(patches), n)) for i in range(n) if patches]

    def check(*_: Any) -> None:
        if stop.is_set() or time.perf_counter() >= end:
            raise _Enough

    def refined(share: list[int]) -> list[NDArray[np.float32] | None]:
        watched = _Watched(proxy, distances(share), len(share))
        with suppress(_Enough):
            finetune.refine(
                watched,
                target_audio,
                [patches[i] for i in share],
                settings,
                locked,
                sample_rate=sample_rate,
                distance=watched.distance,
                progress=check,
            )
        return watched.knobs

    with finetune.frozen(proxy), finetune.one_thread_each(), ThreadPoolExecutor(n) as pool:
        working = [pool.submit(refined, share) for share in shares]
        try:
            while wait(working, EVERY_S).not_done:
                progress()
            progress()
        finally:
            stop.set()
    knobs = {
        i: found
        for share, part in zip(shares, working, strict=True)
        for i, found in zip(share, part.result(), strict=True)
    }
    return [
        None if (k := knobs[i]) is None else replace(patch, knobs=k)
        for i, patch in enumerate(patches)
    ]
