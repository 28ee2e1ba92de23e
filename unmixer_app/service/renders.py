"""Turned knobs to sound: one warm renderer, one patch at a time, a few waiting."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from pathlib import Path

from unmixer_app.answer import patch_file
from unmixer_app.service import folder as service_folder
from unmixer_app.service.meters import Meters
from unmixer_core.errors import UnmixerError
from unmixer_core.schema.patch import Patch
from unmixer_core.system.child import Child, ChildEnded

log = logging.getLogger(__name__)

#: Before a host that ended is started again; one that a render waits for is started at once.
PAUSES_S = (1.0, 5.0, 15.0, 30.0)
#: A host that lived so long begins with the first pause again.
STEADY_S = 60.0
WAITING = 8
WITHIN_S = 20.0


class Busy(UnmixerError):
    """More renders wait than may."""


class Renders:
    """`problem`: why there is no host, as a sentence, or ""."""

    def __init__(self, folder: Path, meters: Meters) -> None:
        self._folder, self._meters = folder / "renders", meters
        self._child = Child("unmixer_app.service.renderer")
        self._waiting = 0
        self._turn = asyncio.Lock()
        self._starting: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.problem = ""

    @property
    def ready(self) -> bool:
        return self._child.pid is not None and self._starting is not None and self._starting.done()

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.iterdir():
            if service_folder.RENDER.fullmatch(left.name) and not left.is_dir():
                left.unlink()
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        tasks = [task for task in (self._keeper, self._starting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._child.stop()

    async def render(self, patch: Patch, like: Path | None) -> tuple[bytes, dict[str, float]]:
        """WAV bytes and {"mss_db", "similarity_percent"} to the recording in the folder `like`, {}
        without one.

        Raises Busy, ChildEnded (the host died; it is being started again) and Failed (this patch
        cannot be rendered).
        """
        if self._waiting >= WAITING:
            raise Busy(f"{WAITING} renders are waiting already; try again in a second.")
        begun, out = time.perf_counter(), self._folder / f"{secrets.token_hex(8)}.wav"
        request = {
            "patch": patch_file.describe(patch),
            "out": str(out),
            "like": str(like) if like else None,
        }
        self._waiting += 1
        try:
            async with self._turn:
                await self._stand()
                found = await self._child.answer(request, WITHIN_S)
                return await asyncio.to_thread(out.read_bytes), found
        finally:
            self._waiting -= 1
            self._meters.rendered(time.perf_counter() - begun)
            with contextlib.suppress(OSError):
                out.unlink(missing_ok=True)

    async def _keep(self) -> None:
        """Starts a host, and another one whenever it ends, whether or not somebody renders."""
        failures = 0
        while True:
            begun = time.monotonic()
            try:
                await self._stand()
                log.warning("renderer: %s", await self._child.gone())
            except UnmixerError:
                pass  # `problem` holds it, and the log
            failures = 0 if time.monotonic() - begun > STEADY_S else failures + 1
            await asyncio.sleep(PAUSES_S[min(failures, len(PAUSES_S) - 1)])

    async def _stand(self) -> None:
        """Waits for the host that is being started; starts one when the last one is gone."""
        if self._starting is None or (self._starting.done() and self._child.pid is None):
            self._starting = asyncio.create_task(self._start())
        await asyncio.shield(self._starting)
        if self._child.pid is None:
            raise ChildEnded(self.problem or "the host could not be started.")

    async def _start(self) -> None:
        try:
            await self._child.start()
            self.problem = ""
        except Exception as error:
            sentence = (
                str(error)
                if isinstance(error, UnmixerError)
                else f"the host broke ({type(error).__name__}: {error})."
            )
            if sentence != self.problem:
                log.warning(
                    "renderer: %s",
                    sentence,
                    exc_info=None if isinstance(error, UnmixerError) else error,
                )
            self.problem = sentence
