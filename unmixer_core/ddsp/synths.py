"""Oscillators of the original DDSP: wavetable, harmonic, and a free bank of sinusoids.

Engel et al., "DDSP: Differentiable Digital Signal Processing", ICLR 2020
(https://arxiv.org/abs/2001.04643), and Shan et al., "Differentiable Wavetable Synthesis", ICASSP
2022 (https://arxiv.org/abs/2111.10003). Values follow Magenta DDSP. A wavetable is read bilinearly
from the neighbouring samples instead of by a dense [batch, time, table] product.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unmixer_core.ddsp.core import accumulate_phase, sequential_cumsum
from unmixer_core.ddsp.resampling import resample
from unmixer_core.dsp.oscillators import wavetable_oscillator


def linear_lookup(
    phase: Float[Tensor, "batch time 1"], wavetables: Float[Tensor, "batch *time table"]
) -> Float[Tensor, "batch time"]:
    """Read wavetables at a phase in [0, 1), linearly interpolated.

    The table wraps round to its first sample.

    wavetables: [batch, time, table] one per sample, or [batch, table] one for all.
    """
    if wavetables.ndim == 2:
        wavetables = wavetables[:, None].expand(-1, phase.shape[1], -1)
    n_table = wavetables.shape[-1]
    position = phase[..., 0] * n_table
    index = position.detach().floor()
    fraction = position - index
    low = (index.long() % n_table)[..., None]
    at = torch.cat([low, (low + 1) % n_table], dim=-1)
    value = torch.gather(wavetables, -1, at)
    return torch.lerp(value[..., 0], value[..., 1], fraction)


def wavetable_synthesis(
    frequencies: Float[Tensor, "batch frames 1"],
    amplitudes: Float[Tensor, "batch frames 1"],
    wavetables: Float[Tensor, "batch *frames table"],
    n_samples: int = 64000,
    sample_rate: int = 16000,
    use_angular_cumsum: bool = False,
) -> Float[Tensor, "batch n_samples"]:
    """Monophonic wavetable oscillator; frequencies in Hz, linear amplitudes.

    Frequencies and tables are interpolated linearly, amplitudes by raised cosines. Not band-limited
    (as the original). use_angular_cumsum: see `oscillator_bank`.
    """
    amplitude = resample(amplitudes, n_samples, method="window")[..., 0]
    frequency = resample(frequencies, n_samples)[..., 0]
    phase = _running_cycles(frequency / sample_rate, use_angular_cumsum, exclusive=True)
    if wavetables.ndim == 2:
        wavetables = wavetables[:, None]
    return amplitude * _read_morphing(phase, wavetables)


def _read_morphing(
    phase: Float[Tensor, "batch time"], wavetables: Float[Tensor, "batch frames table"]
) -> Float[Tensor, "batch time"]:
    """Read a table that moves from frame to frame while the phase runs; the last frame is held."""
    n_frames = wavetables.shape[1]
    n_samples = phase.shape[1]
    index = torch.arange(n_samples, dtype=torch.float64, device=phase.device)
    last = n_frames - 1
    frame = (index * (n_frames / n_samples)).clamp(max=last)
    # A single frame is at position 0, whatever the time.
    position = (frame / max(last, 1)).to(phase.dtype)
    return wavetable_oscillator(wavetables, position[None, None], phase[:, None])[:, 0]


def _running_cycles(
    cycles_per_sample: Float[Tensor, "batch time"], accurate: bool, exclusive: bool
) -> Tensor:
    """Phase in [0, 1), drift-free or as the original sums it."""
    if accurate:
        return accumulate_phase(cycles_per_sample, exclusive)
    total = sequential_cumsum(
        F.pad(cycles_per_sample, (1, 0))[:, :-1] if exclusive else cycles_per_sample
    )
    return total - total.detach().floor()


def harmonic_frequencies(
    frequencies: Float[Tensor, "batch time 1"], n_harmonics: int
) -> Float[Tensor, "batch time n_harmonics"]:
    """Integer multiples 1 ... n_harmonics of a fundamental, in its unit."""
    return frequencies * torch.arange(
        1, n_harmonics + 1, dtype=frequencies.dtype, device=frequencies.device
    )


def remove_above_nyquist(
    frequency_envelopes: Float[Tensor, "*shape"],
    amplitude_envelopes: Float[Tensor, "*shape"],
    sample_rate: int = 16000,
) -> Float[Tensor, "*shape"]:
    """Amplitudes with every partial at or above half the sample rate set to zero."""
    return torch.where(frequency_envelopes < sample_rate / 2, amplitude_envelopes, 0.0)


def oscillator_bank(
    frequency_envelopes: Float[Tensor, "batch time sinusoids"],
    amplitude_envelopes: Float[Tensor, "batch time sinusoids"],
    sample_rate: int = 16000,
    sum_sinusoids: bool = True,
    use_angular_cumsum: bool = False,
) -> Float[Tensor, "batch time"] | Float[Tensor, "batch time sinusoids"]:
    """Sum of sinusoids with audio-rate frequencies in Hz and linear amplitudes.

    With `sum_sinusoids` False the single sinusoids come back. use_angular_cumsum: accumulate the
    phase in float64 and wrap it. False reproduces the original's default: a plain running sum in
    the input's dtype, whose rounding detunes float32 signals of more than a few seconds.
    """
    amplitude = remove_above_nyquist(frequency_envelopes, amplitude_envelopes, sample_rate)
    if use_angular_cumsum:
        cycles = accumulate_phase((frequency_envelopes / sample_rate).transpose(1, 2)).transpose(
            1, 2
        )
        radians = cycles * (2.0 * torch.pi)
    else:
        radians = sequential_cumsum(frequency_envelopes * (2.0 * torch.pi) / sample_rate, dim=1)
    partials = amplitude * torch.sin(radians)
    return partials.sum(-1) if sum_sinusoids else partials


def harmonic_synthesis(
    frequencies: Float[Tensor, "batch frames 1"],
    amplitudes: Float[Tensor, "batch frames 1"],
    harmonic_shifts: Float[Tensor, "batch frames harmonics"] | None = None,
    harmonic_distribution: Float[Tensor, "batch frames harmonics"] | None = None,
    n_samples: int = 64000,
    sample_rate: int = 16000,
    amp_resample_method: str = "window",
    use_angular_cumsum: bool = False,
) -> Float[Tensor, "batch n_samples"]:
    """Additive synthesis of one fundamental's partials from frame-rate controls.

    harmonic_distribution: linear amplitude of each partial relative to `amplitudes`, not normalised
    here (None: the fundamental alone). harmonic_shifts: relative detuning of each partial
    (frequency times 1 + shift).
    """
    sizes = [c.shape[-1] for c in (harmonic_distribution, harmonic_shifts) if c is not None]
    partial_hz = harmonic_frequencies(frequencies, sizes[0] if sizes else 1)
    if harmonic_shifts is not None:
        partial_hz = partial_hz * (1.0 + harmonic_shifts)
    levels = amplitudes if harmonic_distribution is None else amplitudes * harmonic_distribution
    return oscillator_bank(
        resample(partial_hz, n_samples),
        resample(levels.expand_as(partial_hz), n_samples, method=amp_resample_method),
        sample_rate,
        use_angular_cumsum=use_angular_cumsum,
    )
