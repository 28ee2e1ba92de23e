"""A keeper keeps one host busy.

Opens a session with it, leases patches to it, and opens another when it is lost.

Every lease has a deadline, a host that says nothing is pinged, failures in a row are answered with
growing pauses, and a host that fails too often is set aside for a while: its patches go to the
others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any

from unmixer_core.errors import HostError, HostTimeout, ReadbackMismatch, RecordingError
from unmixer_core.live.farm.pool import PATCH_TRIES, HostPool, JobQueue, PooledHost, SessionLost

log = logging.getLogger(__name__)

#: Sessions in a row that end without a single render before the host is set aside: more than one
#: patch can spoil alone.
HOST_TRIES = 2 * PATCH_TRIES
PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
#: How long a host is set aside, at first and at most.
ASIDE_S, LONGEST_ASIDE_S = 30.0, 600.0
#: Real Live builds a template lane in some ten seconds.
OPEN_WITHIN_S = 300.0
#: How long a patch may be under way, beside its own length; every question on the way has a
#: patience of its own.
LEASE_S = 60.0
PING_EVERY_S, PING_WITHIN_S = 5.0, 15.0
CLOSE_WITHIN_S = 30.0


class HostSupervisor:
    """`started` is done when the first session stands, or raises why it does not.

    `run` ends only by cancellation.
    """

    def __init__(self, host: PooledHost, pool: HostPool, clip_s: float) -> None:
        self.host, self.pool = host, pool
        self.desk = JobQueue(host.name)
        pool.desks.append(self.desk)
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lease_s = LEASE_S + 2.0 * clip_s
        self._barren = 0
        self._aside_s = ASIDE_S
        self._heard_s = 0.0
        self._called = asyncio.Event()

    async def run(self) -> None:
        while True:
            error: HostError | None = None
            try:
                await self._session()
            except Exception as problem:
                error = named(problem)
                log.warning("%s: %s", self.desk.name, error)
            finally:
                self.pool.dismiss(self.desk, error)
                await self._close()
            self._barren += 1
            if not self.started.done() and error is not None:
                self.started.set_exception(error)
            await self._rest(error or HostError(f"the session with {self.desk.name} ended."))

    def call(self) -> None:
        """Somebody has patches: a host that was set aside is tried once more, now."""
        self.desk.aside = None
        self._called.set()

    async def _session(self) -> None:
        """Raises why the session is over."""
        late = f"{self.desk.name} was not ready within {OPEN_WITHIN_S:g} s."
        standing = await within(OPEN_WITHIN_S, self.host.open(), late)
        self.pool.admit(self.desk, standing)
        self._heard_s = time.monotonic()
        if not self.started.done():
            self.started.set_result(None)
        await _until_one_fails([*(self._feed() for _ in range(standing.lanes)), self._listen()])

    async def _feed(self) -> None:
        """One lane's patches, one after the other.

        A patch stays on lease when the session is lost with it.
        """
        while True:
            job = await self.pool.lease(self.desk)
            limit = (
                f"{self.desk.name} had patch {job.patch.digest} for {self.lease_s:.0f} s "
                f"without an end."
            )
            try:
                clip = await within(self.lease_s, self.host.render(job.patch), limit)
            except (RecordingError, ReadbackMismatch) as problem:
                self.pool.failed(job, self.desk, problem)
                continue
            self._barren, self._aside_s, self._heard_s = 0, ASIDE_S, time.monotonic()
            self.pool.done(job, self.desk, clip)

    async def _listen(self) -> None:
        """A ping whenever nothing was heard for a while."""
        while True:
            await asyncio.sleep(PING_EVERY_S)
            if time.monotonic() - self._heard_s >= PING_EVERY_S:
                silence = f"{self.desk.name} did not answer a ping within {PING_WITHIN_S:g} s."
                await within(PING_WITHIN_S, self.host.ping(), silence)

    async def _rest(self, error: HostError) -> None:
        """The pause before the next session; a host that failed too often is set aside."""
        if self._barren < HOST_TRIES:
            await asyncio.sleep(min(PAUSE_S * 2.0 ** (self._barren - 1), LONGEST_PAUSE_S))
            return
        if len(self.pool.desks) > 1:
            log.warning(
                "%s failed %d times in a row and is set aside for %.0f s (%s)",
                self.desk.name,
                self._barren,
                self._aside_s,
                error,
            )
        self._called.clear()
        self.pool.set_aside(self.desk, error)
        try:
            async with asyncio.timeout(self._aside_s):
                await self._called.wait()
        except TimeoutError:
            self._aside_s = min(2.0 * self._aside_s, LONGEST_ASIDE_S)

    async def _close(self) -> None:
        """Closes the host to the end, also when this keeper is cancelled meanwhile.

        A process half stopped would stay.
        """
        closing = asyncio.ensure_future(self.host.close())
        try:
            await asyncio.wait([closing], timeout=CLOSE_WITHIN_S)
        except asyncio.CancelledError:
            await asyncio.wait([closing], timeout=CLOSE_WITHIN_S)
            raise
        finally:
            if not closing.done():
                log.warning("%s could not be closed within %g s", self.desk.name, CLOSE_WITHIN_S)
                closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)


async def within(limit_s: float, work: Coroutine[Any, Any, Any], sentence: str) -> Any:
    """The work's result.

    Raises HostTimeout(sentence) when it takes longer, after it has been cancelled.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait([task], timeout=limit_s)
        if not done:
            raise HostTimeout(sentence)
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _until_one_fails(loops: list[Coroutine[Any, Any, None]]) -> None:
    """Runs the loops until one fails; the others are cancelled.

    What speaks against the session comes before the rest.
    """
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome


def named(problem: Exception) -> HostError:
    """A HostError as it is; anything else, which is a fault of ours, in its words."""
    if isinstance(problem, SessionLost):
        return problem.cause
    if isinstance(problem, HostError):
        return problem
    log.error("unexpected", exc_info=problem)
    return HostError(
        f"rendering failed with {type(problem).__name__}: {problem}; please report this with a "
        f"trace."
    )
