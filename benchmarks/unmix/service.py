"""The service under load, on the machine's own cores.

    python -m benchmarks.unmix.service [--uploads 32] [--jobs 200] [--tiny] [--models models]
        [--only concurrent killed]

`concurrent`: many uploads at once. The service accepts all of them, each ends, and GET /health,
asked every 50 ms, stays quick. `memory`: many quick jobs in a queue. Resident memory of the server
and its processes does not grow from the first quarter to the end. `killed`: kill -9 with jobs
queued and running, then a new start. Every accepted job ends. `render`: POST /render on a warm
host, with and without a search at the same time. `cancel`: the time from DELETE until the searcher
takes its next job.

`--tiny` uses an untrained model of the tests' size. Each part prints a line. The last line is one
JSON object of all parts. The exit status is 1 when a bar does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import numpy as np
import psutil

from tests.unmixer_app.serving import Server, models, served, sound
from unmixer_core import config, sampling
from unmixer_core.system.json_types import Json

REPO = Path(__file__).resolve().parents[2]
ASK_EVERY_S = 0.05
#: Bars: 95th percentile of GET /health, longest cancellation, longest render, growth of memory.
HEALTH_MS = 200.0
CANCEL_S = 2.0
RENDER_S = 1.0
GROWTH = 1.10
#: Jobs that the queue holds: more than the concurrent uploads.
QUEUE = 64
RENDERS = 20
CANCELS = 5
#: Jobs in the queue and running when the server is killed.
KILLED_JOBS = 12
#: Seconds after which a job hangs.
JOB_S = 3600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; return the exit status, 1 when a bar does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--uploads", type=int, default=32)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--models", type=Path, default=REPO / "models")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args(arguments)
    found: Json = {"cores": os.cpu_count()}
    with tempfile.TemporaryDirectory(prefix="unmixer-serve-") as folder:
        place = Path(folder)
        known = models(place / "models") if options.tiny else options.models
        with served(
            place / "data",
            known,
            UNMIXER_SERVE_QUEUE=str(QUEUE),
            UNMIXER_THREADS=str(min(2, os.cpu_count() or 1)),
        ) as server:
            for name in options.only:
                found[name] = PARTS[name](server, options)
                print(json.dumps({name: found[name]}), flush=True)
    found["holds"] = {name: HOLDS[name](found[name]) for name in options.only}
    print(json.dumps(found))
    return 0 if all(found["holds"].values()) else 1


def _concurrent(server: Server, options: argparse.Namespace) -> Json:
    """Many uploads at once, with GET /health at the same time."""
    n = options.uploads
    start = time.perf_counter()
    with _health(server) as waits_ms:
        with ThreadPoolExecutor(n) as crowd:
            answers = list(crowd.map(lambda i: _upload(server, i), range(n)))
        accepted_s = time.perf_counter() - start
        states = _finished(server, [answer for answer in answers if answer])
    return {
        "uploads": n,
        "accepted": sum(answer is not None for answer in answers),
        "accepted_s": round(accepted_s, 1),
        "ended": {state: states.count(state) for state in sorted(set(states))},
        "seconds": round(time.perf_counter() - start, 1),
        "health_p50_ms": round(statistics.median(waits_ms), 1),
        "health_p95_ms": round(float(np.percentile(waits_ms, 95)), 1),
        "health_max_ms": round(max(waits_ms), 1),
        "asked": len(waits_ms),
    }


def _upload(server: Server, i: int) -> str | None:
    """Upload over a new connection; return the job's id, or None when it is refused."""
    with httpx2.Client(base_url=server.url, timeout=120.0) as client:
        answer = client.post(
            "/unmix",
            files={"file": (f"{i}.wav", sound(40 + i % 24))},
            data={"fast": "true", "note": str(40 + i % 24)},
        )
    return str(answer.json()["id"]) if answer.status_code == 202 else None


@contextmanager
def _health(server: Server) -> Iterator[list[float]]:
    """Ask GET /health in a thread, over one connection; yield the milliseconds so far."""
    waits_ms: list[float] = []
    over = threading.Event()

    def ask() -> None:
        with httpx2.Client(base_url=server.url, timeout=60.0) as client:
            while not over.wait(ASK_EVERY_S):
                start = time.perf_counter()
                assert client.get("/health").status_code == 200
                waits_ms.append(1000 * (time.perf_counter() - start))

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        yield waits_ms
    finally:
        over.set()
        asker.join()


def _finished(server: Server, jobs: Sequence[str]) -> list[str]:
    return [server.ended(job, JOB_S)["state"] for job in jobs]


