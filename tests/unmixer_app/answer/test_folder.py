"""What an answer may replace, and what it never does."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from unmixer_app.answer import folder as answer_folder
from unmixer_app.answer import patch_file, presets
from unmixer_core.errors import ConfigError
from unmixer_core.recording import sound_file
from unmixer_core.schema.patch import Patch


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    (tmp_path / "a.wav").write_bytes(b"a recording")
    return tmp_path / "a.wav"


@pytest.mark.parametrize("name", ["input.wav", "rerender.wav", "candidates/01.wav"])
@pytest.mark.parametrize("earlier", [False, True])
def test_the_sound_itself_is_never_replaced(tmp_path: Path, name: str, earlier: bool):
    folder = tmp_path / "songs"
    if earlier:
        (tmp_path / "other.wav").touch()
        answer_folder.claim(folder, tmp_path / "other.wav")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"a recording")
    (tmp_path / "link.wav").symlink_to(folder / name)
    for sound in (folder / name, tmp_path / "link.wav", folder / ".." / "songs" / name):
        with pytest.raises(ConfigError, match=r"would replace .* itself"):
            answer_folder.claim(folder, sound)
    assert (folder / name).read_bytes() == b"a recording"


@pytest.mark.parametrize(
    "name", ["patch.json", "report.html", "input.wav", "out.vital", "asked.json"]
)
def test_a_file_that_is_none_of_ours_is_not_replaced(tmp_path: Path, sound: Path, name: str):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(ConfigError, match=name):
        answer_folder.claim(tmp_path / "out", sound)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


def test_a_folder_of_the_candidates_name_stays_as_it_is(tmp_path: Path, sound: Path):
    (tmp_path / "out" / "candidates").mkdir(parents=True)
    with pytest.raises(ConfigError, match="candidates"):
        answer_folder.claim(tmp_path / "out", sound)


def test_a_folder_with_other_things_in_it_may_be_used(tmp_path: Path, sound: Path):
    answer_folder.claim(tmp_path, sound)
    assert answer_folder.is_answer(tmp_path) and sound.read_bytes() == b"a recording"


def test_an_answer_is_replaced_by_the_next_but_for_what_a_person_put_there(
    tmp_path: Path, sound: Path
):
    folder = tmp_path / "out"
    answer_folder.claim(folder, sound)
    (folder / "candidates").mkdir()
    for name in ("patch.json", "candidates/01.wav", "candidates/01.json", "candidates/keep.wav"):
        (folder / name).touch()
    answer_folder.claim(folder, sound)
    answer_folder.clear(folder)
    assert [path.name for path in (folder / "candidates").iterdir()] == ["keep.wav"]
    assert not (folder / "patch.json").exists()


def test_an_answer_of_a_version_without_marker_is_known(tmp_path: Path, sound: Path):
    document = patch_file.describe(Patch.init()) | {"similarity": {}, "input": {}}
    patch_file.write(tmp_path / "out" / "patch.json", document)
    answer_folder.claim(tmp_path / "out", sound)
    patch_file.write(tmp_path / "rendered" / "patch.json", patch_file.describe(Patch.init()))
    with pytest.raises(ConfigError, match="no answer of ours"):
        answer_folder.claim(tmp_path / "rendered", sound)


def test_a_folder_that_cannot_be_written_is_refused(sound: Path):
    with pytest.raises(ConfigError, match="cannot be written"):
        answer_folder.claim(sound, sound)


def test_the_preset_has_a_name_that_every_folder_can_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert answer_folder.preset_name(Path(".")) == "here.vital"
    assert answer_folder.preset_name(Path("/")) == "patch.vital"
    for name in (
        "x" * 250,
        "\N{MUSICAL SYMBOL G CLEF}" * 62,
        os.fsdecode(b"caf\xe9"),
        "line\nbreak",
        ".hidden",
    ):
        preset = answer_folder.preset_name(tmp_path / name)
        assert (
            len(f".{preset}.tmp".encode()) <= 255
            and preset.isprintable()
            and not preset.startswith(".")
        )


@pytest.mark.parametrize("name", ["", "candidates", ".unmix-answer"])
def test_an_answer_folder_that_is_a_link_is_refused(tmp_path: Path, sound: Path, name: str):
    (tmp_path / "album").mkdir()
    (tmp_path / "album" / "01.wav").write_bytes(b"somebody's")
    out = tmp_path / "out"
    if name:
        answer_folder.claim(out, sound)
        (out / name).unlink(missing_ok=True)
    (out / name).symlink_to(tmp_path / "album", target_is_directory=True)
    with pytest.raises(ConfigError, match="is a link"):
        answer_folder.claim(out, sound)
    if name:
        answer_folder.clear(out)
    assert [path.name for path in (tmp_path / "album").iterdir()] == ["01.wav"]


def test_nothing_is_written_through_links_of_temporary_names(tmp_path: Path, sound: Path):
    out, target = tmp_path / "out", tmp_path / "profile"
    answer_folder.claim(out, sound)
    target.write_text("mine")
    names = ("patch.json", "rerender.wav", "out.vital", "asked.json")
    for name in names:
        (out / f".{name}.tmp").symlink_to(target)
        (out / name).symlink_to(target)
    patch_file.write(out / "patch.json", {})
    presets.write(out / "out.vital", Patch.init())
    sound_file.write(out / "rerender.wav", np.zeros((2, 100), np.float32), 8000)
    assert target.read_text() == "mine"
    for name in names[:3]:
        assert (out / name).is_file() and not (out / name).is_symlink()
