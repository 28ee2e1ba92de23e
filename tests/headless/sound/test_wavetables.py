"""Sixteen generated tables: the right form, band-limited, unlike each other and alive along Pos."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from unmixer_core.headless.sound import wavetables
from unmixer_core.schema.devices import WAVETABLES


def spectra(name: str) -> np.ndarray:
    """Magnitudes [32, 1025], each frame of norm 1."""
    magnitudes = np.abs(np.fft.rfft(wavetables.frames(name)))
    return magnitudes / np.linalg.norm(magnitudes, axis=1, keepdims=True)


@pytest.mark.parametrize("name", WAVETABLES)
def test_frames_are_whole_band_limited_cycles_of_peak_one(name) -> None:
    frames = wavetables.frames(name)
    assert frames.shape == (32, 2048) and frames.dtype == np.float32
    assert np.abs(frames).max(axis=1) == pytest.approx(1.0, abs=1e-6)
    assert np.abs(frames.mean(axis=1)).max() < 1e-6
    assert spectra(name)[:, wavetables.MAX_HARMONIC + 1 :].max() < 1e-5


@pytest.mark.parametrize("name", WAVETABLES)
def test_position_changes_the_sound(name) -> None:
    magnitudes = spectra(name)
    assert np.linalg.norm(magnitudes[0] - magnitudes[-1]) > 0.25
    assert np.linalg.norm(np.diff(magnitudes, axis=0), axis=1).min() > 1e-3


def test_tables_differ_from_each_other() -> None:
    middles = {name: np.concatenate([spectra(name)[i] for i in (8, 16, 24)]) for name in WAVETABLES}
    closest = min(
        np.linalg.norm(middles[a] - middles[b]) for a, b in itertools.combinations(WAVETABLES, 2)
    )
    assert closest > 0.3


def test_basic_shapes_are_live_s_four_at_thirds() -> None:
    odd = spectra("Basic Shapes")
    assert odd[0, 1] == pytest.approx(1.0, abs=1e-6)  # sine
    square = odd[-1] / odd[-1, 1]
    assert square[3] == pytest.approx(1 / 3, rel=0.01) and square[2] < 1e-3


def test_frame_between_two_is_their_linear_mixture() -> None:
    import base64

    half = np.frombuffer(base64.b64decode(wavetables.encoded_at("Organ", 10.5 / 31)), dtype="<f4")
    table = wavetables.frames("Organ")
    assert half == pytest.approx(0.5 * (table[10] + table[11]), abs=1e-6)
