"""Reading a take: pre-roll, formats, and folders of another machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from unmixer_core.errors import ConfigError, RecordingError
from unmixer_core.live.session.recordings import PathMap
from unmixer_core.live.session.take import FileNotReady, Take, read_take

TAKE = Take(sample_rate=8000, clip_s=0.25)
SOUND = np.random.default_rng(5).uniform(-0.5, 0.5, (3000, 2))


@pytest.mark.parametrize("subtype", ["PCM_24", "FLOAT"])
@pytest.mark.parametrize("start_s", [0.0, 0.125])
def test_the_clip_starts_at_the_marker_and_has_the_wanted_length(tmp_path, subtype, start_s):
    soundfile.write(tmp_path / "take.wav", SOUND, 8000, subtype=subtype)
    clip = read_take(tmp_path / "take.wav", TAKE, start_s)
    start = round(start_s * 8000)
    assert clip.dtype == np.float32 and clip.shape == (2, 2000)
    np.testing.assert_allclose(clip, SOUND[start : start + 2000].T, atol=2**-22)


def test_aiff_is_read_and_mono_is_doubled(tmp_path):
    soundfile.write(tmp_path / "take.aiff", SOUND[:, :1], 8000, subtype="PCM_24")
    clip = read_take(tmp_path / "take.aiff", TAKE, 0.0)
    np.testing.assert_array_equal(clip[0], clip[1])


def test_what_is_wrong_with_a_file_is_said(tmp_path):
    with pytest.raises(FileNotReady, match="cannot be read"):
        read_take(tmp_path / "none.wav", TAKE, 0.0)
    soundfile.write(tmp_path / "short.wav", SOUND[:2000], 8000)
    with pytest.raises(
        FileNotReady, match="2000 samples, but 2000 are wanted after a pre-roll of 8"
    ):
        read_take(tmp_path / "short.wav", TAKE, 0.001)
    soundfile.write(tmp_path / "rate.wav", SOUND, 48000)
    with pytest.raises(RecordingError, match="48000 Hz, but 8000 Hz is wanted"):
        read_take(tmp_path / "rate.wav", TAKE, 0.0)


def test_a_folder_of_lives_machine_becomes_ours(monkeypatch):
    monkeypatch.setenv("UNMIXER_LIVE_RECORDINGS", "C:\\Users\\me\\Live=/mnt/live")
    paths = PathMap.from_environment()
    assert paths.local("C:\\Users\\me\\Live\\Set Project\\take 1.wav") == Path(
        "/mnt/live/Set Project/take 1.wav"
    )
    assert PathMap().local("/elsewhere/take.wav") == Path("/elsewhere/take.wav")
    for text in ("/Sets=/here", "/Sets/=/here"):
        paths = PathMap.parse(text)
        assert paths.local("/Sets/a.wav") == Path("/here/a.wav")
        with pytest.raises(RecordingError, match="outside /Sets"):
            paths.local("/Sets2/a.wav")
    assert PathMap.parse("/=/here").local("/a.wav") == Path("/here/a.wav")
    monkeypatch.setenv("UNMIXER_LIVE_RECORDINGS", "/only/one")
    with pytest.raises(ConfigError, match="UNMIXER_LIVE_RECORDINGS"):
        PathMap.from_environment()
