"""MIDI notes: their frequency and their name."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

#: Tuning: note 69 (A3 in Live's names) has 440 Hz.
A4_NOTE = 69.0
A4_HZ = 440.0
SEMITONES_PER_OCTAVE = 12.0
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")

Values = TypeVar("Values", float, NDArray[np.floating])


def midi_to_hz(note: Values) -> Values:
    """Convert MIDI notes, which may be fractional, to Hz; floats and arrays alike."""
    return A4_HZ * 2.0 ** ((note - A4_NOTE) / SEMITONES_PER_OCTAVE)


def hz_to_midi(frequency_hz: Values) -> Values:
    """Convert Hz to fractional MIDI notes; floats and arrays alike. The inverse of `midi_to_hz`."""
    ratio = frequency_hz / A4_HZ
    # math.log2, because numpy's may differ from it in the last bit
    octaves = math.log2(ratio) if isinstance(ratio, float) else np.log2(ratio)
    return A4_NOTE + SEMITONES_PER_OCTAVE * octaves


def note_name(note: int) -> str:
    """Return a MIDI note as Live writes it, and its number: 60 is "C3 (MIDI 60)"."""
    # Live counts octaves from -2, so that note 60 lies in octave 3
    return f"{NAMES[note % 12]}{note // 12 - 2} (MIDI {note})"
