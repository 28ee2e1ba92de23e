"""The out-of-domain sounds that ship with the project are what their table says."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from unmixer_core.comparison import out_of_domain
from unmixer_core.errors import AudioError
from unmixer_core.recording import sound_file
from unmixer_core.schema import chain as chains

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "outside"
SETTINGS = {"rate": 44100, "clip_s": 2.0, "note_range": (40, 64)}


def table() -> list[dict[str, str]]:
    with (FOLDER / out_of_domain.TABLE).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_file_is_in_the_table_free_and_small():
    lines = table()
    assert sorted(line["file"] for line in lines) == sorted(
        path.name for path in FOLDER.glob("*.flac")
    )
    assert {line["license"] for line in lines} <= {"MIT", "CC0-1.0"} and all(
        line["origin"] for line in lines
    )
    kinds = [line["kind"] for line in lines]
    assert kinds.count("instrument") + kinds.count("sample") >= 40 and kinds.count("effects") >= 20
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 6_000_000


def test_every_chain_of_effects_has_an_audible_order():
    wet = [tuple(line["chain"].split(" > ")) for line in table() if line["kind"] == "effects"]
    assert all(2 <= len(chain) <= 3 and chains.audible_pairs(chain) for chain in wet)
    assert len({name for chain in wet for name in chain}) == 8


@pytest.mark.parametrize("line", table()[::9], ids=lambda line: line["file"])
def test_a_file_is_a_sound_of_its_length(line: dict[str, str]):
    sound = sound_file.read(FOLDER / line["file"])
    assert sound.rate == 44100 and 0.2 < sound.samples.shape[1] / 44100 < 2.2
    assert 0.65 < np.abs(sound.samples).max() < 0.75


def test_some_of_every_kind_are_read_and_keep_their_numbers():
    few, all_wet = (
        out_of_domain.read(FOLDER, 4, **SETTINGS),
        out_of_domain.read(FOLDER, 2, kinds=["effects"], **SETTINGS),
    )
    assert [one.kind for one in few][::3] == ["instrument", "effects"] and len(few) == 4
    assert few[-1].line == all_wet[-1].line == len(table()) - 1
    target = out_of_domain.target(few[-1])
    assert target.patch.effects == few[-1].chain and target.patch.note == few[-1].detected.note
    assert target.id == out_of_domain.FIRST_ID + few[-1].line and target.audio.shape == (2, 88200)


def test_detection_finds_most_of_the_known_notes():
    known = [
        one
        for one in out_of_domain.read(FOLDER, 12, kinds=["instrument"], **SETTINGS)
        if one.note is not None
    ]
    assert np.mean([one.note in one.detected.notes for one in known]) >= 0.8


def test_a_folder_without_a_table_is_refused(tmp_path: Path):
    with pytest.raises(AudioError, match="cannot be read"):
        out_of_domain.read(tmp_path, 1, **SETTINGS)
