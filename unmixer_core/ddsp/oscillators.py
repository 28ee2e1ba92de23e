"""Wavetable oscillator: tables limited to the note's band, two-way interpolated, read along a warped phase.

A table is a stack of single cycles ("frames"). It is held as harmonic spectra, so that one inverse FFT a note gives the
cycle with exactly the harmonics that fit below Nyquist: the mip map's level, continuous in pitch. Reading is bilinear in
phase and position (`grid_sample`), which is differentiable in table, phase and position alike.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SEMITONES = 12.0
SQUARE_PLATEAU = 0.89


def band_limited_tables(
    spectra: Tensor, frequency_hz: Tensor, *, sample_rate: float, n_samples: int = 2048, rolloff: float = 0.06
) -> Tensor:
    """Harmonic spectra → single cycles without what would alias.

    spectra complex [batch, frames, harmonics] (harmonic 1 first; a cosine of amplitude a and phase p is a·e^{jp}),
    frequency_hz [batch] → cycles [batch, frames, n_samples]. Harmonics fade out over the last `rolloff` part below
    Nyquist, so that the cycle is differentiable in pitch.
    """
    harmonics = min(spectra.shape[-1], n_samples // 2 - 1)
    number = torch.arange(1, harmonics + 1, device=spectra.device, dtype=frequency_hz.dtype)
    relative = number * frequency_hz[:, None] * (2.0 / sample_rate)  # [batch, harmonics], 1 = Nyquist
    keep = ((1.0 - relative) / rolloff).clamp(0.0, 1.0)
    bins = torch.nn.functional.pad(spectra[..., :harmonics] * keep[:, None], (1, 0))
    return torch.fft.irfft(bins * (0.5 * n_samples), n=n_samples)


def phase_cycles(frequency_hz: Tensor, *, n_samples: int, sample_rate: float) -> Tensor:
    """Phase of a steady tone, wrapped to [0, 1) cycles: frequency_hz [...] → [..., time], kept in float64 until wrapped."""
    time_s = torch.arange(n_samples, device=frequency_hz.device, dtype=torch.float64) / sample_rate
    cycles = frequency_hz[..., None].double() * time_s
    return (cycles - cycles.detach().floor()).to(frequency_hz.dtype)


def wavetable_oscillator(tables: Tensor, position: Tensor, phase: Tensor) -> Tensor:
    """Read cycles along a phase.

    tables [batch, frames, samples], position [batch, voices or 1, time] in [0, 1] of the table, phase [batch, voices,
    time] in cycles (any real number) → [batch, voices, time].
    """
    wrapped = phase - phase.detach().floor()
    closed = torch.cat([tables, tables[..., :1]], dim=-1)[:, None]  # [batch, 1, frames, samples + 1]
    across = 2.0 * position.expand_as(wrapped) - 1.0
    grid = torch.view_as_real(torch.complex(2.0 * wrapped - 1.0, across))
    return torch.nn.functional.grid_sample(closed, grid, padding_mode="border", align_corners=True)[:, 0]


def detuned_hz(frequency_hz: Tensor, detune_semitones: Tensor) -> Tensor:
    """frequency · 2^(semitones / 12), shapes broadcast."""
    return frequency_hz * torch.exp(detune_semitones * (math.log(2.0) / SEMITONES))


def bend_phase(phase: Tensor, amount: Tensor) -> Tensor:
    """Bend warp: phase [...] in [0, 1) drawn along a cubic Bézier ease; amount −1 (u³) .. 0 (identity) .. 1 (1 − (1 − u)³).

    u' = 3u(1−u)²·c₁ + 3u²(1−u)·c₂ + u³ with c₁ = (a + 2a²)/3, c₂ = 1 − c₁(1 − a), a = (1 + amount)/2: monotone in u.
    """
    lift = 0.5 * (1.0 + amount)
    fall = 1.0 - lift
    first, second = (lift + 2.0 * lift * lift) / 3.0, 1.0 - (fall + 2.0 * fall * fall) / 3.0
    rest = 1.0 - phase
    return 3.0 * phase * rest * (rest * first + phase * second) + phase**3


def sync_phase(phase: Tensor, ratio: Tensor) -> Tensor:
    """Hard sync: the slave runs `ratio` times through the table per cycle of the master. phase [...] in [0, 1)."""
    return phase * ratio


def modulated_phase(phase: Tensor, modulator: Tensor, depth_cycles: Tensor) -> Tensor:
    """Phase modulation (the FM of synthesizers): phase + depth · modulator, all broadcast; depth in cycles."""
    return phase + depth_cycles * modulator


def sine(phase: Tensor) -> Tensor:
    """sin(2π phase), phase in cycles."""
    return torch.sin(2.0 * math.pi * phase)


def sub_oscillator(
    phase: Tensor, tone: Tensor, frequency_hz: Tensor, *, sample_rate: float, harmonics: int = 255
) -> Tensor:
    """Sine (tone 0), triangle (½), falling square (1), cross-faded linearly, as a sum of the odd harmonics below Nyquist.

    phase [batch, time] in cycles, tone and frequency_hz [batch] → [batch, time]. Fourier series 8/π²·(−1)^i/h² and
    −4/(πh); the square is scaled so that its Gibbs overshoot peaks at 1.
    """
    number = torch.arange(1, harmonics + 1, 2, device=phase.device, dtype=phase.dtype)
    sign = 1.0 - 2.0 * ((number - 1.0) / 2.0 % 2.0)
    shapes = torch.stack(
        [(number == 1).to(phase), 8.0 / math.pi**2 * sign / number**2, -SQUARE_PLATEAU * 4.0 / math.pi / number]
    )
    place = torch.stack([1.0 - 2.0 * tone, 1.0 - (2.0 * tone - 1.0).abs(), 2.0 * tone - 1.0]).clamp_min(
        0.0
    )  # [3, batch]
    amplitude = place.T @ shapes  # [batch, odd harmonics]
    spectrum = torch.stack([amplitude, torch.zeros_like(amplitude)], dim=-1).flatten(-2)
    table = band_limited_tables(
        torch.complex(torch.zeros_like(spectrum), -spectrum)[:, None], frequency_hz, sample_rate=sample_rate
    )
    return wavetable_oscillator(table, torch.zeros_like(phase)[:, None], phase[:, None])[:, 0]