def _memory(server: Server, options: argparse.Namespace) -> Json:
    """Resident memory in MiB after the first quarter of the jobs and after the last."""
    n = options.jobs
    ids: list[str] = []
    mib: dict[str, dict[str, float]] = {}
    start = time.perf_counter()
    for i in range(n):
        while (answer := _upload(server, i)) is None:
            time.sleep(0.5)
        ids.append(answer)
        if i + 1 in (n // 4, n):
            _finished(server, ids)
            mib["quarter" if i + 1 < n else "end"] = _resident(server)
    states = _finished(server, ids)
    return {
        "jobs": n,
        "done": states.count("done"),
        "seconds": round(time.perf_counter() - start, 1),
        "mib": mib,
    }


def _resident(server: Server) -> dict[str, float]:
    """Resident MiB by process: the server's, then the largest of each kind of child."""
    assert server.process is not None
    top = psutil.Process(server.process.pid)
    mib = {"server": round(top.memory_info().rss / 2**20, 1)}
    for child in top.children(recursive=True):
        # a child is named by its module: `python -m unmixer_app.service.searcher`
        ours = [w for w in child.cmdline() if w.startswith(("unmixer_app.", "unmixer_core."))]
        if ours:
            kind = ours[0]
            mib[kind] = max(mib.get(kind, 0.0), round(child.memory_info().rss / 2**20, 1))
    return mib


def _killed(server: Server, options: argparse.Namespace) -> Json:
    """kill -9 with jobs queued and running, and a new start."""
    uploads = [_upload(server, i) for i in range(KILLED_JOBS)]
    jobs = [job for job in uploads if job]

    def one_runs() -> bool:
        return any(job["state"] == "running" for job in server.client.get("/jobs").json())

    server.until(one_runs)
    ended = sum(_state(server, job) == "done" for job in jobs)
    server.kill()
    server.start()
    states = _finished(server, jobs)
    return {
        "accepted": len(jobs),
        "ended_before": ended,
        "states": {state: states.count(state) for state in sorted(set(states))},
    }


def _renders(server: Server, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of POST /render of random full patches: alone, and during a search.

    Each render is compared with a job's recording.
    """
    params = config.load(REPO / "params.yaml")
    job = server.unmix()
    server.ended(job)
    patches = [sampling.draw("full", "test", i, 3, params.sample).to_dict() for i in range(RENDERS)]
    alone = [_seconds(server, job, patch) for patch in patches]
    busy = server.unmix(fast="false")
    server.until(lambda: _state(server, busy) == "running")
    beside = [_seconds(server, job, patch) for patch in patches]
    server.client.delete(f"/jobs/{busy}")
    return {
        "alone_median_s": round(statistics.median(alone), 3),
        "alone_max_s": round(max(alone), 3),
        "beside_median_s": round(statistics.median(beside), 3),
        "beside_max_s": round(max(beside), 3),
    }


def _seconds(server: Server, job: str, patch: Json) -> float:
    start = time.perf_counter()
    assert server.client.post("/render", params={"job": job}, json=patch).status_code == 200
    return time.perf_counter() - start


def _state(server: Server, job: str) -> str:
    return str(server.client.get(f"/jobs/{job}").json()["state"])


def _cancel(server: Server, options: argparse.Namespace) -> dict[str, float]:
    """Seconds from DELETE until the searcher takes the next job, at several points of a search."""
    taken = []
    for i in range(CANCELS):
        job = server.unmix(fast="false")
        server.until(lambda job=job: _state(server, job) == "running")
        time.sleep(0.7 + 2.5 * i)  # a later step of the search each time
        following = server.unmix()
        start = time.perf_counter()
        server.client.delete(f"/jobs/{job}")
        while _state(server, following) == "queued":
            time.sleep(0.02)
        taken.append(time.perf_counter() - start)
        server.ended(following)
    return {"median_s": round(statistics.median(taken), 2), "max_s": round(max(taken), 2)}


def _ended(states: dict[str, int]) -> int:
    return states.get("done", 0) + states.get("failed", 0)


PARTS: dict[str, Callable[[Server, argparse.Namespace], Json]] = {
    "render": _renders,
    "cancel": _cancel,
    "concurrent": _concurrent,
    "memory": _memory,
    "killed": _killed,
}
#: Whether the figures of a part meet its bars.
HOLDS: dict[str, Callable[[Json], bool]] = {
    "render": lambda found: found["alone_max_s"] <= RENDER_S,
    "cancel": lambda found: found["max_s"] <= CANCEL_S,
    "concurrent": lambda found: (
        found["accepted"] == found["uploads"] == _ended(found["ended"])
        and found["health_p95_ms"] <= HEALTH_MS
    ),
    "memory": lambda found: (
        found["done"] == found["jobs"] and _total(found, "end") <= GROWTH * _total(found, "quarter")
    ),
    "killed": lambda found: found["accepted"] == _ended(found["states"]),
}


def _total(found: Json, when: str) -> float:
    return float(sum(found["mib"][when].values()))


if __name__ == "__main__":
    sys.exit(main())
