"""A worker keeps one host busy: opens a session, feeds its lanes from the pool, and opens another when the host is lost."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from unmixer_core.errors import HostDied, HostError, HostTimeout
from unmixer_core.live.hosts import EmbeddedHost
from unmixer_core.live.pool import Pool
from unmixer_core.live.recorder import Take
from unmixer_core.live.session import Session
from unmixer_core.live.transport import Endpoint, TracingTransport, Transport

log = logging.getLogger(__name__)

HOST_TRIES = 3
"""Sessions in a row that end without a single render before the host is given up."""
LANE_TRIES = 3
"""Failures in a row on one lane before the whole session is built anew."""
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
                if not self.started.done():
                    self.started.set_exception(error)
                    return
                if self._barren >= HOST_TRIES:
                    pool.give_up(error)
                    return
                await asyncio.sleep(PAUSE_S * self._barren)

    def _session(self) -> AbstractAsyncContextManager[tuple[Session, asyncio.Future[HostDied]]]:
        raise NotImplementedError

    async def _serve(self, session: Session, host_died: asyncio.Future[HostDied], pool: Pool) -> None:
        """Runs the lanes until one of them, or the host, is lost; raises why. Patches on their way go back to the pool."""
        lanes = [asyncio.create_task(self._feed(session, lane, pool)) for lane in range(len(session.lanes))]
        waiting: list[asyncio.Future[Any]] = [*lanes, host_died]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in lanes:
                task.cancel()
            outcomes = await asyncio.gather(*lanes, return_exceptions=True)
        if host_died.done():
            raise host_died.result()
        raise next(outcome for outcome in outcomes if isinstance(outcome, Exception))

    async def _feed(self, session: Session, lane: int, pool: Pool) -> None:
        failures = 0
        while True:
            job = await pool.next()
            try:
                clip = await session.render(lane, job.patch)
            except asyncio.CancelledError:
                pool.again(job, HostDied("the host was lost while it rendered this patch."))
                raise
            except Exception as problem:
                pool.again(job, _named(problem))
                failures += 1
                if failures >= LANE_TRIES or not isinstance(problem, HostError) or isinstance(problem, HostTimeout):
                    raise
            else:
                failures = self._barren = 0
                pool.done(job, clip)


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
