"""Measure the host's wavetables: one steady note per table and position gives a spectrum.

The tables of the real instrument may not be shipped, and those of the embedded host must not be
imported (the proxy shares no code with it). So both are measured from sound. A note with whole
periods in the analysis window has its harmonics exactly on FFT bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from unmixer_core.errors import StageError
from unmixer_core.proxy.voice import FRAMES, HARMONICS
from unmixer_core.schema.devices import WAVETABLES
from unmixer_core.schema.notes import midi_to_hz
from unmixer_core.schema.patch import Patch

#: The analysis window begins after the attack.
START_S = 0.1
LENGTH_S = 0.4
#: Length of the rendered notes.
CLIP_S = 0.6


def table_patches(note: int, n_positions: int) -> list[Patch]:
    """Held notes of oscillator 1 alone, table by table and position by position."""
    plain: dict[str, float | str] = {
        "wavetable.filter_1_on": "Off",
        "wavetable.amp_sustain": 1.0,
        "wavetable.amp_attack": 0.0,
    }
    patches = []
    for name in WAVETABLES:
        for position in np.linspace(0.0, 1.0, n_positions):
            values = {
                **plain,
                "wavetable.osc_1_wavetable": name,
                "wavetable.osc_1_pos": float(position),
            }
            patches.append(Patch.init(note, CLIP_S).with_values(values))
    return patches


def harmonic_spectrum(clip: NDArray[np.float32], rate: int, note: int) -> NDArray[np.complex128]:
    """Complex amplitudes [HARMONICS] of a steady note in a clip [channel, time].

    Channels are averaged. Harmonics above Nyquist are zero.

    Raises:
        StageError: the note has no whole number of periods in the analysis window, or the clip is
            shorter than that.
    """
    frequency_hz = midi_to_hz(note)
    periods = frequency_hz * LENGTH_S
    if abs(periods - round(periods)) > 1e-6 or clip.shape[-1] < (START_S + LENGTH_S) * rate:
        raise StageError(
            f"note {note} cannot be analysed: it needs whole periods in {LENGTH_S} s (33 has), "
            f"and a clip that long."
        )
    first = round(START_S * rate)
    length = round(LENGTH_S * rate)
    # A Hann window: harmonics are many bins apart, so its wider lobe costs nothing.
    window = 1.0 - np.cos(2.0 * np.pi * np.arange(length) / length)
    piece = clip.mean(axis=0)[first : first + length].astype(np.float64)
    spectrum = np.fft.rfft(piece * window) * (2.0 / length)
    bins = np.arange(1, HARMONICS + 1) * round(periods)
    last = len(spectrum) - 1
    amplitudes = np.where(bins <= last, spectrum[np.minimum(bins, last)], 0.0)
    # Phases are those at the note's start, not at the window's.
    turn = np.exp(-2j * np.pi * np.arange(1, HARMONICS + 1) * frequency_hz * first / rate)
    return amplitudes * turn


def spectra_from_clips(
    clips: Sequence[NDArray[np.float32]], rate: int, note: int, n_positions: int, level: float
) -> Float[Tensor, "tables frames harmonics 2"]:
    """Spectra (real and imaginary part) from the clips of `table_patches`.

    Positions are interpolated to FRAMES. level: the proxy's gain, by which the clips are divided.
    """
    measured = np.stack([harmonic_spectrum(clip, rate, note) for clip in clips]) / level
    measured = measured.reshape(len(WAVETABLES), n_positions, HARMONICS)
    place = np.linspace(0.0, n_positions - 1.0, FRAMES)
    lower = np.minimum(place.astype(int), max(n_positions - 2, 0))
    share = (place - lower)[:, None]
    upper = np.minimum(lower + 1, n_positions - 1)
    spectra = measured[:, lower] * (1.0 - share) + measured[:, upper] * share
    return torch.view_as_real(torch.as_tensor(spectra, dtype=torch.complex64))
