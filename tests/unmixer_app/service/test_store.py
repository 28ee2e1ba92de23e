"""The laws of the queue: first in, first out; never more than its bound.

Nothing accepted is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from unmixer_app.service.store import (
    ATTEMPTS,
    CANCELLED,
    DONE,
    FAILED,
    RUNNING,
    WAITING,
    QueuedJob,
    QueueFull,
    Store,
)
from unmixer_core.errors import ConfigError


def job(name: str, **fields: object) -> QueuedJob:
    return QueuedJob(name, f"{name}.wav", {"fast": True}, {"note": 48}, **fields)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path, 3) as opened:
        yield opened


def test_a_job_comes_back_as_it_was_given(store: Store):
    given = job("a", progress={"best": {"mss_db": 1.5}}, bytes=7)
    store.add(given)
    assert store.get("a") == given and store.get("b") is None


def test_first_in_is_first_out_and_nobody_is_served_twice(store: Store):
    for name in "abc":
        store.add(job(name))
    assert [store.position(name) for name in "abc"] == [0, 1, 2]
    claimed = [store.claim() for _ in range(4)]
    assert [one and one.id for one in claimed] == ["a", "b", "c", None]
    assert all(
        one.state == RUNNING and one.attempts == 1 and one.started_s for one in claimed if one
    )


def test_the_queue_is_bounded_and_what_runs_does_not_count(store: Store):
    for name in "abc":
        store.add(job(name))
    with pytest.raises(QueueFull, match="3 sounds are waiting"):
        store.add(job("d"))
    store.claim()
    store.add(job("d"))
    assert store.counts() == {WAITING: 3, RUNNING: 1, DONE: 0, FAILED: 0, CANCELLED: 0}


def test_what_was_accepted_outlives_the_process_and_keeps_its_place(tmp_path: Path):
    with Store.open(tmp_path, 9) as store:
        for name in "abc":
            store.add(job(name))
        store.claim()
    with Store.open(tmp_path, 9) as store:
        assert [found.id for found in store.recover()] == ["a"]
        assert [store.claim().id for _ in range(3)] == ["a", "b", "c"]  # type: ignore[union-attr]


def test_a_job_that_never_lets_its_process_live_is_given_up_with_a_sentence(tmp_path: Path):
    with Store.open(tmp_path, 9) as store:
        store.add(job("a"))
    for _ in range(ATTEMPTS):
        with Store.open(tmp_path, 9) as store:
            store.recover()
            assert store.claim() is not None
    with Store.open(tmp_path, 9) as store:
        (found,) = store.recover()
    assert found.state == FAILED and found.ended and "ended 3 times" in found.message


def test_a_shutdown_does_not_count_as_an_attempt(store: Store):
    store.add(job("a"))
    for _ in range(2 * ATTEMPTS):
        assert store.claim() is not None
        store.put_back("a", counted=False)
    assert store.get("a").attempts == 0  # type: ignore[union-attr]


def test_results_leave_when_they_are_old_or_too_many_and_never_before_they_have_ended(store: Store):
    for i, name in enumerate("abc"):
        store.add(job(name))
        store.claim()
        if name != "c":
            store.end(name, DONE, size=100)
        store._db.execute(
            "UPDATE jobs SET finished_s = finished_s - ? WHERE id = ?", (1000.0 * (2 - i), name)
        )
    names = lambda keep_s, keep_bytes: {one.id for one in store.overdue(keep_s, keep_bytes)}  # noqa: E731
    assert names(1e9, 10**9) == set() and names(1500.0, 10**9) == {"a"}
    assert names(1e9, 150) == {"a"} and names(1e9, 50) == {"a", "b"} and names(0.0, 0) == {"a", "b"}


def test_a_folder_serves_one_service_and_a_damaged_file_is_told(tmp_path: Path):
    with (
        Store.open(tmp_path, 3),
        pytest.raises(ConfigError, match="another service"),
        Store.open(tmp_path, 3),
    ):
        pass
    with Store.open(tmp_path, 3):
        pass
    for name in ("jobs.sqlite-wal", "jobs.sqlite-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "jobs.sqlite").write_bytes(b"no database" * 500)
    with pytest.raises(ConfigError, match="move it away"), Store.open(tmp_path, 3):
        pass
