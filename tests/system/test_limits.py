"""What limits a similarity is said in words that fit the difference."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import butter, sosfilt

from unmixer_app.service.service import NAME_LENGTH, display
from unmixer_core.system import limits

RATE = 44100


def noise(seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    decay = np.exp(-2.0 * np.arange(int(seconds * RATE)) / RATE)
    return (rng.normal(size=(1, len(decay))) * decay * 0.2).repeat(2, axis=0).astype(np.float32)


def test_the_same_sound_is_limited_by_nothing():
    assert limits.sentences(noise(), noise(), RATE, 0.5) == [
        "Nothing that is left would be heard as a difference."
    ]


@pytest.mark.parametrize(
    ("kind", "cut_hz", "band"),
    [("low", 3000, "8 kHz"), ("high", 400, "the low")],
    ids=["dull patch", "thin patch"],
)
def test_the_band_that_the_patch_lacks_is_named(kind: str, cut_hz: float, band: str):
    filtered = sosfilt(butter(6, cut_hz, kind, fs=RATE, output="sos"), noise(), axis=1).astype(
        np.float32
    )
    first = limits.sentences(noise(), filtered, RATE, 0.5)[0]
    assert band in first and "too quiet" in first
    assert "too loud" in limits.sentences(filtered, noise(), RATE, 0.5)[0]


def test_a_missing_tail_and_a_missing_width_are_named():
    short = noise()
    short[:, RATE // 2 :] *= 0.003
    assert any(
        "after the key is released" in line for line in limits.sentences(noise(), short, RATE, 0.5)
    )
    wide = np.stack([noise(seed=1)[0], noise(seed=2)[0]])
    assert any("wider" in line for line in limits.sentences(wide, noise(), RATE, 0.5))


def test_silence_is_compared_without_a_warning():
    assert limits.sentences(
        np.zeros((2, RATE), np.float32), np.zeros((2, RATE), np.float32), RATE, 0.5
    )


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("kick.wav", "kick.wav"),
        ("../../etc/passwd", "passwd"),
        ("C:\\sounds\\a.wav", "a.wav"),
        ("", "sound"),
        ("..", "sound"),
        ("a\x00b\n.wav", "a_b_.wav"),
        ("<img src=x>.wav", "_img src_x_.wav"),
        ("Größe 1.wav", "Größe 1.wav"),
    ],
)
def test_a_name_is_shown_without_its_path_or_anything_odd(given: str, shown: str):
    assert display(given) == shown


def test_a_long_name_is_cut_before_its_suffix():
    assert (
        display("x" * 500 + ".flac").endswith("x.flac")
        and len(display("x" * 500 + ".flac")) <= NAME_LENGTH
    )
