"""A Ray cluster on this machine for benchmarks and tests, and the processes in which hosts and
actors run.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.processes import line_of, with_words


def actors() -> list[psutil.Process]:
    """The actors that hold hosts."""
    return with_words("HostActor", recursive=True)


def hosts() -> list[psutil.Process]:
    """The embedded hosts under this process, in actors or not."""
    return with_words("-m unmixer_core.headless --port", recursive=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Cluster:
    address: str
    processes: list[psutil.Process]

    def kill(self) -> None:
        """kill -9 of everything that belongs to the head.

        Its global control store, its raylet, their workers.
        """
        for process in self.processes:
            with suppress(psutil.Error):
                for child in process.children(recursive=True):
                    with suppress(psutil.Error):
                        child.kill()
                process.kill()
        psutil.wait_procs(self.processes, timeout=10.0)


@contextmanager
def head(cores: int) -> Iterator[Cluster]:
    """`ray start --head`, its files in a folder whose name is short (Ray puts sockets there,
    whose names may not be long).
    """
    with tempfile.TemporaryDirectory(
        prefix="ray-", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:
        cluster = _start(folder, cores)
        try:
            yield cluster
        finally:
            cluster.kill()


def _start(folder: str, cores: int) -> Cluster:
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--head",
        "--port",
        str(port),
        "--num-cpus",
        str(cores),
        "--include-dashboard",
        "false",
        "--disable-usage-stats",
        "--temp-dir",
        folder,
        "--object-store-memory",
        str(200 << 20),
    ]
    root = str(Path(__file__).resolve().parents[2])
    before = {process.pid for process in psutil.process_iter()}
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=180)
    if done.returncode:
        raise RuntimeError(f"ray start failed: {done.stderr[-500:]}")
    started = [p for p in psutil.process_iter() if p.pid not in before and folder in line_of(p)]
    return Cluster(f"127.0.0.1:{port}", started)
