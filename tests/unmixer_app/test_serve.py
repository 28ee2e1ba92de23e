"""How the service starts, and how it says that it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from unmixer_app import serve
from unmixer_app.service.store import Store


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNMIXER_SERVE_FOLDER", str(tmp_path))
    return tmp_path


def test_a_folder_that_is_in_use_is_told_in_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    with Store.open(folder, 1):
        assert serve.main() == 1
    assert (
        capsys.readouterr().err
        == f"error: another service uses {folder}; stop it, or set UNMIXER_SERVE_FOLDER.\n"
    )


def test_a_damaged_folder_is_told_in_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "jobs.sqlite").write_bytes(b"no database" * 100)
    assert serve.main() == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ") and "move it away" in told and told.count("\n") == 1
