"""Render patches on many hosts, and return the clips as they finish.

    with Renderer(params.audio) as renderer:
        for index, clip in renderer.map(patches):        # float32 [2, samples], or RenderFailure
            ...

host_list.py says which hosts there are: real Live, or embedded ones, one per core by default. While
one lane of a host records, the others are set up, so a host never waits for the wire. Who drives
the hosts is one of two engines, told by UNMIXER_RENDER: `local` (this process speaks with every
host) or `ray` (an actor per host, ray_engine.py). A host that dies or falls silent is started anew
and its patches go to the others; a patch that fails on every try becomes a RenderFailure.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from unmixer_core import config
from unmixer_core.errors import ConfigError, HostError
from unmixer_core.live.farm.host_list import HostSpec, configured, embedded
from unmixer_core.live.farm.pool import Clip, HostPool, PatchJob, PooledHost, ResultQueue
from unmixer_core.live.farm.supervisor import HostSupervisor
from unmixer_core.live.farm.workers import HostWorker
from unmixer_core.live.host import RenderFailure
from unmixer_core.live.ray.engine import RayEngine
from unmixer_core.live.session.take import Take
from unmixer_core.live.track.frozen import FrozenTrack
from unmixer_core.schema.patch import Patch

log = logging.getLogger(__name__)

QUEUED_PER_LANE = 2
ENGINES = ("local", "ray")


class Renderer:
    """Context manager.

    `n_hosts` hosts at most (default: all, or an embedded one per core), `lanes` per host; `engine`:
    of ENGINES (default: UNMIXER_RENDER). Raises HostErrors on entry when no host starts,
    ConfigError for what is set wrong.
    """

    def __init__(
        self,
        audio: config.Audio,
        n_hosts: int | None = None,
        *,
        lanes: int | None = None,
        trace: Path | None = None,
        host_options: Sequence[str] = (),
        engine: str | None = None,
    ) -> None:
        self._take = Take(audio.sample_rate, audio.clip_s, audio.velocity)
        self._trace = trace
        self._lanes = lanes
        self._options = tuple(host_options)
        self._n_hosts = n_hosts
        named = None if host_options else configured()
        self._specs = None if named is None else named[:n_hosts]
        self.engine = engine or os.environ.get("UNMIXER_RENDER") or ENGINES[0]
        if self.engine not in ENGINES:
            raise ConfigError(
                f"UNMIXER_RENDER is {self.engine!r}, but {' or '.join(ENGINES)} is expected."
            )
        self._ray = RayEngine(self._take, trace) if self.engine == "ray" else None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="unmixer-render", daemon=True
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._supervisors: list[HostSupervisor] = []
        self._pool = HostPool()

    def __enter__(self) -> Renderer:
        self._thread.start()
        try:
            self._call(self._start())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops the hosts that were started; on real Live, deletes the tracks that were made."""
        if self._loop.is_closed():
            return
        if not self._thread.is_alive():
            self._loop.close()
            return
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def map(self, patches: Iterable[Patch]) -> Iterator[tuple[int, Clip | RenderFailure]]:
        """(position, float32 [2, samples] or RenderFailure) as they finish.

        Takes from `patches` only what it can use.

        Raises a HostError that says why when no host is left.
        """
        results: ResultQueue = queue.SimpleQueue()
        self._call(self._register(results))
        waiting: dict[int, PatchJob] = {}
        source = enumerate(patches)
        try:
            while True:
                self._submit(source, waiting, results)
                if not waiting:
                    return
                outcome = results.get()
                if isinstance(outcome, HostError):
                    raise outcome
                del waiting[outcome[0]]
                yield outcome
        finally:
            for job in waiting.values():
                job.cancelled = True
            self._loop.call_soon_threadsafe(self._pool.result_queues.discard, results)

    def render(self, patches: Sequence[Patch]) -> list[Clip | RenderFailure]:
        """All patches, in their order."""
        finished = dict(self.map(patches))
        return [finished[i] for i in range(len(patches))]

    @property
    def frozen(self) -> FrozenTrack | None:
        """What these hosts cannot set; None when they can set everything.

        `frozen_of` makes a patch one they can render.
        """
        return self._pool.frozen

    def _submit(
        self,
        source: Iterator[tuple[int, Patch]],
        waiting: dict[int, PatchJob],
        results: ResultQueue,
    ) -> None:
        new = []
        while (
            len(waiting) < QUEUED_PER_LANE * self._pool.lanes
            and (item := next(source, None)) is not None
        ):
            job = PatchJob(*item, results)
            waiting[job.index] = job
            new.append(job)
        for job in new:
            if self.frozen is not None and (different := self.frozen.differences(job.patch)):
                reason = (
                    f"the template set has {'; '.join(map(str, different))}, which stock "
                    f"AbletonOSC cannot change."
                )
                results.put((job.index, RenderFailure(job.patch, reason)))
            else:
                self._loop.call_soon_threadsafe(self._pool.put, job)

    async def _register(self, results: ResultQueue) -> None:
        self._pool.result_queues.add(results)
        for supervisor in self._supervisors:
            supervisor.retry_now()

    async def _start(self) -> None:
        """Start all hosts at once and wait until each is ready or has failed.

        One ready host is enough.
        """
        if self._ray is not None:
            await self._ray.start()
        self._supervisors = [
            HostSupervisor(host, self._pool, self._take.clip_s) for host in self._hosts()
        ]
        self._tasks = [asyncio.create_task(supervisor.run()) for supervisor in self._supervisors]
        outcomes = await asyncio.gather(
            *(supervisor.started for supervisor in self._supervisors), return_exceptions=True
        )
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if len(failures) == len(outcomes):
            raise failures[0]
        self._pool.begun = True

    def _hosts(self) -> list[PooledHost]:
        """The hosts that this run may use, each with a worker here or in an actor."""
        specs = self._specs
        if specs is None:
            cores = self._ray.cores if self._ray is not None else os.cpu_count() or 1
            specs = embedded(self._n_hosts or cores, self._lanes, self._options)
        if len({spec.live is None for spec in specs}) > 1:
            log.warning(
                "embedded hosts and Live are two instruments: equal patches will not sound equal "
                "on all hosts."
            )
        specs = [replace(spec, lanes=self._lanes or spec.lanes) for spec in specs]
        return [self._host(spec) for spec in specs]

    def _host(self, spec: HostSpec) -> PooledHost:
        return (
            self._ray.host(spec)
            if self._ray is not None
            else HostWorker(spec, self._take, self._trace)
        )

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._ray is not None:
            await self._ray.stop()

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
