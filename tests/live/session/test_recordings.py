"""Attacks on recorded files: no name from the wire deletes a file that is not the session's."""

from __future__ import annotations

import asyncio
import os

import numpy as np
import pytest
import soundfile

from tests.live.fake_host import RATE, FakeHost
from tests.live.session.test_session import PATIENT, opened, patches
from unmixer_core.errors import RecordingError
from unmixer_core.live.session import recordings
from unmixer_core.live.session.recordings import PathMap, Recordings, file_clock_s
from unmixer_core.live.session.take import Take

TAKE = Take(sample_rate=8000, clip_s=0.25)
CAPTURE = "Unmixer 12ab 0 capture"


@pytest.fixture
def own(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    return folder


def sound(path, rate=8000):
    soundfile.write(path, np.zeros((3000, 2)), rate, subtype="FLOAT")
    return path


def read(own, file, *, same_clock=True, fired_at_s=0.0, paths=None):
    files = Recordings(TAKE, paths or PathMap(), CAPTURE, own, same_clock)
    accepted = files.accept(str(file))
    return asyncio.run(files.read(accepted, 0.0, 0, fired_at_s))


def test_the_sessions_own_recording_is_deleted_after_it_was_read(own):
    file = sound(own / f"0001 {CAPTURE}.wav")
    assert read(own, file).shape == (2, 2000)
    assert not file.exists()


def test_without_a_folder_every_recording_stays(own):
    file = sound(own / f"0001 {CAPTURE}.wav")
    read(None, file)
    assert file.exists()


def test_a_file_in_another_folder_stays(own, tmp_path):
    file = sound(tmp_path / f"0001 {CAPTURE}.wav")
    read(own, file)
    assert file.exists()


def test_a_file_in_a_folder_with_a_longer_name_stays(own, tmp_path):
    (tmp_path / "own 2").mkdir()
    file = sound(tmp_path / "own 2" / f"{CAPTURE}.wav")
    read(own, file)
    assert file.exists()


def test_a_file_of_another_name_in_the_same_folder_stays(own):
    file = sound(own / "my song.wav")
    read(own, file)
    assert file.exists()


def test_a_link_out_of_the_folder_deletes_nothing(own, tmp_path):
    file = sound(tmp_path / f"victim {CAPTURE}.wav")
    link = own / f"0001 {CAPTURE}.wav"
    link.symlink_to(file)
    read(own, link)
    assert file.exists() and link.is_symlink()


def test_a_linked_folder_deletes_nothing(own, tmp_path):
    (tmp_path / "album").mkdir()
    file = sound(tmp_path / "album" / f"{CAPTURE}.wav")
    (own / "album").symlink_to(tmp_path / "album")
    read(own, own / "album" / file.name)
    assert file.exists()


def test_a_file_that_is_older_than_the_take_stays(own):
    file = sound(own / f"0001 {CAPTURE}.wav")
    os.utime(file, (1e9, 1e9))
    with pytest.raises(RecordingError, match="it is another recording"):
        read(own, file, fired_at_s=file_clock_s())
    assert file.exists()


def test_one_folder_mapped_to_itself_is_one_machine(own):
    file = sound(own / f"0001 {CAPTURE}.wav")
    os.utime(file, (1e9, 1e9))
    with pytest.raises(RecordingError, match="it is another recording"):
        read(own, file, fired_at_s=file_clock_s(), paths=PathMap(str(own), str(own)))
    assert file.exists()


@pytest.mark.parametrize("content", ["text", "rate", "short"])
def test_a_file_that_cannot_be_read_as_the_take_stays(content, own, monkeypatch):
    monkeypatch.setattr(recordings, "FILE_WITHIN_S", 0.0)
    file = own / f"0001 {CAPTURE}.wav"
    if content == "text":
        file.write_text("a diary")
    elif content == "rate":
        sound(file, rate=44100)
    else:
        soundfile.write(file, np.zeros((10, 2)), 8000)
    with pytest.raises(RecordingError):
        read(own, file)
    assert file.exists()


@pytest.mark.parametrize("path", ["{own}/../victim.wav", "{own}\\..\\victim.wav", "../victim.wav"])
@pytest.mark.parametrize("mapped", [True, False])
def test_a_path_with_two_dots_is_refused(path, mapped, own):
    paths = PathMap(str(own), str(own)) if mapped else PathMap()
    with pytest.raises(RecordingError, match=r"has '\.\.' in it"):
        paths.local(path.format(own=own))


@pytest.mark.parametrize("path", ["/etc/passwd", "D:\\Sets2\\a.wav", "D:\\a.wav", "relative.wav"])
def test_a_path_outside_the_mapped_folder_is_refused(path, own):
    with pytest.raises(RecordingError, match="is outside"):
        PathMap("D:\\Sets", str(own)).local(path)


def test_a_link_out_of_the_mapped_folder_is_refused(own, tmp_path):
    victim = sound(tmp_path / "victim.wav")
    (own / "take.wav").symlink_to(victim)
    with pytest.raises(RecordingError, match="is outside"):
        PathMap("D:\\Sets", str(own)).local("D:\\Sets\\take.wav")


@pytest.mark.parametrize("inside", [True, False])
def test_a_false_answer_about_a_new_file_deletes_nothing(inside, tmp_path):
    """The attack of a local process: a file that the user saved while the take was recorded."""
    folder = tmp_path / "host"
    folder.mkdir()
    victim = (folder if inside else tmp_path) / "my song.wav"

    class Attacked(FakeHost):
        def on_clip_get_file_path(self, track, slot):
            soundfile.write(victim, np.zeros((90000, 2)), RATE, subtype="FLOAT")
            return track, slot, str(victim)

    async def main():
        async with await opened(Attacked(folder), timing=PATIENT) as live:
            await live.render(0, patches(1)[0])

    asyncio.run(main())
    assert victim.exists()
