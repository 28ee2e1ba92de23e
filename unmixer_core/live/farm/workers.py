"""A worker is one host's session at a time.

Opens it, renders on its lanes, and says whether a failure spoils it all.

The same worker serves both engines: in this process, and inside a Ray actor.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from unmixer_core.errors import HostDied, ReadbackMismatch, RecordingError
from unmixer_core.live.farm.host_list import HostSpec
from unmixer_core.live.farm.hosts import EmbeddedHost
from unmixer_core.live.farm.pool import PATCH_TRIES, Clip, ReadyHost, SessionLost
from unmixer_core.live.farm.supervisor import named
from unmixer_core.live.osc.transport import traced
from unmixer_core.live.session.recordings import PathMap
from unmixer_core.live.session.session import Session
from unmixer_core.live.session.take import Take
from unmixer_core.schema.patch import Patch

log = logging.getLogger(__name__)

#: Failed takes in a row on one lane before the whole session is built anew: a patch is not given up
#: for one bad lane.
LANE_TRIES = PATCH_TRIES - 1


class HostWorker:
    """Implements pool.Host for the host that `spec` describes."""

    def __init__(self, spec: HostSpec, take: Take, trace: Path | None = None) -> None:
        self.spec, self.take, self.trace = spec, take, trace
        self._stack: AsyncExitStack | None = None
        self._session: Session | None = None
        self._died: asyncio.Future[HostDied] | None = None
        self._free: list[int] = []
        self._failures: list[int] = []

    @property
    def name(self) -> str:
        return self.spec.name

    async def open(self) -> ReadyHost:
        """Starts the host if it is ours, connects and builds the lanes. Raises HostErrors."""
        await self.close()
        self._stack = AsyncExitStack()
        connect = _embedded if self.spec.live is None else _live
        session, self._died = await self._stack.enter_async_context(
            connect(self.spec, self.take, self.trace)
        )
        lanes = len(session.lanes)
        self._session = session
        self._free = list(range(lanes))
        self._failures = [0] * lanes
        return ReadyHost(lanes, session.frozen)

    async def render(self, patch: Patch) -> Clip:
        """float32 [2, samples].

        Raises RecordingError or ReadbackMismatch (the take failed), SessionLost (all is lost).
        """
        session, died = self._session, self._died
        if session is None or died is None or not self._free:
            raise SessionLost(HostDied(f"{self.name} has no session with a free lane."))
        free, lane = self._free, self._free.pop(0)
        work = asyncio.create_task(session.render(lane, patch))
        waiting: list[asyncio.Future[Any]] = [work, died]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if died.done() and not (
                work.done() and not work.cancelled() and work.exception() is None
            ):
                raise SessionLost(self._how(died))
            return self._outcome(work, lane)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            free.append(lane)

    def _outcome(self, work: asyncio.Task[Clip], lane: int) -> Clip:
        try:
            clip = work.result()
        except (RecordingError, ReadbackMismatch) as problem:
            self._failures[lane] += 1
            if self._failures[lane] >= LANE_TRIES:
                raise SessionLost(problem) from problem
            raise
        except Exception as problem:
            raise SessionLost(named(problem)) from problem
        self._failures[lane] = 0
        return clip

    async def ping(self) -> None:
        """Raises SessionLost when the host does not answer."""
        if self._session is None or self._died is None or self._died.done():
            raise SessionLost(self._how(self._died))
        try:
            await self._session.client.query("/live/test")
        except Exception as problem:
            raise SessionLost(named(problem)) from problem

    def _how(self, died: asyncio.Future[HostDied] | None) -> HostDied:
        ended = died is not None and died.done() and not died.cancelled()
        return (
            died.result()
            if died is not None and ended
            else HostDied(f"the session with {self.name} was closed.")
        )

    async def close(self) -> None:
        """Ends the session: a host of ours is stopped, real Live gets its set back."""
        stack, died = self._stack, self._died
        self._stack, self._session, self._died = None, None, None
        if died is not None:
            died.cancel()  # what still renders ends as lost
        if stack is not None:
            await stack.aclose()


Opened = tuple[Session, "asyncio.Future[HostDied]"]


@asynccontextmanager
async def _embedded(spec: HostSpec, take: Take, trace: Path | None) -> AsyncIterator[Opened]:
    """A host process of our own."""
    host = EmbeddedHost(take.sample_rate, spec.options)
    transport = traced(await host.start(), trace)
    died = asyncio.create_task(host.died())
    session = None
    try:
        opening = asyncio.create_task(
            Session.open(
                host.endpoint,
                take,
                lanes=spec.lanes,
                transport=transport,
                own_folder=host.recordings,
            )
        )
        try:
            await asyncio.wait([opening, died], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            opening.cancel()
            raise
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


@asynccontextmanager
async def _live(spec: HostSpec, take: Take, trace: Path | None) -> AsyncIterator[Opened]:
    """Live where `spec` says; its recordings stay where Live put them unless `spec` says
    otherwise.
    """
    assert spec.live is not None
    paths = PathMap.parse(spec.recordings)
    own_folder = None
    if spec.delete_recordings and paths.here:
        own_folder = Path(paths.here)
    elif spec.delete_recordings:
        log.warning(
            "recordings of %s stay: a file is deleted only in a folder that you name. Set "
            "UNMIXER_LIVE_RECORDINGS=<folder of the recordings>=<the same folder>.",
            spec.name,
        )
    never: asyncio.Future[HostDied] = asyncio.get_running_loop().create_future()
    async with await Session.open(
        spec.live,
        take,
        lanes=spec.lanes,
        trace=trace,
        calibrate=True,
        own_folder=own_folder,
        paths=paths,
    ) as session:
        yield session, never
