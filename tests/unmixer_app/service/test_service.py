"""What the service keeps and clears away, without its processes."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unmixer_app.service import heard_file
from unmixer_app.service import service as services
from unmixer_app.service.meters import Meters
from unmixer_app.service.service import (
    NAME_LENGTH,
    DiskFull,
    NotReady,
    NotYet,
    Service,
    Unknown,
    display,
)
from unmixer_app.service.settings import ServiceSettings
from unmixer_app.service.store import DONE, FAILED, RUNNING, QueuedJob, QueueFull, Store
from unmixer_app.web import faults, views
from unmixer_core import config
from unmixer_core.errors import AudioError, ConfigError, UnmixerError
from unmixer_core.recording.note import RecordedNote
from unmixer_core.system.child import Child

HEARD = {"note": 48, "gate_s": 0.5, "notes": [48, 60], "remarks": [], "about": {}}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    settings = ServiceSettings(folder=tmp_path, queue=2, keep_s=3600.0, keep_bytes=1000)
    with Store.open(tmp_path, settings.queue) as store:
        yield Service(settings, store)


def kept(
    service: Service, name: str, state: str = DONE, size: int = 10, age_s: float = 0.0
) -> Path:
    """A job of the past and its folder."""
    folder = service.pool.folder(name)
    (folder / "answer").mkdir(parents=True)
    (folder / "answer" / "patch.json").write_text("{}")
    (folder / heard_file.ABOUT).write_text(json.dumps(HEARD))
    (folder / heard_file.CLIP).write_bytes(b"sound")
    job = QueuedJob(name, f"{name}.wav", {}, HEARD)
    service.store.add(job)
    service.store.claim()
    if state != RUNNING:
        service.store.end(name, state, "it broke." if state == FAILED else "", size)
        service.store._db.execute(
            "UPDATE jobs SET finished_s = finished_s - ? WHERE id = ?", (age_s, name)
        )
    return folder


def test_results_go_when_their_time_is_over_and_with_them_their_files(service: Service):
    old, new = kept(service, "0" * 16, age_s=4000.0), kept(service, "1" * 16, age_s=3000.0)
    service.clear()
    assert not old.exists() and new.exists()
    with pytest.raises(Unknown, match="results are kept for"):
        service.get("0" * 16)
    assert service.get("1" * 16).state == DONE


def test_the_oldest_results_go_when_all_take_too_much_and_a_running_job_never_does(
    service: Service,
):
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


def test_what_was_heard_is_read_as_it_was_written(tmp_path: Path):
    clip = np.random.default_rng(1).normal(0, 0.1, (2, 4410)).astype(np.float32)
    heard = RecordedNote(
        clip, 44100, 48, 0.5, (48, 60), ("A remark.",), {"file": "a.wav"}, ("note",), (0.5, 0.9)
    )
    heard_file.write(tmp_path, heard)
    found = heard_file.read(tmp_path)
    assert np.array_equal(found.clip, clip) and replace(found, clip=clip) == heard


def test_another_search_is_a_job_of_its_own_with_what_is_asked_now(service: Service):
    kept(service, "1" * 16)
    job = service.again("1" * 16, {"note": 55, "fast": True})
    about = json.loads((service.pool.folder(job.id) / heard_file.ABOUT).read_text())
    assert (about["note"], about["notes"], about["gate_s"]) == (55, [55], 0.5) and job.options[
        "fast"
    ]
    assert about["told"] == ["note"], (
        "a note that was asked for stays; the gate may still be searched for"
    )
    assert json.loads((service.pool.folder("1" * 16) / heard_file.ABOUT).read_text()) == HEARD
    with pytest.raises(ConfigError, match="there is no control"):
        service.again("1" * 16, {"lock": ["nothing=1"]})
    service.again("1" * 16, {})
    with pytest.raises(QueueFull):
        service.again("1" * 16, {})
    assert len(list((service.settings.folder / "jobs").iterdir())) == 3, (
        "a refused job leaves no folder"
    )


def test_without_a_searcher_nothing_is_accepted_for_it(service: Service):
    kept(service, "1" * 16)
    service.pool.problem = "there is no trained model."
    with pytest.raises(NotReady, match="no trained model"):
        service.again("1" * 16, {})
    service.pool.ready = 1
    assert service.again("1" * 16, {}).state == "queued"


def test_what_is_cleared_away_while_it_is_asked_for_is_not_there(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    folder = kept(service, "1" * 16)
    monkeypatch.setattr(service, "part", lambda identity, *names: folder / "answer" / "gone")
    monkeypatch.setattr(service, "recording", lambda identity: folder / "gone")
    for ask in (
        service.document,
        service.recorded,
        lambda identity: service.content(identity, "answer.vital"),
    ):
        with pytest.raises(Unknown, match="removed just now"):
            ask("1" * 16)
    (folder / heard_file.CLIP).unlink()
    with pytest.raises(Unknown, match="removed just now"):
        service.again("1" * 16, {})


def test_clearing_away_goes_on_after_it_failed(service: Service, monkeypatch: pytest.MonkeyPatch):
    cleared: list[int] = []

    def clear() -> None:
        cleared.append(1)
        if len(cleared) == 1:
            raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(services, "CLEAR_EVERY_S", 0.001)
    monkeypatch.setattr(service, "clear", clear)

    async def watch() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(service._keep_clear(), 0.2)

    asyncio.run(watch())
    assert len(cleared) > 1


SAID = [
    ('{"failed": "a.wav is silent."}', AudioError, 415),
    ('{"failed": "a.wav cannot be kept (no space).", "why": "disk"}', DiskFull, 507),
    ('{"failed": "a.wav cannot be kept (input/output error).", "why": "machine"}', NotReady, 503),
    ("die", NotReady, 503),
]


@pytest.mark.parametrize(("act", "kind", "status"), SAID)
def test_only_what_the_file_is_to_blame_for_is_a_refusal_of_it(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    act: str,
    kind: type[UnmixerError],
    status: int,
):
    child = Child("tests.unmixer_app.service.puppet")
    answer = child.answer
    monkeypatch.setattr(
        child, "answer", lambda request, patience_s: answer(request | {"act": act}, patience_s)
    )

    async def upload() -> None:
        service._decoders.put_nowait(child)
        try:
            await service.accept("a.wav", io.BytesIO(b"sound"), {})
        finally:
            await child.stop()

    with pytest.raises(kind) as told:
        asyncio.run(upload())
    assert type(told.value) is kind and faults._status(told.value) == status
    assert not list((service.settings.folder / "jobs").iterdir())


def test_a_full_disk_is_told_as_one_wherever_it_shows():
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    for error in (full, OSError(errno.ENOSPC, "no space left")):
        assert asyncio.run(faults._disk(None, error)).status_code == 507  # type: ignore[arg-type]
    with pytest.raises(PermissionError):
        asyncio.run(faults._disk(None, PermissionError(errno.EACCES, "denied")))  # type: ignore[arg-type]
    assert faults._status(UnmixerError("of a kind that nobody thought of")) == 500


def test_a_method_that_nobody_knows_makes_no_series_of_its_own():
    meters = Meters()
    for method in ("GET", "BREW", "B" * 100):
        meters.requested(method, 405)
    text = meters.text(
        dict.fromkeys(("queued", "running", "done", "failed", "cancelled"), 0), 0, 0
    ).decode()
    assert 'method="other",status="405"} 2.0' in text and "BREW" not in text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a/b\\kick.wav", "kick.wav"),
        ("x" * 100, "x" * NAME_LENGTH),
        ("x" * 100 + ".wav", "x" * (NAME_LENGTH - 4) + ".wav"),
        ("a." + "b" * 100, "a." + "b" * 8),
        ("", "sound"),
    ],
)
def test_a_long_name_is_shortened_and_keeps_its_ending(name: str, shown: str):
    assert display(name) == shown and len(shown) <= NAME_LENGTH


def test_the_budget_of_a_search_is_what_was_asked_for(params: config.Params):
    unmix = params.unmix
    assert (
        views.budget_s({}, unmix) == unmix.seconds and views.budget_s({"fast": True}, unmix) is None
    )
    assert views.budget_s({"polish_s": 600}, unmix) == 600 + unmix.itf_seconds
    assert (
        views.budget_s({"polish_s": 5, "fast": True}, unmix)
        == views.budget_s({"polish_s": 5, "itf": False}, unmix)
        == 5
    )
