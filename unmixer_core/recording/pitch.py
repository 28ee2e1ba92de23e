"""Which note a sound is: a sawtooth-like comb over the spectrum, after SWIPE (Camacho and Harris,
JASA 124(3), 2008).

A candidate's comb rewards energy at its harmonics and punishes energy half-way between them, which
is what keeps a pitch apart from the octave below it. Magnitudes enter by their square root, as
loudness would. Unlike a voice, a synthesizer's note may hold a second oscillator or a sub octave:
such a sound has more than one right answer, so candidates are ranked. No library's tracker is used
because voices are what those were made for: Praat's names fewer of our notes and no second
candidate (`python -m benchmarks.unmix --clips 0`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

RATE = 44100
SIZE, HOP = 4096, 1024
LOW, HIGH, STEP = 24.0, 96.0, 0.25
TOP_HZ = 6000.0
#: Harmonics weigh like frequency to the power of minus this, twice.
DECAY = 0.25
#: Below this salience a frame has no pitch: white noise reaches about 0.02.
TONAL = 0.05
HARMONICS_ST = (12.0, 19.0, 24.0, 28.0, 31.0, 36.0, 48.0)

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Pitch:
    """Candidate notes (MIDI, fractional), best first, with their saliences (cosine between
    spectrum and comb, at most 1).
    """

    notes: tuple[float, ...]
    saliences: tuple[float, ...]

    @property
    def note(self) -> int:
        return int(np.floor(self.notes[0] + 0.5))

    @property
    def salience(self) -> float:
        return self.saliences[0]

    def rival(self) -> tuple[int, float]:
        """The most salient candidate that is no octave and no low harmonic of the best, and its
        salience beside the best's.
        """
        apart = [
            (note, salience)
            for note, salience in zip(self.notes, self.saliences, strict=True)
            if self._apart(note)
        ]
        note, salience = max(apart, key=lambda pair: pair[1], default=(self.notes[0], 0.0))
        return int(np.floor(note + 0.5)), max(salience, 0.0) / max(self.salience, TONAL)

    def share(self, note: float) -> float:
        """How salient a note is beside the best, as far as it is among the candidates; else 0."""
        near = [s for n, s in zip(self.notes, self.saliences, strict=True) if abs(n - note) < 0.8]
        return max(near, default=0.0) / max(self.salience, TONAL)

    def _apart(self, note: float) -> bool:
        above = note - self.notes[0]
        return above > 0.7 and all(abs(above - harmonic) > 0.7 for harmonic in HARMONICS_ST)


def detect(mono: Array, n: int = 4) -> Pitch:
    """The n most salient notes of a sound [time] at RATE, by its mean spectrum."""
    salience = _combs() @ _unit(spectra(mono).mean(axis=0))
    grid = _grid()
    inner = np.flatnonzero((salience[1:-1] >= salience[:-2]) & (salience[1:-1] > salience[2:])) + 1
    peaks = inner if len(inner) else np.array([int(np.argmax(salience))])
    best = peaks[np.argsort(-salience[peaks], kind="stable")][:n]
    return Pitch(tuple(float(grid[i]) for i in best), tuple(float(salience[i]) for i in best))


def track(mono: Array) -> tuple[Array, Array]:
    """Note (fractional MIDI) and salience of each frame, a frame every HOP samples.

    Both [frames].
    """
    rows = spectra(mono)
    salience = _unit(rows) @ _combs().T
    return _grid()[salience.argmax(axis=1)].astype(np.float32), salience.max(axis=1)


def spectra(mono: Array) -> Array:
    """Square roots of magnitudes [frames, SIZE/2 + 1] of a sound [time].

    Short sounds are padded with silence.
    """
    padded = np.pad(mono, (0, max(0, SIZE - len(mono))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, SIZE)[::HOP]
    return np.sqrt(
        np.abs(np.fft.rfft(frames * np.hanning(SIZE).astype(np.float32), axis=1))
    ).astype(np.float32)


def peeled(mono: Array, note: float) -> Pitch:
    """What remains salient once everything at harmonics of `note` and of its octaves below is
    taken out of the spectrum.
    """
    spectrum = spectra(mono).mean(axis=0)
    hertz = np.fft.rfftfreq(SIZE, 1.0 / RATE)
    place = (
        hertz / (440.0 * 2.0 ** ((note - 69.0) / 12.0)) * 2.0
    )  # the octave below explains what a sub oscillator adds
    rest = np.where(np.abs(place - np.round(place)) < 0.25, 0.0, spectrum)
    salience = _combs() @ rest / max(float(np.linalg.norm(spectrum)), 1e-12)
    best = int(np.argmax(salience))
    return Pitch((float(_grid()[best]),), (float(salience[best]),))


def _unit(rows: Array) -> Array:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


@lru_cache(maxsize=1)
def _grid() -> Array:
    return np.arange(LOW, HIGH, STEP, dtype=np.float32)


@lru_cache(maxsize=1)
def _combs() -> Array:
    """One comb per note of the grid [notes, SIZE/2 + 1]; its positive part has norm 1."""
    hertz = np.fft.rfftfreq(SIZE, 1.0 / RATE)
    place = hertz / (440.0 * 2.0 ** ((_grid()[:, None] - 69.0) / 12.0))
    comb = np.cos(2.0 * np.pi * place)
    comb[(place < 0.25) | (hertz > TOP_HZ)] = 0.0
    comb[(place < 0.75) & (comb < 0.0)] *= 0.5  # beside the fundamental only one neighbour punishes
    comb *= np.maximum(hertz, 1.0) ** -(2.0 * DECAY)
    return (comb / np.linalg.norm(np.maximum(comb, 0.0), axis=1, keepdims=True)).astype(np.float32)
