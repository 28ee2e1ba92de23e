"""The pool of hosts: waiting patches, leases, and retries of failed renders.

Both engines use it. Each host has a JobQueue, whether its worker is in this process or in a Ray
actor. The first outcome of a patch counts. A failed patch goes to another host if there is one. A
patch whose host was lost is rendered alone, so that a patch that kills hosts costs no other patch.
"""

from __future__ import annotations

import asyncio
import logging
import queue
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unmixer_core.errors import HostError
from unmixer_core.live.host import RenderFailure
from unmixer_core.live.track.frozen import FrozenTrack
from unmixer_core.schema.patch import Patch

log = logging.getLogger(__name__)

Clip = NDArray[np.float32]
PATCH_TRIES = 3
#: (index of the patch, its outcome), or why no host is left.
ResultQueue: TypeAlias = "queue.SimpleQueue[tuple[int, Clip | RenderFailure] | HostError]"


@dataclass(frozen=True)
class ReadyHost:
    """A host that is ready: its number of lanes, and the choices that it cannot set."""

    lanes: int
    frozen: FrozenTrack | None = None


class SessionLost(HostError):
    """The whole session failed, not one take.

    `cause` is the error for the user.
    """

    def __init__(self, cause: HostError) -> None:
        super().__init__(cause)
        self.cause = cause

    def __str__(self) -> str:
        return str(self.cause)


class PooledHost(Protocol):
    """One host, wherever its worker runs: workers.HostWorker here, ray_engine.RayHost in an actor.

    `render` raises RecordingError or ReadbackMismatch for a take that failed and SessionLost when
    the session is of no more use; `open` may follow at any time after `close`, which never raises.
    """

    @property
    def name(self) -> str: ...

    async def open(self) -> ReadyHost: ...

    async def render(self, patch: Patch) -> Clip: ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...


@dataclass(eq=False)
class PatchJob:
    """One patch to render.

    `results` receives its outcome; `alone`: its host was lost with it, so it is rendered without
    another patch beside it; `avoid`: the host on which it failed last; `reserved`: the host that
    finishes its other patches first.
    """

    index: int
    patch: Patch
    results: ResultQueue
    tries: int = 0
    cancelled: bool = False
    finished: bool = False
    alone: bool = False
    avoid: JobQueue | None = None
    reserved: JobQueue | None = None


@dataclass(eq=False)
class JobQueue:
    """The pool's state of one host.

    `up`: it has a session; `leases`: the patches it renders; `aside`: why it is set aside.
    """

    name: str
    up: bool = False
    lanes: int = 0
    leases: set[PatchJob] = field(default_factory=set)
    aside: HostError | None = None
    frozen: bool = False


@dataclass(eq=False)
class HostPool:
    """Lives on the event loop of the workers; results leave through the queues of their jobs."""

    job_queues: list[JobQueue] = field(default_factory=list)
    result_queues: set[ResultQueue] = field(default_factory=set)
    #: What the hosts cannot set (stock AbletonOSC); known when the first session is ready.
    frozen: FrozenTrack | None = None
    #: Every host has opened a session or failed once. From now on `frozen` does not change.
    begun: bool = False
    _jobs: deque[PatchJob] = field(default_factory=deque)
    _waiters: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def lanes(self) -> int:
        return sum(job_queue.lanes for job_queue in self.job_queues)

    # -- hosts come and go ---------------------------------------------------------------------

    def admit(self, job_queue: JobQueue, ready: ReadyHost) -> None:
        """The host is ready. Raises HostError when it cannot render what the others can."""
        known = self.begun or any(
            other.up for other in self.job_queues if other is not job_queue and other.frozen
        )
        if known and ready.frozen is not None and ready.frozen != self.frozen:
            raise HostError(
                f"the template set of {job_queue.name} has other frozen choices than the run "
                f"began with ({ready.frozen.describe()}): give every host a copy of one set, and "
                f"leave it alone while a render runs."
            )
        job_queue.frozen = ready.frozen is not None
        self.frozen = ready.frozen or self.frozen
        job_queue.up = True
        job_queue.lanes = ready.lanes
        job_queue.aside = None
        self._wake()

    def dismiss(self, job_queue: JobQueue, error: HostError | None) -> None:
        """The host lost its session. Each of its leases counts as failed and is retried alone."""
        job_queue.up = False
        for job in self._jobs:
            job.reserved = None if job.reserved is job_queue else job.reserved
        for job in list(job_queue.leases):
            if error is None:
                job_queue.leases.discard(job)
                self._jobs.appendleft(job)
            else:
                self.failed(
                    job,
                    job_queue,
                    type(error)(f"the session was lost while it was rendered: {error}"),
                    alone=True,
                )
        self._wake()

    def set_aside(self, job_queue: JobQueue, error: HostError) -> None:
        """Set aside a host that failed too often. Without another host, report the error."""
        job_queue.aside = error
        if all(other.aside for other in self.job_queues):
            for results in self.result_queues:
                results.put(error)
        self._wake()

    # -- patches -------------------------------------------------------------------------------

    def put(self, job: PatchJob) -> None:
        self._jobs.append(job)
        self._wake()

    async def lease(self, job_queue: JobQueue) -> PatchJob:
        """Wait for a patch that this host may have."""
        while (job := self._next(job_queue)) is None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        job_queue.leases.add(job)
        return job

    def done(self, job: PatchJob, job_queue: JobQueue, clip: Clip) -> None:
        self._end(job, job_queue)
        self._finish(job, clip)

    def failed(
        self, job: PatchJob, job_queue: JobQueue, error: HostError, *, alone: bool = False
    ) -> None:
        """Count a failure: retry the patch, or return a RenderFailure after PATCH_TRIES."""
        self._end(job, job_queue)
        job.tries += 1
        log.info("patch %s, try %d on %s: %s", job.patch.digest, job.tries, job_queue.name, error)
        if job.tries >= PATCH_TRIES:
            reason = f"all {PATCH_TRIES} tries failed, the last because {error}"
            self._finish(job, RenderFailure(job.patch, reason))
            return
        job.avoid = job_queue
        job.alone = job.alone or alone
        if job.alone:
            self._jobs.appendleft(job)
        else:
            self._jobs.append(job)

    def _end(self, job: PatchJob, job_queue: JobQueue) -> None:
        job_queue.leases.discard(job)
        self._wake()

    def _finish(self, job: PatchJob, outcome: Clip | RenderFailure) -> None:
        if not job.finished:
            job.finished = True
            job.results.put((job.index, outcome))

    def _next(self, job_queue: JobQueue) -> PatchJob | None:
        if not job_queue.up or any(job.alone for job in job_queue.leases):
            return None
        for job in list(self._jobs):
            if job.cancelled:
                self._jobs.remove(job)
        for job in self._jobs:
            if not self._may(job, job_queue):
                continue
            if job.alone and job_queue.leases:  # it waits until this host is empty
                job.reserved = job_queue
                return None
            self._jobs.remove(job)
            job.reserved = None
            return job
        return None

    def _may(self, job: PatchJob, job_queue: JobQueue) -> bool:
        if job.reserved not in (None, job_queue):
            return False
        others_up = [other for other in self.job_queues if other.up and other is not job_queue]
        return job.avoid is not job_queue or not others_up

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
