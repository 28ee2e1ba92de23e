"""The host's rendering processes.

Jobs queue up, each worker takes one at a time, a worker that dies is replaced.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Protocol

from unmixer_core.headless.sound.job import SoundJob

log = logging.getLogger(__name__)
Done = Callable[[str], None]
WORKER_ENVIRONMENT = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
WORKER_ENVIRONMENT["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"  # fewer page faults after a fork


class Takes(Protocol):
    """Where recordings are handed in: the pool, or what a test puts around it."""

    def submit(self, job: SoundJob, done: Done) -> None:
        """Queue a job; `done` is called with its result."""


class RenderPool:
    """`submit(job, done)`: done("") once the file is written, done(sentence) if it failed, from
    a thread of the pool.
    """

    def __init__(self, workers: int) -> None:
        self._jobs: queue.Queue[tuple[SoundJob, Done] | None] = queue.Queue()
        self._processes: dict[int, subprocess.Popen[str]] = {}
        self._closed = False
        for slot in range(workers):
            self._processes[slot] = _start()
            threading.Thread(target=self._serve, args=(slot,), daemon=True).start()

    def submit(self, job: SoundJob, done: Done) -> None:
        """Queue a job; a worker takes it, and `done` is called with its result."""
        self._jobs.put((job, done))

    def close(self) -> None:
        """Ends the workers; jobs that were not finished are dropped."""
        self._closed = True
        for process in self._processes.values():
            process.kill()
            process.wait()

    def _serve(self, slot: int) -> None:
        while item := self._jobs.get():
            job, done = item
            error = self._render(slot, job)
            if not self._closed:
                done(error)

    def _render(self, slot: int, job: SoundJob) -> str:
        process = self._processes[slot]
        assert process.stdin and process.stdout
        try:
            process.stdin.write(job.to_line())
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
        except (OSError, ValueError):
            if not self._closed:
                log.warning("render worker %d ended; a new one takes over", slot)
                process.kill()
                process.wait()
                self._processes[slot] = _start()
            return f"the render worker ended with status {process.returncode}"
        return str(answer.get("error", ""))


def _start() -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "unmixer_core.headless.sound.worker"]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | WORKER_ENVIRONMENT,
    )
