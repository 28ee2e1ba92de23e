"""The service as a person runs it, in a process of its own: for tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from tests import hostile
from tests.model import tiny
from unmixer_core.model import checkpoint
from unmixer_core.proxy.proxy import RackProxy
from unmixer_core.system.json_types import Json

REPO = Path(__file__).resolve().parents[2]
WITHIN_S = 300.0


def models(folder: Path) -> Path:
    """An untrained network and proxy: quick to load, poor to hear."""
    checkpoint.save(folder / "full", tiny.model(), tiny.section(tiny.MODEL), {})
    RackProxy(8000, 0.4).save(folder / "proxy")
    return folder


def sound(note: float = 50.0, seconds: float = 0.6) -> bytes:
    return hostile.encoded(hostile.tone(seconds, note, channels=2))


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """`python -m unmixer_app.serve` on a free port. `environ`: UNMIXER_* on top of the defaults."""

    def __init__(self, folder: Path, models_folder: Path, **environ: str) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder.with_suffix(".log")
        self.environ = (
            os.environ
            | {
                "UNMIXER_SERVE_PORT": str(self.port),
                "UNMIXER_SERVE_FOLDER": str(folder),
                "UNMIXER_SERVE_MODELS": str(models_folder),
                "UNMIXER_SERVE_RATE": "1000",
                "UNMIXER_SERVE_WORKERS": "1",
                "UNMIXER_THREADS": "1",
            }
            | environ
        )
        token = self.environ.get("UNMIXER_SERVE_TOKEN")
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self.client = httpx2.Client(base_url=self.url, timeout=60.0, headers=headers)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, wait: bool = True) -> Server:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "unmixer_app.serve"], cwd=REPO, env=self.environ, stderr=log
            )
        self.until(lambda: self.client.get("/health").status_code == 200)
        if wait:
            self.until(lambda: self.client.get("/ready").status_code == 200)
        return self

    def until(self, done: Callable[[], bool], within_s: float = WITHIN_S) -> None:
        """Waits until `done()` is true; a refused connection counts as false."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            assert self.process is not None and self.process.poll() is None, self.log.read_text()
            try:
                if done():
                    return
            except httpx2.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"not within {within_s:.0f} s: {self.log.read_text()}")

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Ctrl-C."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            assert self.process.wait(30) == 0, self.log.read_text()
        self.client.close()

    def unmix(self, data: bytes | None = None, name: str = "sample.wav", **options: str) -> str:
        """A job's id."""
        answer = self.client.post(
            "/unmix", files={"file": (name, data or sound())}, data={"fast": "true"} | options
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def ended(self, identity: str, within_s: float = WITHIN_S) -> Json:
        """The job, once it has ended."""
        last: Json = {}

        def over() -> bool:
            nonlocal last
            last = self.client.get(f"/jobs/{identity}").json()
            return last["state"] in ("done", "failed", "cancelled")

        self.until(over, within_s)
        return last


@contextmanager
def served(folder: Path, models_folder: Path, **environ: str) -> Iterator[Server]:
    server = Server(folder, models_folder, **environ)
    try:
        yield server.start()
    finally:
        server.stop()


@contextmanager
def live() -> Iterator[dict[str, str]]:
    """An embedded host that stands for Live; yields the environment that leads to it."""
    port, reply = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_DGRAM)
    command = [
        sys.executable,
        "-m",
        "unmixer_core.headless",
        "--port",
        str(port),
        "--reply-port",
        str(reply),
        "--parent-pid",
    ]
    process = subprocess.Popen(
        [*command, str(os.getpid())], cwd=REPO, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline().strip() == "ready"
    try:
        yield {"UNMIXER_OSC_PORT": str(port), "UNMIXER_OSC_REPLY_PORT": str(reply)}
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
