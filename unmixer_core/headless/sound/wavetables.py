"""The sixteen wavetables of the embedded host, generated, and the table of its Sub oscillator.

Each table is 32 frames of 2048 samples along Wavetable's Pos. Every frame is a Fourier series of at
most `MAX_HARMONIC` partials (band-limited by construction), free of DC, with peak 1, and starts at
phase 0. Names follow Live's tables that they resemble; the sounds are our own. Pure numpy, no
randomness: equal everywhere, always.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from unmixer_core.schema.devices import WAVETABLES

FloatArray = NDArray[np.float64]
FRAMES = 32
SAMPLES = 2048
MAX_HARMONIC = 512
OVERSAMPLING = 8
PHASE = np.arange(SAMPLES * OVERSAMPLING) / (SAMPLES * OVERSAMPLING)  # one cycle, [0, 1)
HARMONIC = np.arange(1, MAX_HARMONIC + 1, dtype=np.float64)
VOWELS_HZ = (
    (730, 1090, 2440),
    (530, 1840, 2480),
    (270, 2290, 3010),
    (570, 840, 2410),
    (300, 870, 2240),
)  # A E I O U
VOWEL_PITCH_HZ = 110.0


@cache
def frames(name: str) -> NDArray[np.float32]:
    """The table called `name` (one of `WAVETABLES`): float32 [32, 2048], peak 1.

    Raises KeyError for another name.
    """
    make = dict(zip(WAVETABLES, _MAKERS, strict=True))[name]
    return np.stack([_finish(make(position)) for position in np.linspace(0.0, 1.0, FRAMES)])


@cache
def sub_frames() -> NDArray[np.float32]:
    """Sub Tone 0, ½ and 1: sine, triangle, square: float32 [3, 2048]."""
    return np.stack([_finish(shape) for shape in (_sine(), _triangle(), _saw(0.0) - _saw(0.5))])


@cache
def encoded(name: str) -> tuple[str, ...]:
    """The frames of a table ("Sub".

    The Sub oscillator's) as Vital's presets hold them, see `encode`.
    """
    return tuple(encode(frame) for frame in _table(name))


def encoded_at(name: str, position: float) -> str:
    """The one frame at `position` 0..1 of the table, cross-faded linearly between its
    neighbours, as `encode` writes it.
    """
    table = _table(name)
    place = position * (len(table) - 1)
    left = min(int(place), len(table) - 2)
    return encode(table[left] + np.float32(place - left) * (table[left + 1] - table[left]))


def encode(frame: NDArray[np.float32]) -> str:
    """[2048] → base64 of little-endian float32."""
    return base64.b64encode(frame.astype("<f4").tobytes()).decode()


def _table(name: str) -> NDArray[np.float32]:
    return sub_frames() if name == "Sub" else frames(name)


def _finish(wave: FloatArray) -> NDArray[np.float32]:
    """One frame [2048] of an oversampled cycle: low-passed at MAX_HARMONIC, DC removed, peak 1."""
    spectrum = np.fft.rfft(wave)[: MAX_HARMONIC + 1] / OVERSAMPLING
    spectrum[0] = 0.0
    frame = np.fft.irfft(spectrum, SAMPLES)
    return (frame / np.abs(frame).max()).astype(np.float32)


def _series(sines: FloatArray, cosines: FloatArray | None = None) -> FloatArray:
    """Σ sines_h sin 2πhx + cosines_h cos 2πhx over the oversampled cycle.

    Arrays [H], H ≤ MAX_HARMONIC.
    """
    spectrum = np.zeros(len(PHASE) // 2 + 1, dtype=complex)
    cosines = np.zeros_like(sines) if cosines is None else cosines
    spectrum[1 : len(sines) + 1] = (cosines - 1j * sines) * len(PHASE) / 2
    return np.fft.irfft(spectrum, len(PHASE))


def _sine(multiple: float = 1.0) -> FloatArray:
    return np.sin(2 * np.pi * multiple * PHASE)


def _triangle() -> FloatArray:
    return 2 / np.pi * np.arcsin(_sine())


def _saw(shift: float) -> FloatArray:
    """Rising ramp −1..1 whose jump lies at phase `shift`."""
    return 2.0 * ((PHASE - shift) % 1.0) - 1.0


def _blend(shapes: tuple[FloatArray, ...], position: float) -> FloatArray:
    """Linear cross-fade through equally spaced shapes."""
    place = position * (len(shapes) - 1)
    left = min(int(place), len(shapes) - 2)
    return shapes[left] + (place - left) * (shapes[left + 1] - shapes[left])


def _bump(center: float, width: float) -> FloatArray:
    """Gaussian over harmonic number."""
    return np.exp(-0.5 * ((HARMONIC - center) / width) ** 2)


def _basic_shapes(position: float) -> FloatArray:
    return _blend((_sine(), _triangle(), -_saw(0.0), _saw(0.5) - _saw(0.0)), position)


def _sub_1(position: float) -> FloatArray:
    drive = 0.3 + 5.0 * position
    return np.tanh(drive * (_sine() + 0.5 * position * _sine(2.0))) / np.tanh(drive)


def _saw_dual_1(position: float) -> FloatArray:
    return _saw(0.0) + _saw(0.5 * position)


def _pulse_pw(position: float) -> FloatArray:
    return np.where(PHASE < 0.5 - 0.47 * position, 1.0, -1.0)


def _sines_1(position: float) -> FloatArray:
    low, t = divmod(1.0 + 15.0 * position, 1.0)
    return _sine() + 0.9 * ((1.0 - t) * _sine(low) + t * _sine(low + 1.0))


def _harmonic_series(position: float) -> FloatArray:
    count = 2.0 ** (6.0 * position)
    return _series(np.clip(count - HARMONIC + 1.0, 0.0, 1.0) / np.sqrt(HARMONIC))


def _fm_feedback(position: float) -> FloatArray:
    """x_n = sin(2πφ + β·mean of the last two outputs), β up to 1.6 rad.

    The cycle after it has settled.
    """
    beta, previous, last = 1.6 * position, 0.0, 0.0
    phase = 2 * np.pi * PHASE[:: OVERSAMPLING // 2]
    wave = np.empty_like(phase)
    for _ in range(2):
        for i, angle in enumerate(phase):
            previous, last = last, np.sin(angle + beta * 0.5 * (previous + last))
            wave[i] = last
    return np.repeat(wave, OVERSAMPLING // 2)


def _fm_fold(position: float) -> FloatArray:
    return np.sin(0.5 * np.pi * (1.0 + 8.0 * position) * _sine() + 0.6 * position)


def _aeiou(position: float) -> FloatArray:
    formants_hz = _blend(tuple(np.array(v, dtype=np.float64) for v in VOWELS_HZ), position)
    gains = sum(
        level * np.exp(-0.5 * ((HARMONIC * VOWEL_PITCH_HZ - center) / width) ** 2)
        for center, level, width in zip(
            formants_hz, (1.0, 0.6, 0.3), (90.0, 120.0, 160.0), strict=True
        )
    )
    return _series((gains + 0.01 / HARMONIC) / np.sqrt(HARMONIC))


def _sync_digital(position: float) -> FloatArray:
    slave = (PHASE * (1.0 + 7.0 * position)) % 1.0
    return (2.0 * slave - 1.0) * (1.0 - PHASE)


def _bell(position: float) -> FloatArray:
    return np.sin(2 * np.pi * PHASE + (0.4 + 3.0 * position) * _sine(7.0)) + 0.4 * position * _sine(
        11.0
    )


def _organ(position: float) -> FloatArray:
    drawbars = np.array([1, 2, 3, 4, 6, 8, 10, 12, 16])
    levels = np.exp(-0.5 * ((np.arange(9) - 8.0 * position) / 1.6) ** 2) + np.array(
        [0.6] + [0.03] * 8
    )
    sines = np.zeros(16)
    sines[drawbars - 1] = levels
    return _series(sines)


def _strings_1(position: float) -> FloatArray:
    """A string plucked at `pluck` of its length.

    1/h amplitudes with notches at multiples of 1/pluck.
    """
    pluck = 0.5 - 0.45 * position
    return _series(np.sin(np.pi * HARMONIC * pluck) / HARMONIC ** (1.6 - 0.7 * position))


def _vocal_sines(position: float) -> FloatArray:
    return _series(
        _bump(1.0, 0.4)
        + 0.8 * _bump(3.0 + 9.0 * position, 0.8)
        + 0.6 * _bump(24.0 - 12.0 * position, 1.2)
    )


def _bit_sweep(position: float) -> FloatArray:
    levels = 16.0 ** (1.0 - position)
    return np.round(_saw(0.0) * levels) / levels + 0.3 * _sine()


def _squarrely(position: float) -> FloatArray:
    odd = HARMONIC % 2
    return _series(odd / HARMONIC * (1.0 + 6.0 * position * _bump(3.0 + 24.0 * position, 2.0)))


_MAKERS: tuple[Callable[[float], FloatArray], ...] = (
    _basic_shapes,
    _sub_1,
    _saw_dual_1,
    _pulse_pw,
    _sines_1,
    _harmonic_series,
    _fm_feedback,
    _fm_fold,
    _aeiou,
    _sync_digital,
    _bell,
    _organ,
    _strings_1,
    _vocal_sines,
    _bit_sweep,
    _squarrely,
)
