"""The service under load, on the machine's own cores.

Nothing lost, health quick, memory flat, and a kill that loses nothing.

    python -m benchmarks.unmix.service [--uploads 32] [--jobs 200] [--tiny] [--models models]
    [--only concurrent killed]

`concurrent`: so many uploads at once; every one is accepted and ends, while GET /health is asked
every 50 ms. `memory`: so many quick jobs, one after the other in a queue; resident memory of the
server and of all its processes after the first quarter and at the end. `killed`: kill -9 with jobs
queued and running, start again; every accepted job ends. `render`: POST /render on a warm host,
with and without a search beside it. `cancel`: from DELETE to a searcher that takes its next job.
`--tiny`: an untrained model of the tests' size, where none is trained. A line a part; the last line
is one JSON object of all, and the exit status is 1 when one of the bars does not hold.
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
from typing import Any

import httpx2
import numpy as np
import psutil

from tests.unmixer_app.serving import Server, models, served, sound
from unmixer_core import config, sampling

REPO = Path(__file__).resolve().parents[2]
ASK_EVERY_S = 0.05
HEALTH_MS, CANCEL_S, RENDER_S, GROWTH = 200.0, 2.0, 1.0, 1.10
QUEUE, RENDERS, CANCELS = 64, 20, 5


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 1 when a bar does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--uploads", type=int, default=32)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--models", type=Path, default=REPO / "models")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args(arguments)
    found: dict[str, Any] = {"cores": os.cpu_count()}
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


def _concurrent(server: Server, options: argparse.Namespace) -> dict[str, Any]:
    """Uploads at once, and health all the while."""
    n = options.uploads
    begun = time.perf_counter()
    with _health(server) as waits_ms:
        with ThreadPoolExecutor(n) as crowd:
            answers = list(crowd.map(lambda i: _upload(server, i), range(n)))
        accepted_s = time.perf_counter() - begun
        states = _finished(server, [answer for answer in answers if answer])
    return {
        "uploads": n,
        "accepted": sum(answer is not None for answer in answers),
        "accepted_s": round(accepted_s, 1),
        "ended": {state: states.count(state) for state in sorted(set(states))},
        "seconds": round(time.perf_counter() - begun, 1),
        "health_p50_ms": round(statistics.median(waits_ms), 1),
        "health_p95_ms": round(float(np.percentile(waits_ms, 95)), 1),
        "health_max_ms": round(max(waits_ms), 1),
        "asked": len(waits_ms),
    }


def _upload(server: Server, i: int) -> str | None:
    """Uploads over a connection of its own; the job's id, or None when it is refused."""
    with httpx2.Client(base_url=server.url, timeout=120.0) as client:
        answer = client.post(
            "/unmix",
            files={"file": (f"{i}.wav", sound(40 + i % 24))},
            data={"fast": "true", "note": str(40 + i % 24)},
        )
    return str(answer.json()["id"]) if answer.status_code == 202 else None


@contextmanager
def _health(server: Server) -> Iterator[list[float]]:
    """Milliseconds of GET /health, asked all the while over one connection."""
    waits_ms: list[float] = []
    over = threading.Event()

    def ask() -> None:
        with httpx2.Client(base_url=server.url, timeout=60.0) as client:
            while not over.wait(ASK_EVERY_S):
                begun = time.perf_counter()
                assert client.get("/health").status_code == 200
                waits_ms.append(1000 * (time.perf_counter() - begun))

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        yield waits_ms
    finally:
        over.set()
        asker.join()


def _finished(server: Server, jobs: Sequence[str]) -> list[str]:
    return [server.ended(job, 3600.0)["state"] for job in jobs]


