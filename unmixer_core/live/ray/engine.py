"""The Ray engine: an actor per host wraps the same worker.

The pool that hands out patches is the local engine's too.

Ray ends a driver's process when the cluster's head dies, without a word. So the driver is a process
of its own (ray_driver.py), reached over a pipe, and this module never imports Ray: when the driver
is gone every host is lost with it, and the next `open` starts another driver, which finds the
cluster again or says in a sentence that it is not there.

RAY_ADDRESS names the cluster; without it Ray is started on this machine and ends with us.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unmixer_core.errors import HostDied, HostError
from unmixer_core.live.farm.host_list import HostSpec
from unmixer_core.live.farm.hosts import REPOSITORY
from unmixer_core.live.farm.pool import Clip, ReadyHost, SessionLost
from unmixer_core.live.session.take import Take
from unmixer_core.schema.patch import Patch

DRIVER = "unmixer_core.live.ray.driver"
HEADER_BYTES = 8
STOP_WITHIN_S = 10.0
CONNECT_WITHIN_S = 3.0
#: How long Ray's own processes wait for a head that is gone (Ray's default is 60).
GCS_PATIENCE_S = 10
START_HEAD = (
    "start it with `ray start --head --disable-usage-stats` on its machine, or unset "
    "RAY_ADDRESS to use this one alone"
)
GO_ON = "start the same command again and it goes on"


class RayEngine:
    """One driver process. `cores` of the cluster are known after `start`."""

    def __init__(self, take: Take, trace: Path | None = None) -> None:
        self.take, self.trace = take, trace
        self.cores = 0
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._calls: dict[int, asyncio.Future[tuple[str, Any]]] = {}
        self._ids = itertools.count()
        self._starting = asyncio.Lock()
        self._log = tempfile.NamedTemporaryFile(prefix="unmixer-ray-", suffix=".log")
        self._specs: list[HostSpec] = []

    def host(self, spec: HostSpec) -> RayHost:
        self._specs.append(spec)
        return RayHost(self, spec, len(self._specs) - 1)

    @property
    def address(self) -> str:
        return os.environ.get("RAY_ADDRESS", "")

    @property
    def pid(self) -> int | None:
        """Of the driver's process."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Starts the driver unless it runs. Raises HostError that says why Ray is not there."""
        async with self._starting:
            if (
                self._process is not None
                and self._process.returncode is None
                and self._reader is not None
            ):
                if not self._reader.done():
                    return
            await self.stop()
            if find_spec("ray") is None:
                raise HostError(
                    "UNMIXER_RENDER is ray, but Ray is not installed: pip install -r "
                    "requirements-scale.txt -c constraints.txt"
                    ", or unset UNMIXER_RENDER."
                )
            await asyncio.to_thread(_check_head, self.address)
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                DRIVER,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=self._log,
                env=_environment(),
                cwd=REPOSITORY,
            )
            self._reader = asyncio.create_task(self._read(self._process))
            self.cores = await self._call("connect", self.address, self.take, self.trace)

    async def call(self, index: int, method: str, *arguments: Any) -> Any:
        """What the host's actor answers.

        Raises HostErrors, SessionLost when actor or driver is gone.
        """
        return await self._call(method, index, self._specs[index], *arguments)

    async def _call(self, method: str, *arguments: Any) -> Any:
        process = self._process
        if process is None or process.stdin is None or process.returncode is not None:
            raise SessionLost(HostDied("Ray's driver process does not run."))
        number, answer = next(self._ids), asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        try:
            process.stdin.write(packed((number, method, arguments)))
            with suppress(ConnectionError):  # the reader tells that it is gone
                await process.stdin.drain()
            kind, value = await answer
        finally:
            self._calls.pop(number, None)
            if not answer.done() or answer.cancelled():
                with suppress(ConnectionError, RuntimeError):
                    process.stdin.write(packed((number, "cancel", ())))
        if kind == "lost":
            raise SessionLost(value)
        if kind == "failed":
            raise value
        return value

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Hands out answers until the driver ends.

        Then nothing more will come for those who wait.
        """
        assert process.stdout is not None
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                size = int.from_bytes(await process.stdout.readexactly(HEADER_BYTES), "big")
                number, kind, value = pickle.loads(await process.stdout.readexactly(size))
                if (answer := self._calls.get(number)) is not None and not answer.done():
                    answer.set_result((kind, value))
        code = await process.wait()
        gone = HostDied(
            f"Ray's driver (process {process.pid}) ended with status {code}, as it does when the "
            f"head of the cluster"
            f"{f' at {self.address}' if self.address else ''} dies{self._last_log_line()}."
        )
        for answer in self._calls.values():
            if not answer.done():
                answer.set_result(("lost", gone))

    def _last_log_line(self) -> str:
        lines = (
            Path(self._log.name).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        )
        return f": {lines[-1][-300:].rstrip('.')}" if lines else ""

    async def stop(self) -> None:
        """Ends the driver and with it the actors.

        A Ray that it started on this machine ends too.
        """
        process, reader, self._process, self._reader = self._process, self._reader, None, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if reader is not None:
            await asyncio.gather(reader, return_exceptions=True)


class RayHost:
    """Implements pool.Host by an actor."""

    def __init__(self, engine: RayEngine, spec: HostSpec, index: int) -> None:
        self._engine, self._spec, self._index = engine, spec, index

    @property
    def name(self) -> str:
        return f"{self._spec.name} (Ray)"

    async def open(self) -> ReadyHost:
        await self._engine.start()
        return await self._engine.call(self._index, "open")

    async def render(self, patch: Patch) -> Clip:
        return await self._engine.call(self._index, "render", patch)

    async def ping(self) -> None:
        await self._engine.call(self._index, "ping")

    async def close(self) -> None:
        with suppress(HostError):  # an actor that is gone has nothing left to close
            await self._engine.call(self._index, "close")


def packed(message: Any) -> bytes:
    """A message as it travels between us and the driver: its size, and a pickle."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def _check_head(address: str) -> None:
    """Raises HostError when nobody listens there.

    Ray itself would try for a minute and then end the process.
    """
    if not address or address in ("auto", "local") or address.startswith("ray://"):
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_WITHIN_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise HostError(
            f"no Ray cluster answers at RAY_ADDRESS {address!r} ({error}): {START_HEAD}; {GO_ON}."
        ) from error


def _environment() -> Mapping[str, str]:
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    return {
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(GCS_PATIENCE_S),
        **_token_mode(),
        **os.environ,
        "PYTHONPATH": path,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_DEDUP_LOGS": "0",
    }


def _token_mode() -> Mapping[str, str]:
    """`ray start --head` asks for the token it finds (2.59 and later), but a driver that joins
    sends one only when told to.
    """
    given = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return (
        {"RAY_AUTH_MODE": "token"}
        if given or (Path.home() / ".ray" / "auth_token").is_file()
        else {}
    )
