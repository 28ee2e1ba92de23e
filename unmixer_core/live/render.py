"""Patches → sound, on as many hosts and lanes as there are: the one door through which the pipeline renders.

    with Renderer(params.audio) as renderer:
        for index, clip in renderer.map(patches):   # as they finish; float32 [2, n] or a RenderFailure
            ...

With UNMIXER_LIVE_HOST set this is real Live (one host); otherwise embedded hosts are started, one per core. While one
lane of a host records, the others are set up, so a host never waits for the wire. A host that dies or falls silent is
started anew and its patches go back into the queue; a patch that fails on every try becomes a RenderFailure.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from unmixer_core.errors import ConfigError, HostError
from unmixer_core.live.frozen import Frozen
from unmixer_core.live.pool import Clip, Job, Pool, RenderFailure
from unmixer_core.live.recorder import Take
from unmixer_core.live.workers import EmbeddedWorker, LiveWorker, Worker
from unmixer_core.schema.patch import Patch

EMBEDDED_LANES = 2
LIVE_LANES = 4
QUEUED_PER_LANE = 2


class AudioSection(Protocol):
    """What is read of params.yaml's `audio` section."""

    sample_rate: int
    clip_s: float
    velocity: int


class Renderer:
    """Context manager. `n_hosts` embedded hosts (default: one per core), `lanes` per host; raises HostErrors on entry."""

    def __init__(
        self, audio: AudioSection, n_hosts: int | None = None, *, lanes: int | None = None, trace: Path | None = None,
        host_options: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._take = Take(audio.sample_rate, audio.clip_s, audio.velocity)
        self._live = bool(os.environ.get("UNMIXER_LIVE_HOST"))
        self.n_hosts = 1 if self._live else n_hosts or os.cpu_count() or 1
        self.lanes = lanes or (_live_lanes() if self._live else EMBEDDED_LANES)
        self._trace, self._host_options = trace, tuple(host_options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="unmixer-render", daemon=True)
        self._tasks: list[asyncio.Task[None]] = []
        self._pool = Pool(self.n_hosts)

    def __enter__(self) -> Renderer:
        self._thread.start()
        try:
            self._call(self._start())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops the hosts that were started; on real Live, deletes the tracks that were made."""
        if self._loop.is_closed():
            return
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def map(self, patches: Iterable[Patch]) -> Iterator[tuple[int, Clip | RenderFailure]]:
        """(position, float32 [2, samples] or RenderFailure) as they finish; takes from `patches` only what it can use.

        Raises the last host's HostError when no host is left.
        """
        results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._call(self._register(results))
        waiting: dict[int, Job] = {}
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
            self._loop.call_soon_threadsafe(self._pool.inboxes.discard, results)

    def render(self, patches: Sequence[Patch]) -> list[Clip | RenderFailure]:
        """All patches, in their order."""
        finished = dict(self.map(patches))
        return [finished[i] for i in range(len(patches))]

    @property
    def frozen(self) -> Frozen | None:
        """What these hosts cannot set; None when they can set everything. `frozen_of` makes a patch one they can render."""
        return self._pool.frozen

    def _submit(
        self, source: Iterator[tuple[int, Patch]], waiting: dict[int, Job], results: queue.SimpleQueue[Any]
    ) -> None:
        new = []
        while len(waiting) < QUEUED_PER_LANE * self.n_hosts * self.lanes and (item := next(source, None)) is not None:
            job = Job(*item, results)
            waiting[job.index] = job
            new.append(job)
        for job in new:
            if self.frozen is not None and (different := self.frozen.differences(job.patch)):
                reason = f"the template set has {'; '.join(map(str, different))}, which stock AbletonOSC cannot change."
                results.put((job.index, RenderFailure(job.patch, reason)))
            else:
                self._loop.call_soon_threadsafe(self._pool.jobs.put_nowait, job)

    async def _register(self, results: queue.SimpleQueue[Any]) -> None:
        self._pool.inboxes.add(results)
        if len(self._pool.lost) == self.n_hosts:
            results.put(self._pool.lost[-1])

    async def _start(self) -> None:
        """Starts all hosts at once and waits for the first word of each."""
        workers = [self._worker() for _ in range(self.n_hosts)]
        self._tasks = [asyncio.create_task(worker.run(self._pool)) for worker in workers]
        await asyncio.gather(*(worker.started for worker in workers))

    def _worker(self) -> Worker:
        if self._live:
            return LiveWorker(self._take, self.lanes, self._trace)
        return EmbeddedWorker(self._take, self.lanes, self._trace, self._host_options)

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def _live_lanes() -> int:
    text = os.environ.get("UNMIXER_LIVE_LANES") or str(LIVE_LANES)
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"UNMIXER_LIVE_LANES is {text!r}, but a whole number of 1 or more is expected.")
    return int(text)
