"""What an answer may replace, and what it never does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unmixer_app.answer import folder as answer_folder
from unmixer_app.answer import patch_file
from unmixer_core.errors import ConfigError
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


def test_candidates_that_are_a_link_are_refused_and_kept(tmp_path: Path):
    album, out = tmp_path / "album", tmp_path / "answer"
    album.mkdir()
    (album / "01.wav").write_bytes(b"song")
    out.mkdir()
    (out / answer_folder.MARKER).touch()
    (out / answer_folder.CANDIDATES).symlink_to(album)
    with pytest.raises(ConfigError, match="is a link"):
        answer_folder.claim(out, tmp_path / "kick.wav")
    answer_folder.clear(out)
    assert (album / "01.wav").read_bytes() == b"song"
