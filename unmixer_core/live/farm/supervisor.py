"""The supervisor of one host: opens its session, leases patches to it, and restarts it.

Every lease has a deadline. A silent host is pinged. Failures in a row lead to growing pauses. A
host that fails too often is set aside for a while, and its patches go to the other hosts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from unmixer_core.errors import HostError, HostTimeout, ReadbackMismatch, RecordingError
from unmixer_core.live.farm.pool import PATCH_TRIES, HostPool, JobQueue, PooledHost, SessionLost

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Sessions in a row that end without a single render before the host is set aside: more than one
#: patch can spoil alone.
HOST_TRIES = 2 * PATCH_TRIES
#: The first pause after a failed session. It doubles up to the longest.
PAUSE_S = 0.5
LONGEST_PAUSE_S = 8.0
#: How long a host is set aside at first. It doubles up to the longest.
ASIDE_S = 30.0
LONGEST_ASIDE_S = 600.0
#: Real Live builds a template lane in some ten seconds.
OPEN_WITHIN_S = 300.0
#: Limit of one render beside the length of the clip. Each question has a limit of its own too.
LEASE_S = 60.0
PING_EVERY_S = 5.0
PING_WITHIN_S = 15.0
CLOSE_WITHIN_S = 30.0


class HostSupervisor:
    """Runs sessions with one host until it is cancelled.

    `started` is done when the first session is ready, or raises why it is not.

    """

    def __init__(self, host: PooledHost, pool: HostPool, clip_s: float) -> None:
        self.host, self.pool = host, pool
        self.job_queue = JobQueue(host.name)
        pool.job_queues.append(self.job_queue)
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lease_s = LEASE_S + 2.0 * clip_s
        self._failed_sessions = 0
        self._aside_s = ASIDE_S
        self._last_reply_s = 0.0
        self._retry = asyncio.Event()

    async def run(self) -> None:
        while True:
            error: HostError | None = None
            try:
                await self._session()
            except Exception as problem:
                error = named(problem)
                log.warning("%s: %s", self.job_queue.name, error)
            finally:
                self.pool.dismiss(self.job_queue, error)
                await self._close()
            self._failed_sessions += 1
            if not self.started.done() and error is not None:
                self.started.set_exception(error)
            await self._pause(error or HostError(f"the session with {self.job_queue.name} ended."))

    def retry_now(self) -> None:
        """Try a host that was set aside once more, because new patches are waiting."""
        self.job_queue.aside = None
        self._retry.set()

    async def _session(self) -> None:
        """Run one session. Raises the error that ended it."""
        late = f"{self.job_queue.name} was not ready within {OPEN_WITHIN_S:g} s."
        ready = await within(OPEN_WITHIN_S, self.host.open(), late)
        self.pool.admit(self.job_queue, ready)
        self._last_reply_s = time.monotonic()
        if not self.started.done():
            self.started.set_result(None)
        await _until_one_fails(
            [*(self._feed() for _ in range(ready.lanes)), self._ping_when_silent()]
        )

    async def _feed(self) -> None:
        """Render patches on one lane, one after the other.

        A patch stays on lease when the session is lost.
        """
        while True:
            job = await self.pool.lease(self.job_queue)
            limit = (
                f"{self.job_queue.name} had patch {job.patch.digest} for {self.lease_s:.0f} s "
                f"without an end."
            )
            try:
                clip = await within(self.lease_s, self.host.render(job.patch), limit)
            except (RecordingError, ReadbackMismatch) as problem:
                self.pool.failed(job, self.job_queue, problem)
                continue
            self._failed_sessions = 0
            self._aside_s = ASIDE_S
            self._last_reply_s = time.monotonic()
            self.pool.done(job, self.job_queue, clip)

    async def _ping_when_silent(self) -> None:
        """Ping the host whenever it was silent for PING_EVERY_S."""
        while True:
            await asyncio.sleep(PING_EVERY_S)
            if time.monotonic() - self._last_reply_s >= PING_EVERY_S:
                silence = f"{self.job_queue.name} did not answer a ping within {PING_WITHIN_S:g} s."
                await within(PING_WITHIN_S, self.host.ping(), silence)

    async def _pause(self, error: HostError) -> None:
        """The pause before the next session; a host that failed too often is set aside."""
        if self._failed_sessions < HOST_TRIES:
            await asyncio.sleep(min(PAUSE_S * 2.0 ** (self._failed_sessions - 1), LONGEST_PAUSE_S))
            return
        if len(self.pool.job_queues) > 1:
            log.warning(
                "%s failed %d times in a row and is set aside for %.0f s (%s)",
                self.job_queue.name,
                self._failed_sessions,
                self._aside_s,
                error,
            )
        self._retry.clear()
        self.pool.set_aside(self.job_queue, error)
        try:
            async with asyncio.timeout(self._aside_s):
                await self._retry.wait()
        except TimeoutError:
            self._aside_s = min(2.0 * self._aside_s, LONGEST_ASIDE_S)

    async def _close(self) -> None:
        """Close the host completely, also when this supervisor is cancelled meanwhile.

        A process that is half stopped would stay.
        """
        closing = asyncio.ensure_future(self.host.close())
        try:
            await asyncio.wait([closing], timeout=CLOSE_WITHIN_S)
        except asyncio.CancelledError:
            await asyncio.wait([closing], timeout=CLOSE_WITHIN_S)
            raise
        finally:
            if not closing.done():
                log.warning(
                    "%s could not be closed within %g s", self.job_queue.name, CLOSE_WITHIN_S
                )
                closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)


async def within(limit_s: float, work: Coroutine[Any, Any, T], sentence: str) -> T:
    """The work's result. Raises HostTimeout(sentence) and cancels the work after `limit_s`."""
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
    """Run the loops until one fails, cancel the others, and raise the first loop's error."""
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
    """A HostError as it is. Any other error is a bug of ours and becomes a HostError."""
    if isinstance(problem, SessionLost):
        return problem.cause
    if isinstance(problem, HostError):
        return problem
    log.error("unexpected", exc_info=problem)
    return HostError(
        f"rendering failed with {type(problem).__name__}: {problem}; please report this with a "
        f"trace."
    )
