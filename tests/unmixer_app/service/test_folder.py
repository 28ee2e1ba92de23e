"""What the service takes as its folder, and what it deletes there."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from unmixer_app.service import folder as service_folder
from unmixer_app.service.store import QueuedJob, Store
from unmixer_core.errors import ConfigError, UnmixerError


def test_a_new_folder_is_claimed_and_opened_again(tmp_path: Path):
    for _ in range(2):
        with Store.open(tmp_path / "new", 3):
            assert (tmp_path / "new" / service_folder.MARKER).is_file()


@pytest.mark.parametrize("name", ["renders/take.wav", "jobs/song/a.wav", "notes.txt"])
def test_a_folder_of_somebody_else_is_refused_untouched(tmp_path: Path, name: str):
    (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="UNMIXER_SERVE_FOLDER"), Store.open(tmp_path, 3):
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_a_database_of_another_program_is_refused(tmp_path: Path):
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as database:
        database.execute("CREATE TABLE jobs (id TEXT)")
    with pytest.raises(ConfigError, match="jobs.sqlite"), Store.open(tmp_path, 3):
        pass


@pytest.mark.parametrize("foreign", [False, True])
def test_a_folder_of_an_earlier_version_is_adopted_where_nothing_is_foreign(
    tmp_path: Path, foreign: bool
):
    with Store.open(tmp_path, 3) as store:
        store.add(QueuedJob("0" * 16, "a.wav", {}, {}))
    (tmp_path / service_folder.MARKER).unlink()
    (tmp_path / "jobs" / ("0" * 16)).mkdir(parents=True)
    (tmp_path / "renders").mkdir()
    (tmp_path / "renders" / f"{'0' * 16}.wav").touch()
    if foreign:
        (tmp_path / "renders" / "mix.wav").touch()
        with pytest.raises(ConfigError, match=r"mix\.wav"), Store.open(tmp_path, 3):
            pass
        return
    with Store.open(tmp_path, 3) as store:
        assert store.get("0" * 16) is not None


@pytest.mark.parametrize("name", ["jobs", "renders", "lock", "jobs.sqlite"])
def test_a_link_in_its_folder_is_refused(tmp_path: Path, name: str):
    with Store.open(tmp_path / "own", 3):
        pass
    (tmp_path / "other").mkdir()
    (tmp_path / "own" / name).unlink(missing_ok=True)
    (tmp_path / "own" / name).symlink_to(tmp_path / "other")
    with pytest.raises(ConfigError, match=name), Store.open(tmp_path / "own", 3):
        pass


@pytest.mark.parametrize("identity", ["../../music", "/music", "", "a/b", ".."])
def test_a_stored_id_that_is_a_path_is_refused(tmp_path: Path, identity: str):
    with Store.open(tmp_path, 3) as store:
        store.add(QueuedJob(identity, "a.wav", {}, {}))
    with pytest.raises(UnmixerError, match="job id"), Store.open(tmp_path, 3):
        pass


@pytest.mark.parametrize("link", ["jobs", "jobs/a", "jobs/a/work-1"])
def test_nothing_is_deleted_through_a_link(tmp_path: Path, link: str):
    mine = tmp_path / "mine" / "a" / "work-1"
    mine.mkdir(parents=True)
    (mine / "song.wav").touch()
    target = {"jobs": mine.parent.parent, "jobs/a": mine.parent, "jobs/a/work-1": mine}[link]
    root = tmp_path / "own"
    (root / link).parent.mkdir(parents=True)
    (root / link).symlink_to(target)
    service_folder.discard(root, root / "jobs" / "a" / "work-1")
    assert (mine / "song.wav").exists()
