"""Wavetables read back from the host.

One steady single note per table and position gives that cycle's spectrum.

The tables of the real instrument are nobody's to ship, and the embedded host's are not ours to
import: both are heard. A note whose frequency divides the analysis window evenly is periodic in it,
so its harmonics fall on FFT bins exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmixer_core.errors import StageError
from unmixer_core.proxy.voice import FRAMES, HARMONICS
from unmixer_core.schema.devices import WAVETABLES
from unmixer_core.schema.notes import midi_to_hz
from unmixer_core.schema.patch import Patch

START_S, LENGTH_S = 0.1, 0.4
CLIP_S = 0.6


def table_patches(note: int, n_positions: int) -> list[Patch]:
    """Plain held notes, table by table and position by position.

    Oscillator 1 alone, no filter, full sustain.
    """
    plain: dict[str, float | str] = {
        "wavetable.filter_1_on": "Off",
        "wavetable.amp_sustain": 1.0,
        "wavetable.amp_attack": 0.0,
    }
    positions = np.linspace(0.0, 1.0, n_positions)
    return [
        Patch.init(note, CLIP_S).with_values(
            {**plain, "wavetable.osc_1_wavetable": name, "wavetable.osc_1_pos": float(x)}
        )
        for name in WAVETABLES
        for x in positions
    ]


def harmonic_spectrum(clip: NDArray[np.float32], rate: int, note: int) -> NDArray[np.complex128]:
    """Complex amplitudes [HARMONICS] of a steady note in clip [channel, time] (mono sum), zero
    beyond Nyquist.

    Raises StageError when the note has no whole number of periods in the analysis window.
    """
    frequency_hz = midi_to_hz(note)
    periods = frequency_hz * LENGTH_S
    if abs(periods - round(periods)) > 1e-6 or clip.shape[-1] < (START_S + LENGTH_S) * rate:
        raise StageError(
            f"note {note} cannot be analysed: it needs whole periods in {LENGTH_S} s (33 has), "
            f"and a clip that long."
        )
    first, length = round(START_S * rate), round(LENGTH_S * rate)
    window = 1.0 - np.cos(
        2.0 * np.pi * np.arange(length) / length
    )  # harmonics are many bins apart, so this loses none
    spectrum = np.fft.rfft(
        clip.mean(axis=0)[first : first + length].astype(np.float64) * window
    ) * (2.0 / length)
    bins = np.arange(1, HARMONICS + 1) * round(periods)
    found = np.where(bins < len(spectrum), spectrum[np.minimum(bins, len(spectrum) - 1)], 0.0)
    turn = np.exp(-2j * np.pi * np.arange(1, HARMONICS + 1) * frequency_hz * first / rate)
    return found * turn


def spectra_from_clips(
    clips: Sequence[NDArray[np.float32]], rate: int, note: int, n_positions: int, level: float
) -> Tensor:
    """Clips of `table_patches` → spectra real [tables, FRAMES, HARMONICS, 2], positions
    interpolated to FRAMES.
    """
    read = np.stack([harmonic_spectrum(clip, rate, note) for clip in clips]) / level
    read = read.reshape(len(WAVETABLES), n_positions, HARMONICS)
    place = np.linspace(0.0, n_positions - 1.0, FRAMES)
    lower = np.minimum(place.astype(int), max(n_positions - 2, 0))
    share = (place - lower)[:, None]
    upper = np.minimum(lower + 1, n_positions - 1)
    spectra = read[:, lower] * (1.0 - share) + read[:, upper] * share
    return torch.view_as_real(torch.as_tensor(spectra, dtype=torch.complex64))
