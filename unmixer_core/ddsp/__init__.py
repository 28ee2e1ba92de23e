"""Magenta DDSP in PyTorch, under the names of the original.

No stage of the pipeline uses this package. Where the operation is the same as one of ours, it is
written in terms of `unmixer_core.dsp`.
"""

from unmixer_core.ddsp.core import exp_sigmoid, fft_convolve, hz_to_midi, midi_to_hz
from unmixer_core.ddsp.effects import (
    frequency_filter,
    frequency_impulse_response,
    mod_delay,
    reverb,
    sinc_filter,
    sinc_impulse_response,
    variable_length_delay,
)
from unmixer_core.ddsp.losses import spectral_loss
from unmixer_core.ddsp.resampling import resample
from unmixer_core.ddsp.synths import (
    harmonic_synthesis,
    linear_lookup,
    oscillator_bank,
    wavetable_synthesis,
)

__all__ = [
    "exp_sigmoid",
    "fft_convolve",
    "frequency_filter",
    "frequency_impulse_response",
    "harmonic_synthesis",
    "hz_to_midi",
    "linear_lookup",
    "midi_to_hz",
    "mod_delay",
    "oscillator_bank",
    "resample",
    "reverb",
    "sinc_filter",
    "sinc_impulse_response",
    "spectral_loss",
    "variable_length_delay",
    "wavetable_synthesis",
]
