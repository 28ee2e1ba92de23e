"""Reverb as exponentially decaying noise in octave-wide bands, each with its own decay time.

A dense late reverb is, statistically, noise whose bands decay exponentially (Moorer 1979; Polack
1988; velvet-noise FIRs: Järveläinen and Karjalainen 2007). The noise is fixed, so that the response
is a smooth function of its controls.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unmixer_core.dsp.fft import Circle, circle

LOG_T60 = math.log(1000.0)
LOWEST_HZ = 125.0


def band_centers_hz(n_bands: int, like: Float[Tensor, "*shape"]) -> Float[Tensor, "bands"]:
    """Octave-spaced centres in Hz, 125 · 2^i. `like` lends its dtype and device."""
    return LOWEST_HZ * 2.0 ** torch.arange(n_bands, device=like.device, dtype=like.dtype)


def noise_bands(
    n_samples: int, *, sample_rate: float, n_bands: int = 7, seed: int = 0
) -> Float[Tensor, "bands 2 n_samples"]:
    """White noise of variance 1, two independent channels, split into bands that sum to it.

    Bands are raised cosines over log-frequency, centred on `band_centers_hz`; the first reaches
    down to 0 Hz and the last up to Nyquist.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, n_samples, generator=generator)
    spectrum = torch.fft.rfft(noise)
    frequency = torch.arange(spectrum.shape[-1]) * (sample_rate / n_samples)
    octave = torch.log2(frequency.clamp_min(1.0) / LOWEST_HZ).clamp(0.0, n_bands - 1.0)
    distance = (octave[None] - torch.arange(n_bands)[:, None]).abs().clamp(max=1.0)
    weight = torch.cos(0.5 * math.pi * distance).square()  # [bands, bins], sums to 1
    return torch.fft.irfft(spectrum[None] * weight[:, None], n=n_samples)


def impulse_response(
    bands: Float[Tensor, "bands 2 time"],
    decay_time_s: Float[Tensor, "batch bands"],
    gain: Float[Tensor, "batch bands"],
    build_up_s: Float[Tensor, "batch"],
    *,
    sample_rate: float,
    build_up_power: float = 1.0,
) -> Float[Tensor, "batch 2 time"]:
    """Decaying noise (1 − e^{−(t/build_up)^build_up_power}) · Σ gain · 1000^{−t/decay_time} · band.

    Moorer 1979; Polack 1988.
    bands: of `noise_bands`. decay_time_s: T60 in seconds > 0. gain: linear. build_up_s: how long
    the density takes to rise, seconds > 0; build_up_power ≥ 1. sample_rate: Hz.
    """
    time_s = torch.arange(bands.shape[-1], device=bands.device, dtype=bands.dtype) / sample_rate
    decay = torch.exp(time_s * (-LOG_T60 / decay_time_s[..., None]))
    envelope = gain[..., None] * decay  # [batch, bands, time]
    share = time_s / build_up_s[:, None]
    if build_up_power != 1.0:
        share = share**build_up_power
    rise = -torch.expm1(-share)
    mixed = torch.einsum("nct,bnt->bct", bands, envelope)
    return mixed * rise[:, None]


def reverb_circle(
    audio: Float[Tensor, "*batch time"], length: int, predelay_samples: float
) -> Circle:
    """Return a circle on which audio and a response convolve without wrapping into the clip.

    length: of the response, in samples. predelay_samples: the longest delay before it.
    """
    return circle(
        audio.shape[-1],
        pad_samples=min(length, audio.shape[-1]) + math.ceil(predelay_samples),
        like=audio,
    )
