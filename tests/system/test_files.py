"""A file that is replaced: whole or untouched, and never written through somebody else's link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unmixer_core.system import files


def test_the_text_is_there_and_nothing_else_is_left(tmp_path: Path):
    files.write_text(tmp_path / "new" / "a.json", "é\n")
    assert (tmp_path / "new" / "a.json").read_bytes() == "é\n".encode()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]


def test_a_failure_leaves_the_old_file_as_it_was(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_and_what_it_points_to_is_kept(tmp_path: Path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    link = tmp_path / "patch.json"
    link.symlink_to(precious)
    files.write_text(link, "answer")
    assert precious.read_text() == "mine" and link.read_text() == "answer"
    assert not link.is_symlink()


def test_the_name_cannot_be_guessed_and_keeps_the_ending(tmp_path: Path):
    with files.replacing(tmp_path / "a.wav") as one, files.replacing(tmp_path / "a.wav") as two:
        assert one != two and one.suffix == two.suffix == ".wav"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_the_mode_is_what_the_umask_leaves(tmp_path: Path):
    old = os.umask(0o027)
    try:
        files.write_text(tmp_path / "a", "x")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
