"""Embedded hosts as processes of our own.

Started on free ports, watched, stopped, and their recordings thrown away.

This module never imports the host: it starts `python -m unmixer_core.headless` and speaks OSC with
it, as with Live.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from unmixer_core.errors import HostDied, HostTimeout
from unmixer_core.live.osc.transport import Endpoint, UdpTransport

READY_WITHIN_S = 60.0
STOP_WITHIN_S = 3.0
REPOSITORY = Path(__file__).resolve().parents[3]
RAM_DISK = Path("/dev/shm")
ENOUGH_BYTES = 256 << 20
#: Of folders for recordings; followed by the id of the process that made it.
PREFIX = "unmixer-host-"


class EmbeddedHost:
    """One process. `options` are passed on to its command line."""

    def __init__(self, sample_rate: int, options: Sequence[str] = ()) -> None:
        self.sample_rate, self.options = sample_rate, tuple(options)
        self.endpoint = Endpoint()
        self._process: asyncio.subprocess.Process | None = None
        self._recordings: Path | None = None

    async def start(self) -> UdpTransport:
        """Starts the process and waits until it listens. Returns the transport to it.

        Raises HostDied when it ends instead, HostTimeout when it says nothing.
        """
        transport = UdpTransport(Endpoint(port=_free_port(), reply_port=0))
        self.endpoint = transport.endpoint
        folder = _recordings_folder()
        _sweep(folder)
        self._recordings = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=folder))
        command = (
            "--port",
            str(self.endpoint.port),
            "--reply-port",
            str(transport.reply_port),
            "--recordings",
            str(self._recordings),
            "--sample-rate",
            str(self.sample_rate),
            "--parent-pid",
            str(os.getpid()),
            *self.options,
        )
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "unmixer_core.headless",
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=_environment(),
            )
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                await self._ready()
        except BaseException as error:
            transport.close()
            await self.stop()
            if isinstance(error, TimeoutError):
                raise HostTimeout(
                    f"the embedded host did not get ready within {READY_WITHIN_S:.0f} s; is the "
                    f"machine overloaded?"
                ) from error
            raise
        return transport

    @property
    def recordings(self) -> Path:
        """The folder that this object made for the host's recordings and log."""
        assert self._recordings is not None
        return self._recordings

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def died(self) -> HostDied:
        """Waits until the process ends; the error that says how."""
        assert self._process is not None
        code = await self._process.wait()
        how = f"by signal {-code}" if code < 0 else f"with status {code}"
        last = self._last_log_line()
        return HostDied(
            f"the embedded host (process {self._process.pid}) ended "
            f"{how}{f': {last}' if last else ''}."
        )

    async def stop(self) -> None:
        """Ends the process, by force if it must, and removes its recordings."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(STOP_WITHIN_S):
                    await self._process.wait()
            except TimeoutError:
                with suppress(ProcessLookupError):  # it ended just now
                    self._process.kill()
                await self._process.wait()
        if self._process is not None and self._process.stdout is not None:
            await (
                self._process.stdout.read()
            )  # to its end, so that the event loop may close behind it
        if self._recordings is not None:
            shutil.rmtree(self._recordings, ignore_errors=True)

    async def _ready(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        while True:
            line = await self._process.stdout.readline()
            if not line:
                raise await self.died()
            if line.strip() == b"ready":
                return

    @property
    def _log(self) -> Path:
        return self.recordings / "host.log"

    def _last_log_line(self) -> str:
        try:
            lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1].rstrip(".") if lines else ""


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _sweep(folder: Path) -> None:
    """Removes what processes that were killed left behind."""
    for left in folder.glob(f"{PREFIX}*"):
        owner = left.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)


def _recordings_folder() -> Path:
    """Memory if there is some (a clip lives for milliseconds), the system's folder for temporary
    files otherwise.
    """
    try:
        roomy = os.access(RAM_DISK, os.W_OK) and shutil.disk_usage(RAM_DISK).free > ENOUGH_BYTES
    except OSError:
        roomy = False
    return RAM_DISK if roomy else Path(tempfile.gettempdir())


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