def _memory(server: Server, options: argparse.Namespace) -> dict[str, Any]:
    """Resident memory in MiB after the first quarter of the jobs and after the last."""
    n = options.jobs
    ids, seen, begun = list[str](), dict[str, dict[str, float]](), time.perf_counter()
    for i in range(n):
        while (answer := _upload(server, i)) is None:
            time.sleep(0.5)
        ids.append(answer)
        if i + 1 in (n // 4, n):
            _finished(server, ids)
            seen["quarter" if i + 1 < n else "end"] = _resident(server)
    states = _finished(server, ids)
    return {
        "jobs": n,
        "done": states.count("done"),
        "seconds": round(time.perf_counter() - begun, 1),
        "mib": seen,
    }


def _resident(server: Server) -> dict[str, float]:
    """MiB by process: the server's own, then the largest of each kind of child."""
    assert server.process is not None
    top, found = psutil.Process(server.process.pid), dict[str, float]()
    found["server"] = round(top.memory_info().rss / 2**20, 1)
    for child in top.children(recursive=True):
        kind = next(
            (
                word
                for word in child.cmdline()
                if word.startswith(("unmixer_app.", "unmixer_core."))
            ),
            "",
        )
        if kind:
            found[kind] = max(found.get(kind, 0.0), round(child.memory_info().rss / 2**20, 1))
    return found


def _killed(server: Server, options: argparse.Namespace) -> dict[str, Any]:
    """kill -9 with jobs queued and running, and a new start."""
    jobs = [job for job in (_upload(server, i) for i in range(12)) if job]
    server.until(
        lambda: any(job["state"] == "running" for job in server.client.get("/jobs").json())
    )
    ended = sum(server.client.get(f"/jobs/{job}").json()["state"] == "done" for job in jobs)
    server.kill()
    server.start()
    states = _finished(server, jobs)
    return {
        "accepted": len(jobs),
        "ended_before": ended,
        "states": {state: states.count(state) for state in sorted(set(states))},
    }


def _renders(server: Server, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of POST /render of random full patches, compared with a job's recording.

    Alone, and beside a search.
    """
    params = config.load(REPO / "params.yaml")
    job = server.unmix()
    server.ended(job)
    patches = [sampling.draw("full", "test", i, 3, params.sample).to_dict() for i in range(RENDERS)]
    alone = [_seconds(server, job, patch) for patch in patches]
    busy = server.unmix(fast="false")
    server.until(lambda: server.client.get(f"/jobs/{busy}").json()["state"] == "running")
    beside = [_seconds(server, job, patch) for patch in patches]
    server.client.delete(f"/jobs/{busy}")
    return {
        "alone_median_s": round(statistics.median(alone), 3),
        "alone_max_s": round(max(alone), 3),
        "beside_median_s": round(statistics.median(beside), 3),
        "beside_max_s": round(max(beside), 3),
    }


def _seconds(server: Server, job: str, patch: dict[str, Any]) -> float:
    begun = time.perf_counter()
    assert server.client.post("/render", params={"job": job}, json=patch).status_code == 200
    return time.perf_counter() - begun


def _cancel(server: Server, options: argparse.Namespace) -> dict[str, float]:
    """Seconds from DELETE until the searcher has taken the next job, cancelled at different
    points of a search.
    """
    taken = []
    for i in range(CANCELS):
        job = server.unmix(fast="false")
        server.until(lambda job=job: server.client.get(f"/jobs/{job}").json()["state"] == "running")
        time.sleep(0.7 + 2.5 * i)
        following, begun = server.unmix(), time.perf_counter()
        server.client.delete(f"/jobs/{job}")
        while server.client.get(f"/jobs/{following}").json()["state"] == "queued":
            time.sleep(0.02)
        taken.append(time.perf_counter() - begun)
        server.ended(following)
    return {"median_s": round(statistics.median(taken), 2), "max_s": round(max(taken), 2)}


def _ended(states: dict[str, int]) -> int:
    return states.get("done", 0) + states.get("failed", 0)


PARTS: dict[str, Callable[[Server, argparse.Namespace], dict[str, Any]]] = {
    "render": _renders,
    "cancel": _cancel,
    "concurrent": _concurrent,
    "memory": _memory,
    "killed": _killed,
}
#: The issue's bars.
HOLDS: dict[str, Callable[[dict[str, Any]], bool]] = {
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


def _total(found: dict[str, Any], when: str) -> float:
    return float(sum(found["mib"][when].values()))


if __name__ == "__main__":
    sys.exit(main())
