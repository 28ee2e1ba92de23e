"""Scales, phases and convolution of the original DDSP.

Functions follow Magenta DDSP (Engel et al., ICLR 2020, https://arxiv.org/abs/2001.04643) in name,
argument names and values. The tests compare them with vectors recorded from version 3.7.0. Two
things differ on purpose. FFT sizes are 5-smooth instead of powers of two, which is up to 5 times
faster on a CPU. `accumulate_phase` exists for oscillators that must not drift: it accumulates in
float64 and wraps.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unmixer_core.dsp.fft import fast_length, overlap_add
from unmixer_core.dsp.levels import A4_HZ, A4_NOTE, note_to_hz


def midi_to_hz(
    notes: Float[Tensor, "*shape"], midi_zero_silence: bool = False
) -> Float[Tensor, "*shape"]:
    """Equal-tempered frequency in Hz of (fractional) MIDI notes.

    With `midi_zero_silence`, note 0 means 0 Hz.
    """
    hz = note_to_hz(notes)
    if midi_zero_silence:
        return torch.where(notes == 0.0, torch.zeros_like(hz), hz)
    return hz


def hz_to_midi(frequencies: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Fractional MIDI note of frequencies in Hz (> 0): the inverse of `midi_to_hz`."""
    return A4_NOTE + 12.0 * torch.log2(frequencies / A4_HZ)


def exp_sigmoid(
    x: Float[Tensor, "*shape"],
    exponent: float | Float[Tensor, "*#shape"] = 10.0,
    max_value: float | Float[Tensor, "*#shape"] = 2.0,
    threshold: float | Float[Tensor, "*#shape"] = 1e-7,
) -> Float[Tensor, "*shape"]:
    """Sigmoid raised to ln(exponent), bounded to (threshold, max_value + threshold).

    This is DDSP's amplitude scale (eq. 5). It is computed through the log-sigmoid, so that the
    gradient stays finite for very negative inputs.
    """
    power = torch.as_tensor(exponent, dtype=x.dtype, device=x.device).log()
    return max_value * torch.exp(power * F.logsigmoid(x)) + threshold


def safe_log(x: Float[Tensor, "*shape"], eps: float = 1e-5) -> Float[Tensor, "*shape"]:
    """Natural logarithm of max(x, eps); the gradient below `eps` is zero."""
    return torch.log(x.clamp(min=eps))


def accumulate_phase(
    cycles_per_sample: Float[Tensor, "*batch time"], exclusive: bool = False
) -> Float[Tensor, "*batch time"]:
    """Running phase in cycles, wrapped to [0, 1), of an instantaneous frequency / sample rate.

    exclusive: start at phase 0 (the sum of all *earlier* samples) instead of at the first sample's
    increment. Accumulates in float64, returns the input's dtype; the gradient is that of the
    unwrapped sum.
    """
    increments = cycles_per_sample.double()
    phase = torch.cumsum(increments, dim=-1)
    if exclusive:
        phase = phase - increments
    return (phase - phase.detach().floor()).to(cycles_per_sample.dtype)


def sequential_cumsum(values: Float[Tensor, "*shape"], dim: int = -1) -> Float[Tensor, "*shape"]:
    """Running sum rounded to the tensor's dtype at every step, as TensorFlow does on a CPU.

    torch.cumsum carries float32 sums in float64, so it lacks the drift (about 1e-3 rad after 14 000
    rad) that recorded outputs of the original contain. On other devices this is torch.cumsum.
    """
    total = torch.cumsum(values, dim)
    if values.device.type != "cpu" or values.dtype == torch.float64:
        return total
    rounded = np.cumsum(values.detach().numpy(), axis=dim, dtype=values.detach().numpy().dtype)
    return total + (torch.from_numpy(rounded) - total.detach())


def convolve(
    signal: Float[Tensor, "*#batch time"], kernel: Float[Tensor, "*#batch taps"]
) -> Float[Tensor, "*batch time+taps-1"]:
    """Full linear convolution over the last axis; leading axes broadcast.

    One FFT per *distinct* row: keep a shared kernel at size 1 on the batch axis instead of
    expanding it.
    """
    n_out = signal.shape[-1] + kernel.shape[-1] - 1
    n_fft = fast_length(n_out)
    spectrum = torch.fft.rfft(signal, n_fft) * torch.fft.rfft(kernel, n_fft)
    return torch.fft.irfft(spectrum, n_fft)[..., :n_out]


def fft_convolve(
    audio: Float[Tensor, "batch time"],
    impulse_response: Float[Tensor, "#batch *frames taps"],
    padding: str = "same",
    delay_compensation: int = -1,
) -> Float[Tensor, "batch out"]:
    """Filter audio with one impulse response, or with one per frame.

    With frames, each response filters its own ceil(time / frames) samples, and the results are
    overlap-added (LTV-FIR filter of the DDSP paper, section 3.3).

    Args:
        audio: the signal.
        impulse_response: [batch, taps] or [batch, frames, taps]; a batch of 1 is shared.
        padding: "same" returns `time` samples, "valid" (the original's word) time + taps - 1.
        delay_compensation: samples cut from the front. A negative value cuts the group delay of a
            linear-phase response, (taps - 1) // 2 - 1, as the original does.

    Raises:
        ValueError: another padding.
    """
    if padding not in ("same", "valid"):
        raise ValueError(f"padding must be 'same' or 'valid', not {padding!r}")
    n_samples, taps = audio.shape[-1], impulse_response.shape[-1]
    if impulse_response.ndim == 2:
        full = convolve(audio, impulse_response)
    else:
        n_frames = impulse_response.shape[1]
        hop = math.ceil(n_samples / n_frames)
        frames = F.pad(audio, (0, n_frames * hop - n_samples)).reshape(-1, n_frames, hop)
        full = overlap_add(convolve(frames, impulse_response), hop)
    n_out = n_samples
    if padding == "valid":
        n_out = n_samples + taps - 1
    start = delay_compensation
    if delay_compensation < 0:
        start = max((taps - 1) // 2 - 1, 0)
    return F.pad(full, (0, max(start + n_out - full.shape[-1], 0)))[..., start : start + n_out]
