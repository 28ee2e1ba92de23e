"""The reverb's early reflections, read back from the host.

Short bright notes without and with the reverb, divided.

The reverb is linear, so wet = h ∗ dry, and h follows from several notes at once by least squares
over their spectra. Only the first tenth of a second is kept: in a large room nothing else sounds
that early, and it is the same for every setting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmixer_core.audio import resample
from unmixer_core.dsp.fft import Circle
from unmixer_core.schema import chain as chains
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK

RATE = 44100
LENGTH_S, FADE_S = 0.12, 0.02
NOTES = (33, 36, 40, 43, 47, 50, 55, 61)
GATE_S = 0.01
WEAKEST = 1e-5  # of the strongest bin's energy: below it a bin says nothing
BURST = {
    "wavetable.filter_1_on": "Off",
    "wavetable.osc_1_wavetable": "Pulse PW",
    "wavetable.osc_1_pos": 0.9,
    "wavetable.osc_1_effect_mode": "FM",
    "wavetable.osc_1_effect_2": 0.6,
    "wavetable.amp_attack": 0.0,
    "wavetable.amp_release": 0.0,
    "wavetable.amp_sustain": 1.0,
}
ROOM = {
    "reverb.predelay": 0.0,
    "reverb.decay_time": 1.0,
    "reverb.room_size": 1.0,
    "reverb.hi_filter_freq": 1.0,
    "reverb.dry_wet": 1.0,
}


def generic() -> Tensor:
    """Before any calibration: decaying noise [2, samples at RATE] of about unit energy."""
    n_samples = round(LENGTH_S * RATE)
    noise = torch.randn(2, n_samples, generator=torch.Generator().manual_seed(1))
    time_s = torch.arange(n_samples) / RATE
    return noise * torch.exp(time_s * (-math.log(1000.0) / LENGTH_S)) * (0.02 * RATE) ** -0.5


def spectrum(early: Tensor, on: Circle, sample_rate: float) -> Tensor:
    """early [2, samples at RATE] on a circle at another rate: complex [2, bins]."""
    n_fft = round(on.n_fft * RATE / sample_rate)
    known = torch.fft.rfft(early, n=n_fft)[:, : len(on.omega)]
    return torch.nn.functional.pad(known, (0, len(on.omega) - known.shape[-1]))


def patches() -> list[Patch]:
    """Bursts: all notes dry, then all notes through a large, long and bright reverb."""
    dry = [Patch.init(note, GATE_S).with_values(BURST) for note in NOTES]
    reverb = chains.encode(("Reverb",))
    wet = [Patch(p.knobs, p.choices, reverb, p.note, p.gate_s).with_values(ROOM) for p in dry]
    return [*dry, *wet]


def from_clips(clips: Sequence[NDArray[np.float32]], rate: int) -> Tensor:
    """Clips of `patches()` → early reflections [2, samples at RATE], of a fully wet reverb whose
    shelf is out of the way.
    """
    dry_wet = float(RACK.knobs[RACK.knob_index["reverb.dry_wet"]].knob.to_physical(1.0)) / 100.0
    heard = [np.asarray(resample(clip, rate, RATE), np.float64) for clip in clips]
    n_fft, half = 2 * heard[0].shape[-1], len(heard) // 2
    numerator, energy = np.zeros(1), np.zeros(1)
    for dry, mixed in zip(heard[:half], heard[half:], strict=True):
        source, result = np.fft.rfft(dry.mean(axis=0), n_fft), np.fft.rfft(mixed, n_fft)
        wet = (result - math.cos(0.5 * math.pi * dry_wet) * source) / math.sin(
            0.5 * math.pi * dry_wet
        )
        numerator, energy = numerator + np.conj(source) * wet, energy + np.abs(source) ** 2
    response = np.fft.irfft(numerator / (energy + WEAKEST * energy.max()), n_fft)
    length, fade = round(LENGTH_S * RATE), round(FADE_S * RATE)
    window = np.minimum(1.0, np.arange(length, 0, -1) / fade)
    return torch.as_tensor(response[:, :length] * window, dtype=torch.float32)
