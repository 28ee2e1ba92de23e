"""The pool of searcher processes.

Each searcher takes the job that has waited longest. Its progress goes to the store and to the
clients that follow the job.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing, suppress
from pathlib import Path

from unmixer_app.service import folder as service_folder
from unmixer_app.service.meters import Meters
from unmixer_app.service.searcher import BEST, DROP, KEEP
from unmixer_app.service.settings import ServiceSettings
from unmixer_app.service.store import (
    ATTEMPTS,
    CANCELLED,
    DONE,
    ENDED,
    FAILED,
    RUNNING,
    WAITING,
    QueuedJob,
    Store,
)
from unmixer_core.errors import UnmixerError
from unmixer_core.system.child import Child, ChildEnded, Failed
from unmixer_core.system.json_types import Json

log = logging.getLogger(__name__)

#: A search that was cancelled and still computes is ended by force, and its process started anew.
STOP_WITHIN_S = 1.5
PATIENCE_S = 180.0
#: Before a searcher that did not start is tried again.
PAUSES_S = (1.0, 5.0, 15.0, 30.0)
ANSWER = "answer"


class SearcherPool:
    """`settings.workers` searchers. `problem`: why none can be started, as a sentence, or ""."""

    def __init__(self, store: Store, settings: ServiceSettings, meters: Meters) -> None:
        self.store, self.settings, self.meters = store, settings, meters
        self.problem, self.ready = "", 0
        self._work = asyncio.Event()
        self._changes: dict[str, asyncio.Event] = {}
        self._running: dict[str, Child] = {}
        self._broken: dict[str, str] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._enders: set[asyncio.Task[None]] = set()

    def searcher(self) -> Child:
        return Child(
            "unmixer_app.service.searcher", (str(self.settings.models),), self.settings.threads
        )

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._keep_one()) for _ in range(self.settings.workers)]

    async def stop(self) -> None:
        """What runs waits again, without counting as an attempt."""
        interrupted = list(self._running)
        for task in (*self._tasks, *self._enders):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._enders, return_exceptions=True)
        for identity in interrupted:
            job = self.store.get(identity)
            if job is not None and job.state == RUNNING:
                self.store.put_back(identity, counted=False)

    def wake(self) -> None:
        """There is a new job."""
        self._work.set()

    async def changes(self, identity: str) -> AsyncIterator[QueuedJob]:
        """A job as it is, and again whenever that changes, until it has ended or is removed."""
        while (job := self.store.get(identity)) is not None:
            event = self._changes.setdefault(identity, asyncio.Event())
            yield job
            if job.ended:
                return
            if job.state == WAITING:  # its place in the queue moves with other jobs
                with suppress(TimeoutError):
                    await asyncio.wait_for(event.wait(), 1.0)
            else:
                await event.wait()

    def cancel(self, job: QueuedJob, keep: bool) -> None:
        """Ends a job that waits or runs.

        `keep`: a running one first writes the best it has found so far.
        """
        child = self._running.get(job.id)
        if child is None or not keep or "best" not in job.progress:
            self._end(job.id, CANCELLED)
            if child is not None:
                child.signal(DROP)
                ender = asyncio.create_task(self._make_sure(job.id, child))
                self._enders.add(ender)
                ender.add_done_callback(self._enders.discard)
        else:
            child.signal(KEEP)

    async def _make_sure(self, identity: str, child: Child) -> None:
        await asyncio.sleep(STOP_WITHIN_S)
        if self._running.get(identity) is child:
            await child.stop()

    async def _keep_one(self) -> None:
        """One searcher, started again whenever it ends; whatever goes wrong, it is tried again."""
        failures = 0
        while True:
            child = self.searcher()
            try:
                await child.start()
                self.problem = ""
                await self._feed(child)
                failures = 0
                continue
            except UnmixerError as error:
                self._trouble(str(error))
            except Exception as error:
                self._trouble(f"the searcher cannot work ({type(error).__name__}: {error}).", error)
            finally:
                await child.stop()
            await asyncio.sleep(PAUSES_S[min(failures, len(PAUSES_S) - 1)])
            failures += 1

    def _trouble(self, sentence: str, error: Exception | None = None) -> None:
        if sentence != self.problem:
            log.warning("searcher: %s", sentence, exc_info=error)
        self.problem = sentence

    async def _feed(self, child: Child) -> None:
        """Jobs for one searcher until it ends."""
        self.ready += 1
        try:
            while True:
                if child.pid is None:
                    raise await child.gone()
                self._give_up_broken()
                job = self.store.claim()
                if job is None:
                    self._work.clear()
                    await _first(self._work.wait(), child.gone())
                    continue
                self._tell(job.id)
                self._running[job.id] = child
                try:
                    await self._run(job, child)
                finally:
                    self._running.pop(job.id, None)
        except ChildEnded as error:
            log.warning("searcher: %s", error)
        finally:
            self.ready -= 1

    async def _run(self, job: QueuedJob, child: Child) -> None:
        folder = self.folder(job.id)
        work = folder / f"work-{job.attempts}"
        request = {
            "folder": str(folder),
            "out": str(work / ANSWER),
            "name": job.name,
            "options": job.options,
        }
        begun, document = time.perf_counter(), None
        try:
            async with aclosing(child.ask(request, PATIENCE_S)) as told:
                async for message in told:
                    document = message.get("done", document)
                    if "step" in message:
                        self.store.progress(job.id, message)
                        self._tell(job.id)
            self._finish(job, work, document)
        except Failed as error:
            self._end(job.id, FAILED, str(error))
        except ChildEnded as error:
            self._lost(job, error)
            raise
        except Exception as error:
            # a full disk, a locked database, a line that is no JSON: this job's end, not the pool's
            log.exception("job %s", job.id)
            self._broken[job.id] = (
                f"the search broke ({type(error).__name__}: {error}); the service's log says more."
            )
            self._give_up_broken()
        finally:
            service_folder.discard(self.settings.folder, work)
            (folder / BEST).unlink(missing_ok=True)
            self._weigh(job.id)
            state = getattr(self.store.get(job.id), "state", CANCELLED)
            if state in ENDED:
                self.meters.searched(time.perf_counter() - begun, state)

    def _give_up_broken(self) -> None:
        """Ends the jobs that broke; one whose end cannot be written now stays for the next time."""
        for identity, sentence in list(self._broken.items()):
            job = self.store.get(identity)
            if job is not None and job.state == RUNNING:
                self._end(identity, FAILED, sentence)
            self._broken.pop(identity, None)

    def _finish(self, job: QueuedJob, work: Path, document: Json | None) -> None:
        now = self.store.get(job.id)
        if now is None or now.state != RUNNING:
            return  # cancelled meanwhile
        if document is None:
            self._end(job.id, CANCELLED)
            return
        target = self.folder(job.id) / ANSWER
        service_folder.discard(self.settings.folder, target)
        (work / ANSWER).replace(target)
        self._end(job.id, DONE)

    def _lost(self, job: QueuedJob, error: ChildEnded) -> None:
        now = self.store.get(job.id)
        if now is None or now.state != RUNNING:
            return
        if job.attempts >= ATTEMPTS:
            self._end(
                job.id, FAILED, f"the search ended {ATTEMPTS} times without an answer: {error}"
            )
        else:
            self.store.put_back(job.id)
            self._tell(job.id)

    def _end(self, identity: str, state: str, message: str = "") -> None:
        self.store.end(identity, state, message)
        self._tell(identity)
        if state == CANCELLED:
            service_folder.discard(self.settings.folder, self.folder(identity) / ANSWER)
        self._weigh(identity)

    def _weigh(self, identity: str) -> None:
        self.store.weigh(identity, size_of(self.folder(identity)))

    def _tell(self, identity: str) -> None:
        """Wakes who listens to this job."""
        event = self._changes.pop(identity, None)
        if event is not None:
            event.set()

    def folder(self, identity: str) -> Path:
        """A job's folder. Raises UnmixerError when the stored id is not a plain name."""
        service_folder.check_id(identity)
        return self.settings.folder / "jobs" / identity


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder, while a process may still be writing and removing some."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total


async def _first(*waits: Awaitable[object]) -> None:
    """Returns when one of them does; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
