"""Pitch detection: a sawtooth-like comb over the spectrum, after SWIPE.

Camacho and Harris, "A sawtooth waveform inspired pitch estimator for speech and music", JASA
124(3), 2008.

The comb of a candidate note rewards energy at its harmonics and punishes energy half-way between
them. The punishment separates a pitch from the octave below it. Magnitudes enter by their square
root, which is close to loudness. A synthesizer's note may hold a second oscillator or a sub octave,
and then it has more than one right answer. So the detector ranks candidates.

We use no library's tracker, because those are made for voices: Praat's names fewer of our notes
correctly and gives no second candidate (`python -m benchmarks.unmix.command --clips 0`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from unmixer_core.schema.notes import midi_to_hz

#: Sounds are resampled to this rate in Hz, so that one set of combs serves all files.
RATE = 44100
#: Samples of a frame: 93 ms, about three periods of the lowest note that the grid holds.
FRAME_SAMPLES = 4096
#: Samples between frames: a quarter of a frame, the usual overlap of a Hann window.
HOP_SAMPLES = 1024
#: The candidates: MIDI notes from C0 (33 Hz) to below C6 (2.1 kHz), in quarters of a semitone.
LOWEST_NOTE = 24.0
HIGHEST_NOTE = 96.0
NOTE_STEP = 0.25
#: Harmonics above this frequency carry little of the pitch and are left out.
TOP_HZ = 6000.0
#: Harmonics are weighted by frequency to the power of minus this, once for the comb and once for
#: the spectrum.
DECAY = 0.25
#: Below this salience a frame has no pitch: white noise reaches about 0.02.
TONAL = 0.05
#: Intervals in semitones at which a single note has strong harmonics: harmonics 2, 3, 4, 5, 6, 8
#: and 16.
HARMONICS_ST = (12.0, 19.0, 24.0, 28.0, 31.0, 36.0, 48.0)
#: Two candidates are different notes above this distance in semitones.
APART_ST = 0.7
#: A candidate is the note asked for below this distance in semitones.
SAME_NOTE_ST = 0.8
#: Avoids a division by zero in a silent frame.
TINY = 1e-12

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
        """The best candidate, rounded to a MIDI note."""
        return nearest_note(self.notes[0])

    @property
    def salience(self) -> float:
        """The salience of the best candidate."""
        return self.saliences[0]

    def rival(self) -> tuple[int, float]:
        """Return the most salient candidate that may be a second note, and its relative salience.

        Candidates at an octave or a low harmonic of the best do not count. The salience is divided
        by that of the best; it is 0 where there is no such candidate.
        """
        rival_note = self.notes[0]
        rival_salience = 0.0
        found = False
        for note, salience in zip(self.notes, self.saliences, strict=True):
            if self._is_second_note(note) and (not found or salience > rival_salience):
                rival_note = note
                rival_salience = salience
                found = True
        relative = max(rival_salience, 0.0) / max(self.salience, TONAL)
        return nearest_note(rival_note), relative

    def share(self, note: float) -> float:
        """Return the salience of a note divided by that of the best; 0 if it is no candidate."""
        near = []
        for candidate, salience in zip(self.notes, self.saliences, strict=True):
            if abs(candidate - note) < SAME_NOTE_ST:
                near.append(salience)
        return max(near, default=0.0) / max(self.salience, TONAL)

    def _is_second_note(self, note: float) -> bool:
        above_st = note - self.notes[0]
        if above_st <= APART_ST:
            return False
        return all(abs(above_st - harmonic_st) > APART_ST for harmonic_st in HARMONICS_ST)


def nearest_note(note: float) -> int:
    """Round a fractional MIDI note; a half goes up (Python's `round` goes to the even one)."""
    return int(np.floor(note + 0.5))


def detect(mono: Array, n: int = 4) -> Pitch:
    """Return the n most salient notes of a sound [time] at RATE, by its mean spectrum."""
    salience = _combs() @ _unit(spectra(mono).mean(axis=0))
    rises = salience[1:-1] >= salience[:-2]
    falls = salience[1:-1] > salience[2:]
    peaks = np.flatnonzero(rises & falls) + 1
    if len(peaks) == 0:
        peaks = np.array([int(np.argmax(salience))])
    best = peaks[np.argsort(-salience[peaks], kind="stable")][:n]
    return Pitch(
        notes=tuple(_grid()[best].tolist()),
        saliences=tuple(salience[best].tolist()),
    )


def track(mono: Array) -> tuple[Array, Array]:
    """Return the note (fractional MIDI) and the salience of each frame, both [frames].

    mono: [time] at RATE; a frame begins every HOP_SAMPLES.
    """
    salience = _unit(spectra(mono)) @ _combs().T
    notes = _grid()[salience.argmax(axis=1)].astype(np.float32)
    return notes, salience.max(axis=1)


def framed(mono: Array) -> Array:
    """Return overlapping frames [frames, FRAME_SAMPLES]; a short sound is padded with silence."""
    missing = max(0, FRAME_SAMPLES - len(mono))
    padded = np.pad(mono, (0, missing))
    return np.lib.stride_tricks.sliding_window_view(padded, FRAME_SAMPLES)[::HOP_SAMPLES]


def spectra(mono: Array) -> Array:
    """Return the square roots of magnitudes [frames, FRAME_SAMPLES/2 + 1] of a sound [time]."""
    window = np.hanning(FRAME_SAMPLES).astype(np.float32)
    magnitudes = np.abs(np.fft.rfft(framed(mono) * window, axis=1))
    return np.sqrt(magnitudes).astype(np.float32)


def detect_residual(mono: Array, note: float) -> Pitch:
    """Return the most salient note of a sound [time] without the harmonics of `note`.

    The harmonics of the octave below are removed too, because a sub oscillator adds them. The
    salience is relative to the whole spectrum.
    """
    spectrum = spectra(mono).mean(axis=0)
    # in harmonics of the octave below, hence the factor of 2
    harmonic = _bin_hz() / midi_to_hz(note) * 2.0
    is_harmonic = np.abs(harmonic - np.round(harmonic)) < 0.25
    residual = np.where(is_harmonic, 0.0, spectrum)
    salience = _combs() @ residual / max(float(np.linalg.norm(spectrum)), TINY)
    best = int(np.argmax(salience))
    return Pitch((float(_grid()[best]),), (float(salience[best]),))


def _unit(rows: Array) -> Array:
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.maximum(norms, TINY)


def _bin_hz() -> NDArray[np.floating]:
    return np.fft.rfftfreq(FRAME_SAMPLES, 1.0 / RATE)


@lru_cache(maxsize=1)
def _grid() -> Array:
    """Candidate notes [notes]."""
    return np.arange(LOWEST_NOTE, HIGHEST_NOTE, NOTE_STEP, dtype=np.float32)


@lru_cache(maxsize=1)
def _combs() -> Array:
    """One comb per note of the grid [notes, FRAME_SAMPLES/2 + 1]; its positive part has norm 1."""
    bin_hz = _bin_hz()
    harmonic = bin_hz / midi_to_hz(_grid()[:, None])
    comb = np.cos(2.0 * np.pi * harmonic)
    # a comb begins a quarter of a harmonic below the fundamental
    comb[(harmonic < 0.25) | (bin_hz > TOP_HZ)] = 0.0
    # the valley below the fundamental has one neighbour, not two, so it counts half
    comb[(harmonic < 0.75) & (comb < 0.0)] *= 0.5
    comb *= np.maximum(bin_hz, 1.0) ** -(2.0 * DECAY)
    norms = np.linalg.norm(np.maximum(comb, 0.0), axis=1, keepdims=True)
    return (comb / norms).astype(np.float32)
