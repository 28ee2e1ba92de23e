"""Laws of MIDI notes: their frequency and their name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmixer_core.schema.notes import hz_to_midi, midi_to_hz, note_name


def test_a_note_and_its_frequency_are_inverse() -> None:
    notes = np.linspace(0.0, 127.0, 509)
    assert hz_to_midi(midi_to_hz(notes)) == pytest.approx(notes, abs=1e-9)
    assert midi_to_hz(69.0) == 440.0 and hz_to_midi(880.0) == 81.0


def test_a_float_an_array_and_a_tensor_agree() -> None:
    values = [midi_to_hz(60.5), midi_to_hz(np.array([60.5]))[0]]
    values.append(midi_to_hz(torch.tensor([60.5], dtype=torch.float64))[0].item())  # type: ignore[type-var]
    assert values == pytest.approx([values[0]] * 3, rel=1e-14)


def test_names_are_those_of_live() -> None:
    assert [note_name(n) for n in (0, 60, 61, 127)] == [
        "C-2 (MIDI 0)",
        "C3 (MIDI 60)",
        "C#3 (MIDI 61)",
        "G8 (MIDI 127)",
    ]
