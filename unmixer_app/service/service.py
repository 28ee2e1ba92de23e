"""The service itself, which knows no HTTP.

Accepts sounds, keeps jobs, renders, pushes, and clears away what is overdue.

async with Service.open(Settings()) as service:
    job = await service.accept("kick.wav", file, {"fast": True})
    async for job in service.changes(job.id): ...
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from unmixer_app.answer import patch_file
from unmixer_app.service import folder as service_folder
from unmixer_app.service import heard_file, options
from unmixer_app.service.decoder import UPLOAD
from unmixer_app.service.meters import Meters
from unmixer_app.service.pool import ANSWER, SearcherPool
from unmixer_app.service.renders import Renders
from unmixer_app.service.searcher import BEST
from unmixer_app.service.settings import ServiceSettings
from unmixer_app.service.store import CANCELLED, DONE, FAILED, RUNNING, QueuedJob, Store
from unmixer_core import config
from unmixer_core.errors import AudioError, UnmixerError
from unmixer_core.live import push as pushing
from unmixer_core.schema.patch import Patch
from unmixer_core.system import files
from unmixer_core.system.child import ROOT, Child, ChildEnded, Failed
from unmixer_core.system.json_types import Json

log = logging.getLogger(__name__)

DECODERS = 2
DECODE_WITHIN_S = 90.0
PUSH_WITHIN_S = 60.0
CLEAR_EVERY_S = 60.0
LISTED = 50
NAME = re.compile(r"[^\w .,()\[\]+&'#-]")
NAME_LENGTH = 80


class NotReady(UnmixerError):
    """The service cannot search now; the sentence says why."""


class Unknown(UnmixerError):
    """There is no such job, or no such part of it."""


class NotYet(UnmixerError):
    """The job has no answer (yet)."""


class DiskFull(UnmixerError):
    """There is no room for what was sent."""


#: Why the decoder failed, where not because of the file.
BLAME: dict[str, type[UnmixerError]] = {"disk": DiskFull, "machine": NotReady}


class Service:
    """Use `Service.open`. Methods raise UnmixerErrors whose sentences are meant for the user."""

    def __init__(self, settings: ServiceSettings, store: Store) -> None:
        self.settings, self.store, self.meters = settings, store, Meters()
        self.params = config.load(ROOT / "params.yaml")
        self.pool = SearcherPool(store, settings, self.meters)
        self.renders = Renders(settings.folder, self.meters)
        self.begun_s = time.time()
        self._decoders: asyncio.Queue[Child] = asyncio.Queue()
        self._push = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: ServiceSettings) -> AsyncIterator[Service]:
        """A service that runs, with its store. Raises ConfigError."""
        with Store.open(settings.folder, settings.queue) as store:
            async with cls(settings, store).running() as service:
                yield service

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Service]:
        """Everything started; jobs of an earlier process wait again."""
        self._recover()
        for _ in range(DECODERS):
            self._decoders.put_nowait(Child("unmixer_app.service.decoder", bare=True))
        self.pool.start()
        self.renders.start()
        janitor = asyncio.create_task(self._keep_clear())
        try:
            yield self
        finally:
            janitor.cancel()
            await asyncio.gather(
                janitor, self.pool.stop(), self.renders.stop(), return_exceptions=True
            )
            while not self._decoders.empty():
                await self._decoders.get_nowait().stop()

    # --- jobs ---------------------------------------------------------------------------------

    async def accept(self, name: str, file: BinaryIO, asked: Json) -> QueuedJob:
        """A sound and its options as a job. Raises AudioError, ConfigError, QueueFull, NotReady."""
        options.constraints(asked)
        self.check()
        identity, shown = secrets.token_hex(8), display(name)
        folder = self.pool.folder(identity)
        with _on_failure(lambda: self._discard(folder)):
            folder.mkdir(parents=True)
            await asyncio.to_thread(_copy, file, folder / UPLOAD)
            heard = await self._decode(folder, shown, asked)
            return self._add(QueuedJob(identity, shown, asked, heard))

    def again(self, identity: str, asked: Json) -> QueuedJob:
        """A new job on the sound of an old one, with other options."""
        options.constraints(asked)
        self.check()
        old, new = self.get(identity), secrets.token_hex(8)
        source, target = self.pool.folder(old.id), self.pool.folder(new)
        with _on_failure(lambda: self._discard(target)):
            target.mkdir(parents=True)
            with _still_there(identity):
                for part in (heard_file.CLIP, heard_file.ABOUT):
                    shutil.copyfile(source / part, target / part)
            heard = _played(target / heard_file.ABOUT, asked)
            return self._add(QueuedJob(new, old.name, asked, heard))

    def get(self, identity: str) -> QueuedJob:
        """Raises Unknown."""
        job = self.store.get(identity)
        if job is None:
            days = self.settings.keep_s / 86400
            raise Unknown(
                f"there is no job {identity}; results are kept for {days:.3g} days, or until "
                f"there are too many."
            )
        return job

    def recent(self) -> list[QueuedJob]:
        return self.store.recent(LISTED)

    def changes(self, identity: str) -> AsyncIterator[QueuedJob]:
        return self.pool.changes(identity)

    def cancel(self, identity: str, keep: bool) -> QueuedJob:
        """Ends a job that has not ended. `keep`: with the best so far, if there is one."""
        job = self.get(identity)
        if not job.ended:
            self.pool.cancel(job, keep)
        return self.get(identity)

    def position(self, job: QueuedJob) -> int:
        return self.store.position(job.id)

    # --- what a job left ----------------------------------------------------------------------

    def part(self, identity: str, *names: str) -> Path:
        """A file of a job's answer, by fixed names. Raises Unknown, NotYet."""
        job = self.get(identity)
        if job.state != DONE:
            how = {FAILED: f"failed: {job.message}", CANCELLED: "was cancelled."}.get(
                job.state, "has no answer yet."
            )
            raise NotYet(f"job {identity} {how}")
        path = self.pool.folder(job.id).joinpath(ANSWER, *names)
        if not path.is_file():
            raise Unknown(f"job {identity} has no {'/'.join(names)}.")
        return path

    def sound(self, identity: str) -> bytes:
        """The answer's sound as WAV; while the search runs, that of the best so far.

        Raises Unknown, NotYet.
        """
        if self.get(identity).state == RUNNING:
            with suppress(FileNotFoundError):
                return (self.pool.folder(identity) / BEST).read_bytes()
        return self.content(identity, "rerender.wav")

    def content(self, identity: str, *names: str) -> bytes:
        """Of a file of a job's answer. Raises Unknown, NotYet."""
        path = self.part(identity, *names)
        with _still_there(identity):
            return path.read_bytes()

    def recorded(self, identity: str) -> bytes:
        """The note that is un-mixed, as WAV. Raises Unknown."""
        path = self.recording(identity)
        with _still_there(identity):
            return path.read_bytes()

    def recording(self, identity: str) -> Path:
        """The note that is un-mixed. Raises Unknown."""
        path = self.pool.folder(self.get(identity).id) / heard_file.CLIP
        if not path.is_file():
            raise Unknown(f"job {identity} has no recording.")
        return path

    def document(self, identity: str) -> Json:
        """patch.json's content."""
        found: Json = json.loads(self.content(identity, "patch.json"))
        return found

    def candidates(self, identity: str) -> list[Json]:
        """patch.json's of the other candidates, best first."""
        folder = self.part(identity, "patch.json").parent / "candidates"
        with _still_there(identity):
            return [
                json.loads(path.read_text(encoding="utf-8"))
                for path in sorted(folder.glob("*.json"))
            ]

    # --- patches ------------------------------------------------------------------------------

    async def render(self, patch: Patch, like: str | None) -> tuple[bytes, dict[str, float]]:
        """A patch as WAV, and, with a job, how similar it is to its recording."""
        return await self.renders.render(patch, self.recording(like).parent if like else None)

    async def push(self, identity: str, patch: Patch | None, adapt: bool) -> pushing.PushReport:
        """A patch (default: the job's answer) onto a new track of the configured Live.

        Every value is read back.
        """
        name = Path(self.get(identity).name).stem
        wanted = patch or patch_file.read(self.part(identity, "patch.json"))
        async with self._push:
            try:
                async with asyncio.timeout(PUSH_WITHIN_S):
                    return await pushing.push_async(
                        wanted, self.settings.live, name=f"{name} (un-mixed)", adapt=adapt
                    )
            except TimeoutError:
                raise NotReady(
                    f"Live at {self.settings.live} took more than {PUSH_WITHIN_S:.0f} s."
                ) from None

    # --- state --------------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """Why the service is not ready, as sentences; empty when it is."""
        searching = (
            [] if self.pool.ready else [self.pool.problem or "the model is still being loaded."]
        )
        return searching + (
            []
            if self.renders.ready
            else [self.renders.problem or "the host is still being started."]
        )

    def measurements(self) -> bytes:
        """Prometheus text."""
        return self.meters.text(self.store.counts(), self.pool.ready, self.store.total_bytes())

    def check(self) -> None:
        """Whether a sound would be accepted now. Raises NotReady, QueueFull."""
        if self.pool.problem and not self.pool.ready:
            raise NotReady(self.pool.problem)
        self.store.check_room()

    def _add(self, job: QueuedJob) -> QueuedJob:
        self.store.add(job)
        self.pool.wake()
        return job

    async def _decode(self, folder: Path, name: str, asked: Json) -> Json:
        """In a limited process.

        Raises AudioError when there is no note in it, DiskFull, and NotReady when it is not to
        blame.
        """
        child = await self._decoders.get()
        request = {
            "folder": str(folder),
            "name": name,
            "note": asked.get("note"),
            "gate_s": asked.get("gate_s"),
        }
        try:
            await self._reader(child)
            heard: Json = await child.answer(request, DECODE_WITHIN_S)
            return heard
        except Failed as error:
            raise BLAME.get(error.why, AudioError)(str(error)) from None
        except ChildEnded as error:
            raise NotReady(f"{name} could not be read: {error}") from None
        finally:
            self._decoders.put_nowait(child)
            (folder / UPLOAD).unlink(missing_ok=True)

    async def _reader(self, child: Child) -> None:
        """Starts a decoder that is not running. Raises NotReady, ChildEnded."""
        if child.pid is None:
            try:
                await child.start()
            except Failed as error:
                raise NotReady(str(error)) from None

    def _recover(self) -> None:
        """Jobs of an earlier process wait again; what it was in the middle of is removed."""
        for job in self.store.recover():
            log.info("job %s is %s again", job.id, job.state)
        known, jobs = self.store.ids(), self.settings.folder / "jobs"
        jobs.mkdir(exist_ok=True)
        for left in jobs.iterdir():
            if not service_folder.JOB_ID.fullmatch(left.name) or left.is_symlink():
                continue  # not ours
            if left.name not in known:
                self._discard(left)
                continue
            for work in left.glob("work-*"):
                self._discard(work)

    def _discard(self, path: Path) -> None:
        service_folder.discard(self.settings.folder, path)

    async def _keep_clear(self) -> None:
        while True:
            try:
                self.clear()
            except Exception:  # a locked database, a folder that cannot be read: tried again
                log.exception("clearing away")
            await asyncio.sleep(CLEAR_EVERY_S)

    def clear(self) -> None:
        """Removes results beyond the time and the size that are kept."""
        for job in self.store.overdue(self.settings.keep_s, self.settings.keep_bytes):
            self.store.remove(job.id)
            self._discard(self.pool.folder(job.id))


