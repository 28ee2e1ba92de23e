"""Patches on their way: what waits, who has which patch on lease, and what becomes of a patch whose
render fails.

Both engines share this: a host is a Desk here, whether its worker lives in this process or in a Ray
actor. A patch has one outcome, the first that comes. One that failed goes to another host if there
is one; one whose host was lost with it is tried alone there, so that a patch which kills hosts
takes no other along.
"""

from __future__ import annotations

import asyncio
import logging
import queue
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unmixer_core.errors import HostError
from unmixer_core.live.host import RenderFailure
from unmixer_core.live.track.frozen import FrozenTrack
from unmixer_core.schema.patch import Patch

log = logging.getLogger(__name__)

Clip = NDArray[np.float32]
PATCH_TRIES = 3


@dataclass(frozen=True)
class Standing:
    """A host that is ready: how many patches it takes at a time, and what it cannot set."""

    lanes: int
    frozen: FrozenTrack | None = None


class SessionLost(HostError):
    """What failed speaks against the whole session, not against one take.

    `cause` is the error as the user should see it.
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

    async def open(self) -> Standing: ...

    async def render(self, patch: Patch) -> Clip: ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...


@dataclass(eq=False)
class PatchJob:
    """A patch on its way.

    `results` is where its outcome goes; `alone`: its host was lost with it, so nothing else should
    be under way beside it; `avoid`: where it failed last; `reserved`: the host that is being
    emptied for it.
    """

    index: int
    patch: Patch
    results: queue.SimpleQueue[Any]
    tries: int = 0
    cancelled: bool = False
    settled: bool = False
    alone: bool = False
    avoid: JobQueue | None = None
    reserved: JobQueue | None = None


@dataclass(eq=False)
class JobQueue:
    """What the pool knows of a host.

    Whether it is `up`, what it has on lease, and why it is set aside, if it is.
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

    desks: list[JobQueue] = field(default_factory=list)
    inboxes: set[queue.SimpleQueue[Any]] = field(default_factory=set)
    #: What the hosts cannot set (stock AbletonOSC); known as soon as the first session stands.
    frozen: FrozenTrack | None = None
    #: All hosts have been heard of once: from now on what they cannot set stays as it is.
    begun: bool = False
    _jobs: deque[PatchJob] = field(default_factory=deque)
    _waiters: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def lanes(self) -> int:
        return sum(desk.lanes for desk in self.desks)

    # -- hosts come and go ---------------------------------------------------------------------

    def admit(self, desk: JobQueue, standing: Standing) -> None:
        """The host is ready. Raises HostError when it cannot render what the others can."""
        known = self.begun or any(
            other.up for other in self.desks if other is not desk and other.frozen
        )
        if known and standing.frozen is not None and standing.frozen != self.frozen:
            raise HostError(
                f"the template set of {desk.name} has other frozen choices than the run began with "
                f"({standing.frozen.describe()}): give every host a copy of one set, and leave it "
                f"alone while a render runs."
            )
        desk.frozen = standing.frozen is not None
        self.frozen = standing.frozen or self.frozen
        desk.up, desk.lanes, desk.aside = True, standing.lanes, None
        self._wake()

    def dismiss(self, desk: JobQueue, error: HostError | None) -> None:
        """The host is gone for now; what it had on lease failed with it, once, and is tried
        alone elsewhere.
        """
        desk.up = False
        for job in self._jobs:
            job.reserved = None if job.reserved is desk else job.reserved
        for job in list(desk.leases):
            if error is None:
                desk.leases.discard(job)
                self._jobs.appendleft(job)
            else:
                self.failed(
                    job,
                    desk,
                    type(error)(f"the session was lost while it was rendered: {error}"),
                    alone=True,
                )
        self._wake()

    def set_aside(self, desk: JobQueue, error: HostError) -> None:
        """The host failed too often; when no other is left, everyone who waits is told."""
        desk.aside = error
        if all(other.aside for other in self.desks):
            for inbox in self.inboxes:
                inbox.put(error)
        self._wake()

    # -- patches -------------------------------------------------------------------------------

    def put(self, job: PatchJob) -> None:
        self._jobs.append(job)
        self._wake()

    async def lease(self, desk: JobQueue) -> PatchJob:
        """Waits for a patch that this host may have."""
        while (job := self._next(desk)) is None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        desk.leases.add(job)
        return job

    def done(self, job: PatchJob, desk: JobQueue, clip: Clip) -> None:
        self._end(job, desk)
        self._settle(job, clip)

    def failed(
        self, job: PatchJob, desk: JobQueue, error: HostError, *, alone: bool = False
    ) -> None:
        """Counts a failure: back into the queue, or out as a RenderFailure when it was the last
        a patch may have.
        """
        self._end(job, desk)
        job.tries += 1
        log.info("patch %s, try %d on %s: %s", job.patch.digest, job.tries, desk.name, error)
        if job.tries >= PATCH_TRIES:
            reason = f"all {PATCH_TRIES} tries failed, the last because {error}"
            self._settle(job, RenderFailure(job.patch, reason))
            return
        job.avoid, job.alone = desk, job.alone or alone
        (self._jobs.appendleft if job.alone else self._jobs.append)(job)

    def _end(self, job: PatchJob, desk: JobQueue) -> None:
        desk.leases.discard(job)
        self._wake()

    def _settle(self, job: PatchJob, outcome: Clip | RenderFailure) -> None:
        if not job.settled:
            job.settled = True
            job.results.put((job.index, outcome))

    def _next(self, desk: JobQueue) -> PatchJob | None:
        if not desk.up or any(job.alone for job in desk.leases):
            return None
        for job in [job for job in self._jobs if job.cancelled]:
            self._jobs.remove(job)
        for job in self._jobs:
            if not self._may(job, desk):
                continue
            if job.alone and desk.leases:  # it waits until this host is empty
                job.reserved = desk
                return None
            self._jobs.remove(job)
            job.reserved = None
            return job
        return None

    def _may(self, job: PatchJob, desk: JobQueue) -> bool:
        if job.reserved not in (None, desk):
            return False
        return job.avoid is not desk or not any(
            other.up for other in self.desks if other is not desk
        )

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
