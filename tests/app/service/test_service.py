"""What the service keeps and clears away, without its processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.service import heard_file
from app.service.service import NotReady, NotYet, Service, Unknown
from app.service.settings import Settings
from app.service.store import DONE, FAILED, RUNNING, Job, QueueFull, Store
from unmixer_core.errors import ConfigError

HEARD = {"note": 48, "gate_s": 0.5, "notes": [48, 60], "remarks": [], "about": {}}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    settings = Settings(folder=tmp_path, queue=2, keep_s=3600.0, keep_bytes=1000)
    with Store.open(tmp_path, settings.queue) as store:
        yield Service(settings, store)


def kept(service: Service, name: str, state: str = DONE, size: int = 10, age_s: float = 0.0) -> Path:
    """A job of the past and its folder."""
    folder = service.pool.folder(name)
    (folder / "answer").mkdir(parents=True)
    (folder / "answer" / "patch.json").write_text("{}")
    (folder / heard_file.ABOUT).write_text(json.dumps(HEARD))
    (folder / heard_file.CLIP).write_bytes(b"sound")
    job = Job(name, f"{name}.wav", {}, HEARD)
    service.store.add(job)
    service.store.claim()
    if state != RUNNING:
        service.store.end(name, state, "it broke." if state == FAILED else "", size)
        service.store._db.execute("UPDATE jobs SET finished_s = finished_s - ? WHERE id = ?", (age_s, name))
    return folder


def test_results_go_when_their_time_is_over_and_with_them_their_files(service: Service):
    old, new = kept(service, "0" * 16, age_s=4000.0), kept(service, "1" * 16, age_s=3000.0)
    service.clear()
    assert not old.exists() and new.exists()
    with pytest.raises(Unknown, match="results are kept for"):
        service.get("0" * 16)
    assert service.get("1" * 16).state == DONE


def test_the_oldest_results_go_when_all_take_too_much_and_a_running_job_never_does(service: Service):
    folders = [kept(service, f"{i}" * 16, size=400, age_s=100.0 - i) for i in range(4)]
    running = kept(service, "a" * 16, RUNNING)
    service.clear()
    assert [folder.exists() for folder in (*folders, running)] == [False, False, True, True, True]


def test_a_start_clears_what_a_killed_process_left(service: Service):
    job = kept(service, "1" * 16, RUNNING)
    (job / "work-1").mkdir()
    stray = service.pool.folder("f" * 16)
    stray.mkdir()
    service._recover()
    assert not stray.exists() and not (job / "work-1").exists() and (job / heard_file.CLIP).exists()
    assert service.get("1" * 16).state == "queued"


def test_an_answer_that_is_not_there_is_told_why(service: Service):
    kept(service, "1" * 16, FAILED), kept(service, "2" * 16, RUNNING), kept(service, "3" * 16)
    with pytest.raises(NotYet, match=r"failed: it broke\."):
        service.part("1" * 16, "patch.json")
    with pytest.raises(NotYet, match="no answer yet"):
        service.part("2" * 16, "patch.json")
    with pytest.raises(Unknown, match=r"has no candidates/01\.json"):
        service.part("3" * 16, "candidates", "01.json")
    assert service.document("3" * 16) == {}


def test_another_search_is_a_job_of_its_own_with_what_is_asked_now(service: Service):
    kept(service, "1" * 16)
    job = service.again("1" * 16, {"note": 55, "fast": True})
    about = json.loads((service.pool.folder(job.id) / heard_file.ABOUT).read_text())
    assert (about["note"], about["notes"], about["gate_s"]) == (55, [55], 0.5) and job.options["fast"]
    assert json.loads((service.pool.folder("1" * 16) / heard_file.ABOUT).read_text()) == HEARD
    with pytest.raises(ConfigError, match="there is no control"):
        service.again("1" * 16, {"lock": ["nothing=1"]})
    service.again("1" * 16, {})
    with pytest.raises(QueueFull):
        service.again("1" * 16, {})
    assert len(list((service.settings.folder / "jobs").iterdir())) == 3, "a refused job leaves no folder"


def test_without_a_searcher_nothing_is_accepted_for_it(service: Service):
    kept(service, "1" * 16)
    service.pool.problem = "there is no trained model."
    with pytest.raises(NotReady, match="no trained model"):
        service.again("1" * 16, {})
    service.pool.ready = 1
    assert service.again("1" * 16, {}).state == "queued"
