"""A folder of sounds, with a search that answers at once.

What becomes of names, lines, interrupts and other people's files.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import hostile
from unmixer_app.answer import folder as answer_folder
from unmixer_app.answer import patch_file
from unmixer_app.command import cli, single
from unmixer_core.errors import UnmixerError
from unmixer_core.recording.note import RecordedNote
from unmixer_core.schema.patch import Patch
from unmixer_core.system.json_types import Json

Batch = Callable[..., int]


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    (tmp_path / "sounds").mkdir()
    for name in ("a.wav", "b.wav", "c.wav"):
        put(tmp_path / "sounds" / name)
    return tmp_path / "sounds"


def put(path: Path) -> None:
    path.write_bytes(hostile.encoded(hostile.tone(0.3, 50.0)))


@pytest.fixture
def answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders of the answers that were asked for."""
    folders: list[Path] = []
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").touch()

    @contextmanager
    def resources(*_: object) -> Iterator[None]:
        yield None

    def answer(path: Path, heard: RecordedNote, out: Path, *_: object) -> Json:
        folders.append(out)
        document: Json = patch_file.describe(Patch.init()) | {
            "chain": [],
            "similarity": {"percent": 50.0, "mss_db": 7.0},
            "seconds": 1.0,
            "verdict": None,
            "failure": None,
            "interrupted": False,
            "input": heard.about | {"remarks": list(heard.remarks)},
        }
        patch_file.write(out / "patch.json", document)
        return document

    monkeypatch.setattr(single, "open_resources", resources)
    monkeypatch.setattr(single, "answer", answer)
    monkeypatch.setattr(single, "find_models", lambda *_: (tmp_path / "model", tmp_path))
    return folders


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "summary.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_hostile_names_and_sounds_are_a_line_each(tmp_path: Path, answered: list[Path]):
    folder, out = tmp_path / "sounds", tmp_path / "out"
    folder.mkdir()
    for name, make in hostile.cases():
        if not name.startswith(("fuzzed", "claims", "code", "ten-giga")):
            make(folder / name)
    good = [
        os.fsdecode(b"caf\xe9.wav"),
        "tab\tand\nnewline.wav",
        "=1+1.wav",
        'a,b".wav',
        "\N{MUSICAL SYMBOL G CLEF}.wav",
    ]
    for name in good:
        put(folder / name)
    assert cli.run([str(folder), "--out", str(out)]) == 1
    found = rows(out)
    assert len(found) == len({row["file"] for row in found}) > 60
    status = {row["file"]: row["status"] for row in found}
    assert all(
        status[name] == "ok" for name in ("caf?.wav", "tab?and?newline.wav", "=1+1.wav", good[-1])
    )
    assert status["nan.wav"] == "error" and len(answered) == len(set(answered))


def test_a_batch_goes_on_and_tells_json_line_by_line(
    sounds: Path, tmp_path: Path, answered: list[Path], capsys: pytest.CaptureFixture[str]
):
    (sounds / "b.wav").write_bytes(b"no sound")
    for _ in range(2):  # what was finished before is told again
        assert cli.run([str(sounds), "--out", str(tmp_path / "out"), "--json"]) == 1
        told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(told) == 3 and sum("error" in line for line in told) == 1
    assert len(answered) == 2


def test_endings_that_differ_in_case_have_folders_of_their_own(
    sounds: Path, tmp_path: Path, answered: list[Path]
):
    put(sounds / "a.WAV")
    assert cli.run([str(sounds), "--out", str(tmp_path / "out")]) == 0
    assert len(set(answered)) == 4 == len(rows(tmp_path / "out"))


def test_sounds_of_our_answers_are_not_un_mixed(
    sounds: Path, answered: list[Path], monkeypatch: pytest.MonkeyPatch
):
    answer_folder.claim(sounds / "unmixed" / "a", sounds / "a.wav")
    (sounds / "unmixed" / "a" / "candidates").mkdir()
    for name in (
        "unmixed/a/rerender.wav",
        "unmixed/a/input.wav",
        "unmixed/a/candidates/01.wav",
        "rerender.wav",
    ):
        put(sounds / name)
    monkeypatch.chdir(sounds)
    assert cli.run(["."]) == 0
    assert sorted(row["file"] for row in rows(sounds / "unmixed" / "sounds")) == [
        "a.wav",
        "b.wav",
        "c.wav",
        "rerender.wav",
    ]


def test_answers_may_go_beside_the_sounds(sounds: Path, answered: list[Path]):
    assert cli.run([str(sounds), "--out", str(sounds)]) == 0 and len(answered) == 3
    assert cli.run([str(sounds), "--out", str(sounds)]) == 0 and len(answered) == 3


def test_a_table_of_somebody_else_is_not_replaced(
    sounds: Path, answered: list[Path], capsys: pytest.CaptureFixture[str]
):
    (sounds / "summary.csv").write_text("mine")
    assert cli.run([str(sounds), "--out", str(sounds)]) == 1
    assert (
        "summary.csv is none of ours" in capsys.readouterr().err
        and (sounds / "summary.csv").read_text() == "mine"
    )


def test_a_folder_of_somebody_else_is_a_line(sounds: Path, tmp_path: Path, answered: list[Path]):
    (tmp_path / "out" / "a-wav").mkdir(parents=True)
    (tmp_path / "out" / "a-wav" / "report.html").write_text("mine")
    (tmp_path / "out" / "b-wav").write_text("mine")
    assert cli.run([str(sounds), "--out", str(tmp_path / "out")]) == 1
    assert [row["status"] for row in rows(tmp_path / "out")] == ["error", "error", "ok"]
    assert (tmp_path / "out" / "a-wav" / "report.html").read_text() == "mine"


def test_an_interrupt_tells_how_far_it_came(
    sounds: Path,
    tmp_path: Path,
    answered: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    first = single.answer

    def answer(path: Path, *rest: object) -> Json:
        if path.name == "c.wav":
            raise KeyboardInterrupt
        return first(path, *rest)

    monkeypatch.setattr(single, "answer", answer)
    assert cli.run([str(sounds), "--out", str(tmp_path / "out")]) == 130
    assert (
        "error: interrupted with 2 of 3 sounds done; run it again to go on."
        in capsys.readouterr().err
    )


def test_an_answer_that_cannot_be_pushed_is_an_answer(
    sounds: Path,
    tmp_path: Path,
    answered: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def push(*_: object, **__: object) -> None:
        raise UnmixerError("Live does not answer.")

    monkeypatch.setattr(single, "push", push)
    assert cli.run([str(sounds), "--out", str(tmp_path / "out"), "--push"]) == 1
    assert {row["status"] for row in rows(tmp_path / "out")} == {"ok"}
    assert all(
        "not in Live: Live does not answer; `unmix push" in row["message"]
        for row in rows(tmp_path / "out")
    )
    capsys.readouterr()
    assert cli.run([str(sounds / "a.wav"), "--out", str(tmp_path / "one"), "--push", "--json"]) == 1
    said = capsys.readouterr()
    assert (
        json.loads(said.out)["chain"] == []
        and "error: the answer is not in Live: Live does not answer" in said.err
    )
