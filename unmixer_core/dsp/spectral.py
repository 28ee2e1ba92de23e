"""Spectral distances: a multi-resolution loss for training and ITF, and MSS itself.

`multiscale_spectral` is what this project trains with: one value per clip, level-sensitive, stereo,
in mel bands, with the target's side computed once by `prepare`. `mss` is the evaluation metric of
Hayes et al. 2025: a multi-scale log-mel distance that ignores level and is differentiable.

Both use `stft_magnitude`, whose backward pass is written out: one inverse real FFT and an
overlap-add take about half the time of differentiating through torch.stft. It can be differentiated
once, not twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unmixer_core.dsp.fft import overlap_add

#: Window and hop in milliseconds, number of mel bands (Hayes et al. 2025).
MSS_SCALES_MS = ((10, 5, 32), (25, 10, 64), (100, 50, 128))
#: Levels further below the clip's peak are cut off.
MSS_RANGE_DB = 80.0
#: A clip whose peak power is below this is silence. The square is still a float32.
SILENT_POWER = 1e-14
#: Slaney's mel scale: linear up to the break, then logarithmic.
SLANEY_BREAK_HZ = 1000.0
SLANEY_HZ_PER_MEL = 200.0 / 3.0
SLANEY_LOG_STEP = math.log(6.4) / 27.0


@dataclass(frozen=True)
class SpectralSettings:
    """What `multiscale_spectral` compares.

    fft_sizes: windows in samples, hop = size / hop_divisor. mel: bins summed to 2 sqrt(size) Slaney
    mel bands (32, 64, 128 for 256, 1024, 4096), False: plain FFT bins. linear_weight weighs the
    relative L1 of magnitudes (what is loud), log_weight the L1 of their logarithms in nepers (what
    is quiet). floor: amplitude re full scale under which the logarithm flattens. stereo:
    "mid_side", "left_right" or "mono".
    """

    fft_sizes: tuple[int, ...] = (256, 1024, 4096)
    hop_divisor: int = 4
    mel: bool = True
    linear_weight: float = 1.0
    log_weight: float = 1.0
    floor: float = 1e-4
    stereo: str = "mid_side"


@dataclass(frozen=True)
class Spectra:
    """Magnitudes of a batch at every resolution (full scale = 1), and their floored logarithms.

    The frames of all channels follow each other.
    """

    magnitudes: tuple[Float[Tensor, "batch _frames _bands"], ...]
    logarithms: tuple[Float[Tensor, "batch _frames _bands"], ...]
    sample_rate: int
    settings: SpectralSettings


def prepare(
    audio: Float[Tensor, "batch channel time"],
    sample_rate: int = 44100,
    settings: SpectralSettings = SpectralSettings(),
) -> Spectra:
    """Spectra of a batch, for a target that `multiscale_spectral` compares many times.

    sample_rate: Hz. Raises ValueError for a `settings.stereo` that is none of the three.
    """
    channels = _stereo_rows(audio, settings.stereo)
    magnitudes = []
    for size in settings.fft_sizes:
        found = stft_magnitude(channels, size, size // settings.hop_divisor, amplitude=True)
        if settings.mel:
            bank = mel_bank(
                size, round(2.0 * math.sqrt(size)), sample_rate, audio.dtype, audio.device
            )
            found = found @ (bank / bank.sum(0).clamp(min=1e-12))
        magnitudes.append(found.reshape(audio.shape[0], -1, found.shape[-1]))
    logarithms = tuple(torch.log(m + settings.floor) for m in magnitudes)
    return Spectra(tuple(magnitudes), logarithms, sample_rate, settings)


def multiscale_spectral(
    audio: Float[Tensor, "batch channel time"],
    target: Float[Tensor, "#batch channel time"] | Spectra,
    sample_rate: int = 44100,
    settings: SpectralSettings = SpectralSettings(),
) -> Float[Tensor, "batch"]:
    """Level-sensitive distance of every clip to its target, averaged over resolutions.

    It is 0 only for equal spectra, and its gradient is finite at silence. target: audio, or
    `prepare(...)` of it, whose sample rate and settings are then used; a batch of 1 is compared
    with every clip.
    """
    wanted = target if isinstance(target, Spectra) else prepare(target, sample_rate, settings)
    found, settings = prepare(audio, wanted.sample_rate, wanted.settings), wanted.settings
    loss = audio.new_zeros(audio.shape[0])
    for a, b in zip(found.magnitudes, wanted.magnitudes, strict=True):
        loss = loss + settings.linear_weight * (a - b).abs().mean((1, 2)) / (
            b.mean((1, 2)) + settings.floor
        )
    for a, b in zip(found.logarithms, wanted.logarithms, strict=True):
        loss = loss + settings.log_weight * (a - b).abs().mean((1, 2))
    return loss / len(settings.fft_sizes)


def mel_powers(
    audio: Float[Tensor, "batch time"], sample_rate: int
) -> tuple[Float[Tensor, "batch _frames _mels"], ...]:
    """Power in Slaney mel bands at the three MSS scales.

    Windows are Hann, frames are centred, and there are zeros beyond the ends.
    """
    scales = []
    for window_ms, hop_ms, n_mels in MSS_SCALES_MS:
        size = window_ms * sample_rate // 1000
        hop = hop_ms * sample_rate // 1000
        bank = mel_bank(size, n_mels, sample_rate, audio.dtype, audio.device)
        scales.append(stft_magnitude(audio, size, hop).square() @ bank)
    return tuple(scales)


def mss_spectra(
    audio: Float[Tensor, "batch time"], sample_rate: int, soft_floor: bool = False
) -> tuple[Float[Tensor, "batch _frames _mels"], ...]:
    """Log-mel spectrograms of the three MSS scales in dB re the clip's own peak, from -80 to 0.

    Silence is -80 everywhere. soft_floor: powers fade into the floor instead of being cut there, so
    that bins below it have a gradient. The difference is at most 3 dB.
    """
    floor = 10.0 ** (-MSS_RANGE_DB / 10.0)
    scales = []
    for power in mel_powers(audio, sample_rate):
        share = power / power.amax((1, 2), keepdim=True).clamp(min=SILENT_POWER)
        scales.append(10.0 * torch.log10(share + floor if soft_floor else share.clamp(min=floor)))
    return tuple(scales)


def mss(
    audio: Float[Tensor, "batch *channel time"],
    target: Float[Tensor, "#batch *channel time"]
    | tuple[Float[Tensor, "#batch _frames _mels"], ...],
    sample_rate: int,
    soft_floor: bool = False,
) -> Float[Tensor, "batch"]:
    """Multi-scale log-mel distance in dB (Hayes et al. 2025); lower is better.

    It ignores level and is 0 for equal sounds. Stereo is mixed down (mean of the channels) first.
    target: audio, or `mss_spectra` of its mix-down.
    """
    wanted = (
        target
        if isinstance(target, tuple)
        else mss_spectra(mix_down(target), sample_rate, soft_floor)
    )
    found = mss_spectra(mix_down(audio), sample_rate, soft_floor)
    return torch.stack(
        [(a - b).abs().mean((1, 2)) for a, b in zip(found, wanted, strict=True)]
    ).mean(0)


def mix_down(audio: Float[Tensor, "batch *channel time"]) -> Float[Tensor, "batch time"]:
    """Mean over the channel axis, if there is one."""
    return audio.mean(1) if audio.ndim == 3 else audio


def stft_magnitude(
    audio: Float[Tensor, "batch time"],
    window_samples: int,
    hop_samples: int,
    amplitude: bool = False,
) -> Float[Tensor, "batch frames bins"]:
    """Magnitudes under a periodic Hann window.

    Frames centred on multiples of the hop, zeros beyond the ends.

    amplitude: scaled so that a full-scale sinusoid peaks at 1. The gradient at zero magnitude is 0.
    """
    window = _hann(window_samples, audio.dtype, audio.device)
    if amplitude:
        window = window * (2.0 / window.sum())
    return _StftMagnitude.apply(audio, window, hop_samples)


@lru_cache(maxsize=64)
# Cached for later calls: a tensor made in inference mode could not be used in a training step.
@torch.inference_mode(False)
def mel_bank(
    n_fft: int,
    n_mels: int,
    sample_rate: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Float[Tensor, "bins mels"]:
    """Triangular filters of equal area, evenly spaced on Slaney's mel scale up to Nyquist."""
    bins = torch.linspace(0.0, sample_rate / 2.0, n_fft // 2 + 1, dtype=torch.float64)
    if n_fft % 2:
        bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * (sample_rate / n_fft)
    edges = _mel_to_hz(
        torch.linspace(0.0, _hz_to_mel(sample_rate / 2.0), n_mels + 2, dtype=torch.float64)
    )
    low = edges[:-2]
    centre = edges[1:-1]
    high = edges[2:]
    rising = (bins[:, None] - low) / (centre - low)
    falling = (high - bins[:, None]) / (high - centre)
    bank = torch.minimum(rising, falling).clamp(min=0.0) * (2.0 / (high - low))
    return bank.to(device=device, dtype=dtype)


def _hz_to_mel(hz: float) -> float:
    """Slaney's scale: linear up to 1 kHz, logarithmic above."""
    linear = hz / SLANEY_HZ_PER_MEL
    corner = SLANEY_BREAK_HZ / SLANEY_HZ_PER_MEL
    return (
        linear
        if hz < SLANEY_BREAK_HZ
        else corner + math.log(hz / SLANEY_BREAK_HZ) / SLANEY_LOG_STEP
    )


def _mel_to_hz(mel: Float[Tensor, "edges"]) -> Float[Tensor, "edges"]:
    """The inverse of `_hz_to_mel`."""
    corner = SLANEY_BREAK_HZ / SLANEY_HZ_PER_MEL
    return torch.where(
        mel < corner,
        mel * SLANEY_HZ_PER_MEL,
        SLANEY_BREAK_HZ * torch.exp((mel - corner) * SLANEY_LOG_STEP),
    )


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _hann(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.hann_window(size, dtype=dtype, device=device)


def _stereo_rows(
    audio: Float[Tensor, "batch channel time"], stereo: str
) -> Float[Tensor, "rows time"]:
    """Clips as single channels, batch-major.

    Mid and side (each halved), left and right, or the mix-down.
    """
    if stereo not in ("mid_side", "left_right", "mono"):
        raise ValueError(f"stereo must be 'mid_side', 'left_right' or 'mono', not {stereo!r}")
    if stereo == "mono" or audio.shape[1] == 1:
        return audio.mean(1)
    if stereo == "left_right":
        return audio.flatten(0, 1)
    left, right = audio.unbind(1)
    return torch.stack([0.5 * (left + right), 0.5 * (left - right)], dim=1).flatten(0, 1)


class _StftMagnitude(torch.autograd.Function):
    """|rfft(window * frames)| of centred frames; see `stft_magnitude`."""

    @staticmethod
    def forward(ctx, audio: Tensor, window: Tensor, hop: int) -> Tensor:
        half = window.shape[0] // 2
        frames = F.pad(audio, (half, half)).unfold(-1, window.shape[0], hop)
        spectrum = torch.fft.rfft(frames * window)
        magnitude = spectrum.abs()
        ctx.save_for_backward(spectrum, magnitude, window)
        ctx.hop = hop
        ctx.n_samples = audio.shape[-1]
        return magnitude

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        spectrum, magnitude, window = ctx.saved_tensors
        size = window.shape[0]
        radial = grad / magnitude.clamp(min=torch.finfo(magnitude.dtype).tiny)
        # irfft counts the bins between 0 Hz and Nyquist twice.
        radial[..., 1 : (size + 1) // 2] *= 0.5
        frames = torch.fft.irfft(spectrum * radial, size, norm="forward") * window
        line = overlap_add(frames, ctx.hop)[:, size // 2 :][:, : ctx.n_samples]
        return F.pad(line, (0, ctx.n_samples - line.shape[-1])), None, None
