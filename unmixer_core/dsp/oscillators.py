"""Wavetable oscillator: band-limited tables, read bilinearly along a warped phase.

A table is a stack of single cycles ("frames"). It is held as harmonic spectra, so that one inverse
FFT per note gives the cycle with exactly the harmonics that fit below Nyquist. It is a mip map that
is continuous in pitch. Reading is bilinear in phase and position (`grid_sample`), which is
differentiable in table, phase and position alike.

Bristow-Johnson, "Wavetable Synthesis 101" (AES 1996). Warps: Chowning, "The Synthesis of Complex
Audio Spectra by Means of Frequency Modulation" (JAES 1973); Brandt, "Hard Sync without Aliasing"
(ICMC 2001), whose aliases we do not remove.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

#: Semitones of an octave.
SEMITONES = 12.0
#: Level of the square's plateau at which its Gibbs overshoot peaks at 1.
SQUARE_PLATEAU = 0.89


def band_limited_tables(
    spectra: Complex[Tensor, "batch frames harmonics"],
    frequency_hz: Float[Tensor, "batch"],
    *,
    sample_rate: float,
    n_samples: int = 2048,
    rolloff: float = 0.06,
) -> Float[Tensor, "batch frames n_samples"]:
    """Single cycles Σ Re(spectra[h] · e^{2πjhx}), x in cycles, without harmonics that would alias.

    spectra: harmonic 1 first; a cosine of amplitude a and phase p is a·e^{jp}. frequency_hz: of the
    note that will be played. Harmonics fade out over the last `rolloff` part below Nyquist, so that
    the cycle is differentiable in pitch.
    """
    harmonics = min(spectra.shape[-1], n_samples // 2 - 1)
    number = torch.arange(1, harmonics + 1, device=spectra.device, dtype=frequency_hz.dtype)
    # [batch, harmonics], 1 = Nyquist
    relative = number * frequency_hz[:, None] * (2.0 / sample_rate)
    keep = ((1.0 - relative) / rolloff).clamp(0.0, 1.0)
    bins = torch.nn.functional.pad(spectra[..., :harmonics] * keep[:, None], (1, 0))
    return torch.fft.irfft(bins * (0.5 * n_samples), n=n_samples)


def phase_cycles(
    frequency_hz: Float[Tensor, "*batch"], *, n_samples: int, sample_rate: float
) -> Float[Tensor, "*batch n_samples"]:
    """Phase frequency · n / sample_rate of a steady tone, wrapped to [0, 1) cycles.

    It is computed in float64 until it is wrapped.
    """
    time_s = torch.arange(n_samples, device=frequency_hz.device, dtype=torch.float64) / sample_rate
    cycles = frequency_hz[..., None].double() * time_s
    return (cycles - cycles.detach().floor()).to(frequency_hz.dtype)


def wavetable_oscillator(
    tables: Float[Tensor, "batch frames samples"],
    position: Float[Tensor, "#batch #voices #time"],
    phase: Float[Tensor, "batch voices time"],
) -> Float[Tensor, "batch voices time"]:
    """Read cycles along a phase, bilinearly.

    position: 0 = first, 1 = last frame of the table. phase: in cycles, any real number.
    """
    wrapped = phase - phase.detach().floor()
    # [batch, 1, frames, samples + 1]: the first sample follows the last one
    closed = torch.cat([tables, tables[..., :1]], dim=-1)[:, None]
    across = 2.0 * position.expand_as(wrapped) - 1.0
    grid = torch.view_as_real(torch.complex(2.0 * wrapped - 1.0, across))
    return torch.nn.functional.grid_sample(closed, grid, padding_mode="border", align_corners=True)[
        :, 0
    ]


def detuned_hz(
    frequency_hz: Float[Tensor, "*#shape"], detune_semitones: Float[Tensor, "*#shape"]
) -> Float[Tensor, "*shape"]:
    """frequency · 2^(semitones / 12), shapes broadcast."""
    return frequency_hz * torch.exp(detune_semitones * (math.log(2.0) / SEMITONES))


def bend_phase(
    phase: Float[Tensor, "*#shape"], amount: Float[Tensor, "*#shape"]
) -> Float[Tensor, "*shape"]:
    """Bend a phase u in [0, 1) along a cubic Bézier curve.

    amount: −1 gives u³, 0 the identity, 1 gives 1 − (1 − u)³. u' = 3u(1−u)²·c₁ + 3u²(1−u)·c₂ + u³
    with c₁ = (a + 2a²)/3, c₂ = 1 − c₁(1 − a), a = (1 + amount)/2: monotone in u.
    """
    lift = 0.5 * (1.0 + amount)
    fall = 1.0 - lift
    first, second = (lift + 2.0 * lift * lift) / 3.0, 1.0 - (fall + 2.0 * fall * fall) / 3.0
    rest = 1.0 - phase
    return 3.0 * phase * rest * (rest * first + phase * second) + phase**3


def sync_phase(
    phase: Float[Tensor, "*#shape"], ratio: Float[Tensor, "*#shape"]
) -> Float[Tensor, "*shape"]:
    """Hard sync: the slave runs `ratio` times through the table per cycle of the master.

    phase: of the master, in [0, 1) cycles.
    """
    return phase * ratio


def sine(phase: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """sin(2π phase), phase in cycles."""
    return torch.sin(2.0 * math.pi * phase)


def sub_oscillator(
    phase: Float[Tensor, "batch time"],
    tone: Float[Tensor, "batch"],
    frequency_hz: Float[Tensor, "batch"],
    *,
    sample_rate: float,
    harmonics: int = 255,
) -> Float[Tensor, "batch time"]:
    """Sine (tone 0), triangle (½), falling square (1), cross-faded linearly.

    The sound is a sum of the odd harmonics below Nyquist. phase: in cycles. Fourier series
    8/π²·(−1)^i/h² and −4/(πh); the square is scaled so that its Gibbs overshoot peaks at 1.
    """
    number = torch.arange(1, harmonics + 1, 2, device=phase.device, dtype=phase.dtype)
    sign = 1.0 - 2.0 * ((number - 1.0) / 2.0 % 2.0)
    shapes = torch.stack(
        [
            (number == 1).to(phase),
            8.0 / math.pi**2 * sign / number**2,
            -SQUARE_PLATEAU * 4.0 / math.pi / number,
        ]
    )
    place = torch.stack(
        [1.0 - 2.0 * tone, 1.0 - (2.0 * tone - 1.0).abs(), 2.0 * tone - 1.0]
    ).clamp_min(0.0)  # [3, batch]
    amplitude = place.T @ shapes  # [batch, odd harmonics]
    spectrum = torch.stack([amplitude, torch.zeros_like(amplitude)], dim=-1).flatten(-2)
    table = band_limited_tables(
        torch.complex(torch.zeros_like(spectrum), -spectrum)[:, None],
        frequency_hz,
        sample_rate=sample_rate,
    )
    return wavetable_oscillator(table, torch.zeros_like(phase)[:, None], phase[:, None])[:, 0]