def display(name: str) -> str:
    """A file's name as it may be shown and stored; it never names a file."""
    text = NAME.sub("_", name.replace("\\", "/").rpartition("/")[2]).strip(" .") or "sound"
    stem, dot, suffix = text.rpartition(".")
    if len(text) <= NAME_LENGTH or not dot:
        return text[:NAME_LENGTH]
    return f"{stem[: NAME_LENGTH - 1 - len(suffix[:8])]}.{suffix[:8]}"


def _copy(file: BinaryIO, target: Path) -> None:
    file.seek(0)
    with target.open("xb") as out:
        shutil.copyfileobj(file, out, 1 << 20)


def _played(about: Path, asked: Json) -> Json:
    """heard.json with the note and the gate that are asked for now."""
    heard: Json = json.loads(about.read_text(encoding="utf-8"))
    if asked.get("note") is not None:
        heard |= {"note": asked["note"], "notes": [asked["note"]]}
    if asked.get("gate_s") is not None:
        heard |= {"gate_s": asked["gate_s"], "gates_s": [asked["gate_s"]]}
    told = heard.get("told", ())
    heard["told"] = [
        name for name in ("note", "gate_s") if asked.get(name) is not None or name in told
    ]
    files.write_text(about, json.dumps(heard))
    return heard


@contextmanager
def _still_there(identity: str) -> Iterator[None]:
    """A file that is cleared away while it is asked for is not there: raises Unknown."""
    try:
        yield
    except FileNotFoundError:
        raise Unknown(f"job {identity} was removed just now.") from None


@contextmanager
def _on_failure(clean: Callable[[], object]) -> Iterator[None]:
    """Runs `clean` when the block raises (a client that goes away included), and raises on."""
    try:
        yield
    except BaseException:
        clean()
        raise
