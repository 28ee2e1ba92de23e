"""Clips: files, levels, and the store that survives being killed."""

from __future__ import annotations

import numpy as np
import pytest

from unmixer_core import audio
from unmixer_core.dataset import clips as dataset_clips
from unmixer_core.errors import AudioError
from unmixer_core.rendering.clip_store import ClipStore
from unmixer_core.schema.patch import Patch, Patches

RATE, SAMPLES = 8000, 4000


def _clip(seed, level=0.5):
    return (np.random.default_rng(seed).uniform(-level, level, (2, SAMPLES))).astype(np.float32)


def _patches(n):
    return Patches.stack([Patch.init(note=36 + i) for i in range(n)], "dry", "train")


def _fill(store, rows):
    for row in rows:
        store.put(row, 0, f"digest{row}", _clip(row), -20.0)


def _bytes(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_int16_keeps_level_within_half_a_step():
    for level in (1e-4, 0.5, 3.0):
        clip = _clip(1, level)
        stored, gain = dataset_clips.to_int16(clip)
        assert np.abs(dataset_clips.from_int16(stored, gain) - clip).max() <= 0.51 * gain / 32767
    assert dataset_clips.to_int16(np.zeros((2, 4), np.float32))[1] == 1.0


def test_a_sine_at_minus_3_lufs_per_bs1770():
    tone = np.tile(np.sin(2 * np.pi * 997 * np.arange(48000 * 2) / 48000), (2, 1)).astype(
        np.float32
    )
    assert audio.loudness_lufs(tone, 48000) == pytest.approx(0.0, abs=0.1)
    assert audio.loudness_lufs(tone[:1], 48000) == pytest.approx(-3.01, abs=0.1)
    assert audio.loudness_lufs(np.zeros_like(tone), 48000) == audio.SILENCE_LUFS


def test_write_then_read_and_named_refusals(tmp_path):
    clip = _clip(2)
    audio.write(tmp_path / "a.wav", clip, RATE, subtype="FLOAT")
    back, rate = audio.read(tmp_path / "a.wav")
    assert rate == RATE and np.array_equal(back, clip)
    (tmp_path / "bad.wav").write_bytes(b"RIFF\x00\x00")
    with pytest.raises(AudioError, match="bad.wav"):
        audio.read(tmp_path / "bad.wav")
    with pytest.raises(AudioError, match="none.wav"):
        audio.read(tmp_path / "none.wav")


def test_resample_keeps_a_tone():
    tone = np.sin(2 * np.pi * 440 * np.arange(44100) / 44100)[None].astype(np.float32)
    half = audio.resample(tone, 44100, 22050)
    expected = np.sin(2 * np.pi * 440 * np.arange(22050) / 22050)
    assert np.abs(half[0, 1000:-1000] - expected[1000:-1000]).max() < 1e-2


def test_store_interrupted_anywhere_equals_uninterrupted(tmp_path):
    whole = ClipStore(tmp_path / "whole", 5, 2, SAMPLES, RATE)
    _fill(whole, range(5))
    whole.publish(tmp_path / "whole_out", _patches(5))
    first = ClipStore(tmp_path / "torn", 5, 2, SAMPLES, RATE)
    _fill(first, [3, 0])
    with (tmp_path / "torn/journal.jsonl").open("a") as journal:
        journal.write('{"index": 4, "att')  # killed in the middle of a line
    second = ClipStore(tmp_path / "torn", 5, 2, SAMPLES, RATE)
    assert sorted(second.rows) == [0, 3]
    _fill(second, [4, 1, 2])
    second.publish(tmp_path / "torn_out", _patches(5))
    assert _bytes(tmp_path / "torn_out") == _bytes(tmp_path / "whole_out")


def test_a_damaged_row_is_found_and_the_published_file_is_not_touched(tmp_path):
    store = ClipStore(tmp_path / "s", 2, 2, SAMPLES, RATE)
    _fill(store, range(2))
    store.publish(tmp_path / "out", _patches(2))
    shard = tmp_path / "s/shard-00000.npy"
    data = bytearray(shard.read_bytes())
    data[-10] ^= 0xFF
    shard.unlink()
    shard.write_bytes(data)
    again = ClipStore(tmp_path / "s", 2, 2, SAMPLES, RATE)
    assert again.damaged == [1] and sorted(again.rows) == [0]
    before = _bytes(tmp_path / "out")
    _fill(again, [1])
    assert _bytes(tmp_path / "out") == before
    again.publish(tmp_path / "out2", _patches(2))
    assert _bytes(tmp_path / "out2") == before


def test_writing_to_a_linked_shard_leaves_the_link_alone(tmp_path):
    store = ClipStore(tmp_path / "s", 2, 2, SAMPLES, RATE)
    _fill(store, range(2))
    store.publish(tmp_path / "out", _patches(2))
    before = _bytes(tmp_path / "out")
    again = ClipStore(tmp_path / "s", 2, 2, SAMPLES, RATE)
    again.put(1, 1, "other", _clip(99), -20.0)
    assert _bytes(tmp_path / "out") == before


def test_clips_open_verifies_and_names_damage(tmp_path):
    store = ClipStore(tmp_path / "s", 3, 2, SAMPLES, RATE)
    _fill(store, range(3))
    store.publish(tmp_path / "out", _patches(3))
    clips = dataset_clips.Clips.open(tmp_path / "out")
    assert np.abs(clips.audio(2) - _clip(2)).max() < 1e-4 and clips.patches.note[2] == 38
    clips.verify(2)
    np.save(tmp_path / "flip.npy", np.load(tmp_path / "out/shard-00001.npy") ^ 1)
    (tmp_path / "flip.npy").replace(tmp_path / "out/shard-00001.npy")
    with pytest.raises(AudioError, match="clip 2 .*damaged.*dvc repro"):
        dataset_clips.Clips.open(tmp_path / "out").verify(2)
    (tmp_path / "out/shard-00001.npy").write_bytes(b"torn")
    with pytest.raises(AudioError, match="shard-00001.npy"):
        dataset_clips.Clips.open(tmp_path / "out")
