"""Patches on their way: the queue between the caller's thread and the workers, and what becomes of a patch that fails."""

from __future__ import annotations

import asyncio
import logging
import queue
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmixer_core.errors import HostError
from unmixer_core.live.frozen import Frozen
from unmixer_core.schema.patch import Patch

log = logging.getLogger(__name__)

Clip = NDArray[np.float32]
PATCH_TRIES = 3


@dataclass(frozen=True, eq=False)
class RenderFailure:
    """A patch that no try could render, and the reason as a sentence."""

    patch: Patch
    reason: str

    def __str__(self) -> str:
        return f"patch {self.patch.digest} was not rendered: {self.reason}"


@dataclass(eq=False)
class Job:
    """A patch on its way. `results` is where its outcome goes."""

    index: int
    patch: Patch
    results: queue.SimpleQueue[Any]
    tries: int = 0
    cancelled: bool = False


@dataclass
class Pool:
    """The queue between the caller's thread and the workers, which live on one event loop in a thread of their own."""

    size: int
    jobs: asyncio.Queue[Job] = field(default_factory=asyncio.Queue)
    inboxes: set[queue.SimpleQueue[Any]] = field(default_factory=set)
    lost: list[HostError] = field(default_factory=list)
    frozen: Frozen | None = None
    """What the hosts cannot set (stock AbletonOSC); known as soon as the first session stands."""

    async def next(self) -> Job:
        while True:
            job = await self.jobs.get()
            if not job.cancelled:
                return job

    def done(self, job: Job, clip: Clip) -> None:
        job.results.put((job.index, clip))

    def failed(self, job: Job, error: HostError) -> bool:
        """Counts a failure. True when it was the last one a patch may have: the patch is out, as a RenderFailure."""
        job.tries += 1
        log.info("patch %s, try %d: %s", job.patch.digest, job.tries, error)
        if job.tries < PATCH_TRIES:
            return False
        job.results.put(
            (job.index, RenderFailure(job.patch, f"all {PATCH_TRIES} tries failed, the last because {error}"))
        )
        return True

    def again(self, job: Job, error: HostError) -> None:
        """Back into the queue, or out when it has failed often enough."""
        if not self.failed(job, error):
            self.jobs.put_nowait(job)

    def give_up(self, error: HostError, jobs: Iterable[Job] = ()) -> None:
        """A worker is lost for good and leaves `jobs` to the others; when it was the last, everyone who waits is told."""
        for job in jobs:
            self.jobs.put_nowait(job)
        self.lost.append(error)
        if len(self.lost) == self.size:
            for inbox in self.inboxes:
                inbox.put(error)
