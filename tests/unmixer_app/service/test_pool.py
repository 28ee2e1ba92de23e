"""Searchers that break in every way: the job is told why, and the next one is searched.

A puppet searches.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unmixer_app.service import pool as pools
from unmixer_app.service.meters import Meters
from unmixer_app.service.pool import SearcherPool, size_of
from unmixer_app.service.renders import Renders
from unmixer_app.service.settings import ServiceSettings
from unmixer_app.service.store import CANCELLED, DONE, FAILED, RUNNING, QueuedJob, Store
from unmixer_core.system.child import Child, environment

PUPPET = "tests.unmixer_app.service.puppet"
HEARD = {"note": 48, "gate_s": 0.5, "notes": [48], "remarks": [], "about": {}}
WITHIN_S = 120.0


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SearcherPool]:
    monkeypatch.setattr(pools, "PAUSES_S", (0.01,))
    monkeypatch.setattr(SearcherPool, "searcher", lambda self: Child(PUPPET))
    with Store.open(tmp_path, 64) as store:
        yield SearcherPool(store, ServiceSettings(folder=tmp_path), Meters())


def add(pool: SearcherPool, act: str) -> str:
    identity = f"{len(pool.store.ids()):016x}"
    pool.folder(identity).mkdir(parents=True)
    pool.store.add(QueuedJob(identity, "a.wav", {"act": act}, HEARD))
    return identity


def state(pool: SearcherPool, identity: str) -> str:
    job = pool.store.get(identity)
    assert job is not None
    return job.state


async def until(done: Callable[[], object]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not done():
            await asyncio.sleep(0.01)


def work(pool: SearcherPool, *jobs: str) -> list[QueuedJob]:
    """Runs the pool until these jobs have ended."""

    async def run() -> None:
        pool.start()
        try:
            await until(lambda: all(pool.store.get(job).ended for job in jobs))  # type: ignore[union-attr]
            await until(lambda: pool.ready == 1)
        finally:
            await pool.stop()

    asyncio.run(run())
    return [job for job in map(pool.store.get, jobs) if job is not None]


@pytest.mark.parametrize("act", ["garbage", "long"])
def test_a_searcher_that_talks_nonsense_fails_its_job_and_is_replaced(pool: SearcherPool, act: str):
    broken, good = work(pool, add(pool, act), add(pool, "done"))
    assert (broken.state, good.state) == (FAILED, DONE) and "the search broke" in broken.message


@pytest.mark.parametrize("method", ["progress", "claim", "weigh"])
def test_a_locked_database_ends_no_searcher(
    pool: SearcherPool, monkeypatch: pytest.MonkeyPatch, method: str
):
    original, left = getattr(pool.store, method), [1]

    def flaky(*values: object) -> object:
        if left[0]:
            left[0] -= 1
            raise sqlite3.OperationalError("database is locked")
        return original(*values)

    monkeypatch.setattr(pool.store, method, flaky)
    first, second = work(pool, add(pool, "done"), add(pool, "done"))
    assert first.ended and second.state == DONE and not pool.problem
    assert first.state == (FAILED if method == "progress" else DONE)


def test_a_job_whose_end_cannot_be_written_ends_as_soon_as_it_can(
    pool: SearcherPool, monkeypatch: pytest.MonkeyPatch
):
    original, left = pool.store.end, [3]

    def full(*values: object) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise sqlite3.OperationalError("database or disk is full")
        original(*values)

    monkeypatch.setattr(pool.store, "end", full)
    first, second = work(pool, add(pool, "done"), add(pool, "done"))
    assert first.state == FAILED and "disk is full" in first.message and second.state == DONE


def test_an_idle_searcher_that_dies_is_replaced_before_the_next_job(
    pool: SearcherPool, monkeypatch: pytest.MonkeyPatch
):
    made: list[Child] = []

    def searcher(self: SearcherPool) -> Child:
        made.append(Child(PUPPET))
        return made[-1]

    monkeypatch.setattr(SearcherPool, "searcher", searcher)

    async def run() -> None:
        pool.start()
        try:
            await until(lambda: pool.ready == 1)
            made[0].signal(signal.SIGKILL)
            await until(lambda: len(made) == 2 and pool.ready == 1)
        finally:
            await pool.stop()

    asyncio.run(run())


def test_a_search_that_waits_again_is_not_counted_as_one_that_ended(pool: SearcherPool):
    (job,) = work(pool, add(pool, "die"))
    assert job.state == FAILED and job.attempts == 3
    text = pool.meters.text(pool.store.counts(), 1, 0).decode()
    assert (
        'unmixer_searches_total{state="failed"} 1.0' in text
        and 'unmixer_searches_total{state="queued"}' not in text
    )


def test_what_a_job_takes_is_counted_after_its_leavings_are_gone(pool: SearcherPool):
    (job,) = work(pool, add(pool, "done"))
    assert job.bytes == size_of(pool.folder(job.id)) == len("{}") == pool.store.total_bytes()


def test_a_cancelled_search_is_cancelled_whatever_its_process_still_writes(
    pool: SearcherPool, monkeypatch: pytest.MonkeyPatch
):
    identity = add(pool, "stand")
    (pool.folder(identity) / "input.wav").write_bytes(bytes(100))
    (pool.folder(identity) / "best.wav").write_bytes(bytes(100))
    original = os.lstat

    def vanishing(path: str, **more: int) -> os.stat_result:
        if str(path).endswith("best.wav"):
            raise FileNotFoundError(path)
        return original(path, **more)

    async def run() -> None:
        pool.start()
        try:
            await until(
                lambda: state(pool, identity) == RUNNING and pool.store.get(identity).progress
            )  # type: ignore[union-attr]
            with monkeypatch.context() as patch:
                patch.setattr(os, "lstat", vanishing)
                patch.setattr(Path, "stat", vanishing)
                pool.cancel(pool.store.get(identity), False)  # type: ignore[arg-type]
                assert state(pool, identity) == CANCELLED and pool.store.total_bytes() == 100
        finally:
            await pool.stop()

    asyncio.run(run())


def test_a_renderer_that_dies_is_replaced_though_nobody_renders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("unmixer_app.service.renders.PAUSES_S", (0.01,))
    renders = Renders(tmp_path, Meters())
    renders._child = Child(PUPPET)

    async def run() -> None:
        renders.start()
        try:
            await until(lambda: renders.ready)
            first = renders._child.pid
            renders._child.signal(signal.SIGKILL)
            await until(lambda: renders.ready and renders._child.pid != first)
        finally:
            await renders.stop()
        assert renders._child.pid is None

    asyncio.run(run())


def test_no_child_gets_a_secret_and_the_decoder_gets_next_to_nothing():
    given = {
        "PATH": "/bin",
        "HOME": "/root",
        "LANG": "C",
        "UNMIXER_OSC_PORT": "1",
        "UNMIXER_LIVE_HOST": "10.0.0.1",
        "UNMIXER_THREADS": "9",
        "UNMIXER_SERVE_TOKEN": "0123456789abcdef",
        "AWS_SECRET_ACCESS_KEY": "x",
        "GOOGLE_APPLICATION_CREDENTIALS": "x",
        "HF_TOKEN": "x",
        "DB_PASSWORD": "x",
        "OPENAI_API_KEY": "x",
        "KEYBOARD": "us",
    }
    ours = {
        "UNMIXER_THREADS",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "GOMP_SPINCOUNT",
        "UNMIXER_TRACKING",
    }
    assert set(environment(given, 2, bare=False)) - ours == {
        "PATH",
        "HOME",
        "LANG",
        "UNMIXER_OSC_PORT",
        "KEYBOARD",
    }
    assert set(environment(given, 2, bare=True)) - ours == {"PATH", "HOME", "LANG"}
    assert environment(given, 2, bare=True)["UNMIXER_THREADS"] == "2"
