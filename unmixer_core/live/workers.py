"""A worker keeps one host busy: opens a session, feeds its lanes from the pool, and opens another when the host is lost."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from unmixer_core.errors import HostDied, HostError, ReadbackMismatch, RecordingError
from unmixer_core.live.hosts import EmbeddedHost
from unmixer_core.live.pool import PATCH_TRIES, Job, Pool
from unmixer_core.live.recorder import Take
from unmixer_core.live.session import Session
from unmixer_core.live.transport import Endpoint, TracingTransport, Transport

log = logging.getLogger(__name__)

HOST_TRIES = 2 * PATCH_TRIES
"""Sessions in a row that end without a single render before the host is given up: more than one patch can spoil alone."""
LANE_TRIES = PATCH_TRIES - 1
"""Failed takes in a row on one lane before the whole session is built anew: a patch is not given up for one bad lane."""
PAUSE_S = 0.5


class Worker(Protocol):
    """`started` is done when the first session stands (or raises why it does not); `run` ends only by cancellation."""

    started: asyncio.Future[None]

    async def run(self, pool: Pool) -> None: ...


class _SessionWorker:
    """What both kinds share: sessions in a row, each with its lanes' loops."""

    def __init__(self, take: Take, lanes: int, trace: Path | None) -> None:
        self.take, self.lanes, self.trace = take, lanes, trace
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._barren = 0
        self._under_way: list[Job] = []
        self._suspects: list[Job] = []

    async def run(self, pool: Pool) -> None:
        while True:
            try:
                async with self._session() as (session, host_died):
                    pool.frozen = session.frozen
                    if not self.started.done():
                        self.started.set_result(None)
                    await self._serve(session, host_died, pool)
            except Exception as problem:
                error = _named(problem)
                log.warning("%s", error)
                self._barren += 1
                self._blame(error, pool)
                if not self.started.done():
                    self.started.set_exception(error)
                    return
                if self._barren >= HOST_TRIES:
                    pool.give_up(error, self._suspects)
                    return
                await asyncio.sleep(PAUSE_S * self._barren)

    def _session(self) -> AbstractAsyncContextManager[tuple[Session, asyncio.Future[HostDied]]]:
        raise NotImplementedError

    async def _serve(self, session: Session, host_died: asyncio.Future[HostDied], pool: Pool) -> None:
        """Renders until a lane, or the host, is lost; raises why. First of all what was under way at an earlier loss."""
        await self._race([self._try_alone(session, pool)], host_died)
        await self._race([self._feed(session, lane, pool) for lane in range(len(session.lanes))], host_died)

    async def _race(self, loops: list[Coroutine[Any, Any, None]], host_died: asyncio.Future[HostDied]) -> None:
        """Runs the loops until one ends or fails, or the host dies."""
        tasks = [asyncio.create_task(loop) for loop in loops]
        waiting: list[asyncio.Future[Any]] = [*tasks, host_died]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        if host_died.done():
            raise host_died.result()
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _try_alone(self, session: Session, pool: Pool) -> None:
        """Jobs that were under way when a session was lost, one at a time: one that kills its host takes no other along."""
        while self._suspects:
            job = self._suspects.pop(0)
            if not job.cancelled and (problem := await self._attempt(session, 0, job, pool)):
                self._put_back(job, problem, pool)

    async def _feed(self, session: Session, lane: int, pool: Pool) -> None:
        failures = 0
        while True:
            job = await pool.next()
            problem = await self._attempt(session, lane, job, pool)
            failures = failures + 1 if problem else 0
            if problem and failures >= LANE_TRIES:
                raise problem
            if problem:
                self._put_back(job, problem, pool)

    async def _attempt(self, session: Session, lane: int, job: Job, pool: Pool) -> HostError | None:
        """Renders a job; returns the error of a take that failed. What speaks against the whole session is raised."""
        self._under_way.append(job)
        try:
            clip = await session.render(lane, job.patch)
        except (RecordingError, ReadbackMismatch) as problem:
            return problem
        self._under_way.remove(job)
        self._barren = 0
        pool.done(job, clip)
        return None

    def _put_back(self, job: Job, problem: HostError, pool: Pool) -> None:
        self._under_way.remove(job)
        pool.again(job, problem)

    def _blame(self, error: HostError, pool: Pool) -> None:
        """Every job that was under way when the session was lost has failed once, and is tried alone next."""
        reason = type(error)(f"the session was lost while it was rendered: {error}")
        for job in self._under_way:
            if not pool.failed(job, reason):
                self._suspects.append(job)
        self._under_way.clear()


class EmbeddedWorker(_SessionWorker):
    """A host process of our own per session."""

    def __init__(self, take: Take, lanes: int, trace: Path | None, options: Sequence[str]) -> None:
        super().__init__(take, lanes, trace)
        self._options = tuple(options)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[tuple[Session, asyncio.Future[HostDied]]]:
        host = EmbeddedHost(self.take.sample_rate, self._options)
        transport: Transport = await host.start()
        if self.trace:
            transport = TracingTransport(transport, self.trace)
        died = asyncio.create_task(host.died())
        session = None
        try:
            opening = asyncio.create_task(
                Session.open(host.endpoint, self.take, lanes=self.lanes, transport=transport, delete_files=True)
            )
            await asyncio.wait([opening, died], return_when=asyncio.FIRST_COMPLETED)
            if died.done():
                opening.cancel()
                raise died.result()
            session = await opening
            yield session, died
        finally:
            died.cancel()
            if session is not None:
                session.abandon()
            await host.stop()


class LiveWorker(_SessionWorker):
    """Live as the environment names it; its recordings stay where Live put them, unless UNMIXER_LIVE_DELETE_RECORDINGS=1."""

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[tuple[Session, asyncio.Future[HostDied]]]:
        never: asyncio.Future[HostDied] = asyncio.get_running_loop().create_future()
        async with await Session.open(
            Endpoint.from_environment(), self.take, lanes=self.lanes, trace=self.trace,
            calibrate=True, delete_files=os.environ.get("UNMIXER_LIVE_DELETE_RECORDINGS") == "1",
        ) as session:  # fmt: skip
            yield session, never


def _named(problem: Exception) -> HostError:
    """A HostError as it is; anything else, which is a fault of ours, in its words."""
    if isinstance(problem, HostError):
        return problem
    log.error("unexpected", exc_info=problem)
    return HostError(f"rendering failed with {type(problem).__name__}: {problem}; please report this with a trace.")
