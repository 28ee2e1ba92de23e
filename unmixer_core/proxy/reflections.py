"""The reverb's early reflections, measured on the host with short bright notes.

The reverb is linear, so wet = h ∗ dry, and h follows from several notes at once by least squares
over their spectra. Only the first tenth of a second is used: in a large room nothing else sounds
that early, and it is the same for every setting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor

from unmixer_core.audio import resample
from unmixer_core.dsp.fft import Circle
from unmixer_core.schema import chain as chains
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK

#: Sample rate of the stored reflections, Hz.
RATE = 44100
#: Length of the response, and of the fade at its end.
LENGTH_S = 0.12
FADE_S = 0.02
#: Several notes, so that every frequency is near a harmonic of one of them.
NOTES = (33, 36, 40, 43, 47, 50, 55, 61)
GATE_S = 0.01
#: Regularisation, relative to the strongest bin's energy: weaker bins carry no information.
WEAKEST = 1e-5
BURST: dict[str, float | str] = {
    "wavetable.filter_1_on": "Off",
    "wavetable.osc_1_wavetable": "Pulse PW",
    "wavetable.osc_1_pos": 0.9,
    "wavetable.osc_1_effect_mode": "FM",
    "wavetable.osc_1_effect_2": 0.6,
    "wavetable.amp_attack": 0.0,
    "wavetable.amp_release": 0.0,
    "wavetable.amp_sustain": 1.0,
}
ROOM: dict[str, float | str] = {
    "reverb.predelay": 0.0,
    "reverb.decay_time": 1.0,
    "reverb.room_size": 1.0,
    "reverb.hi_filter_freq": 1.0,
    "reverb.dry_wet": 1.0,
}


def generic() -> Float[Tensor, "2 samples"]:
    """Decaying noise at RATE of about unit energy, used before any calibration."""
    n_samples = round(LENGTH_S * RATE)
    noise = torch.randn(2, n_samples, generator=torch.Generator().manual_seed(1))
    time_s = torch.arange(n_samples) / RATE
    return noise * torch.exp(time_s * (-math.log(1000.0) / LENGTH_S)) * (0.02 * RATE) ** -0.5


def spectrum(
    early: Float[Tensor, "2 samples"], on: Circle, sample_rate: float
) -> Complex[Tensor, "2 bins"]:
    """Spectrum of reflections at RATE on a circle at another sample rate (Hz)."""
    n_fft = round(on.n_fft * RATE / sample_rate)
    known = torch.fft.rfft(early, n=n_fft)[:, : len(on.omega)]
    return torch.nn.functional.pad(known, (0, len(on.omega) - known.shape[-1]))


def patches() -> list[Patch]:
    """All notes dry, then all notes through a large, long and bright reverb."""
    dry = [Patch.init(note, GATE_S).with_values(BURST) for note in NOTES]
    reverb = chains.encode(("Reverb",))
    wet = [Patch(p.knobs, p.choices, reverb, p.note, p.gate_s).with_values(ROOM) for p in dry]
    return [*dry, *wet]


def from_clips(clips: Sequence[NDArray[np.float32]], rate: int) -> Float[Tensor, "2 samples"]:
    """Early reflections at RATE, from the clips [2, time] of `patches()` at `rate` (Hz).

    They are those of a fully wet reverb whose shelf has no effect.
    """
    dry_wet = float(RACK.knobs[RACK.knob_index["reverb.dry_wet"]].knob.to_physical(1.0)) / 100.0
    angle = 0.5 * math.pi * dry_wet
    sounds = [np.asarray(resample(clip, rate, RATE), np.float64) for clip in clips]
    n_fft = 2 * sounds[0].shape[-1]
    half = len(sounds) // 2
    numerator = np.zeros(1, np.complex128)
    energy = np.zeros(1)
    for dry, mixed in zip(sounds[:half], sounds[half:], strict=True):
        source = np.fft.rfft(dry.mean(axis=0), n_fft)
        result = np.fft.rfft(mixed, n_fft)
        wet = (result - math.cos(angle) * source) / math.sin(angle)
        numerator = numerator + np.conj(source) * wet
        energy = energy + np.abs(source) ** 2
    response = np.fft.irfft(numerator / (energy + WEAKEST * energy.max()), n_fft)
    length = round(LENGTH_S * RATE)
    fade = round(FADE_S * RATE)
    window = np.minimum(1.0, np.arange(length, 0, -1) / fade)
    return torch.as_tensor(response[:, :length] * window, dtype=torch.float32)
