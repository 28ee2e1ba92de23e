"""What the encoder sees: log-mel spectrograms of mid and side, of the clip at peak level 1.

Mel scale after HTK (O'Shaughnessy 1987), triangular filters, power in dB, floored `floor_db` below
0 dBFS and mapped to about [−1, 1]. Kept as float16 shards beside the patches, so that training
never touches audio, or (`features.store` off) made from the clips whenever they are asked for,
where disk is dearer than a GPU's time.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from unmixer_core import config


@dataclass(frozen=True)
class FeatureSpec:
    """The settings that made a set of features, as stored beside them and in model checkpoints."""

    sample_rate: int
    n_fft: int
    hop: int
    n_mels: int
    fmin_hz: float
    fmax_hz: float
    floor_db: float

    @classmethod
    def of(cls, settings: config.Features, sample_rate: int) -> FeatureSpec:
        names = ("n_fft", "hop", "n_mels", "fmin_hz", "fmax_hz", "floor_db")
        return cls(sample_rate, **{name: getattr(settings, name) for name in names})


def log_mel(audio: Tensor, spec: FeatureSpec) -> Tensor:
    """audio [..., 2, time] at spec.sample_rate → [..., 2 (mid, side), n_mels, frames],
    level-normalised, about [−1, 1].
    """
    normalised = audio / audio.abs().amax(dim=(-2, -1), keepdim=True).clamp_min(1e-9)
    left, right = normalised[..., 0, :], normalised[..., 1, :]
    pair = torch.stack([(left + right) / 2, (left - right) / 2], dim=-2)
    window = torch.hann_window(spec.n_fft, dtype=audio.dtype, device=audio.device)
    flat = pair.reshape(-1, pair.shape[-1])
    spectrum = torch.stft(
        flat, spec.n_fft, spec.hop, window=window, return_complex=True, pad_mode="constant"
    )
    power = (spectrum.abs() / window.sum() * 2).square()
    mel = mel_filters(spec).to(power) @ power
    floor = 10.0 ** (spec.floor_db / 10.0)
    decibels = 10.0 * torch.log10(mel.clamp_min(floor))
    scaled = decibels * (2.0 / -spec.floor_db) + 1.0
    frames = pair.shape[-1] // spec.hop
    return scaled[..., :frames].reshape(*pair.shape[:-1], spec.n_mels, frames)


@lru_cache(maxsize=8)
def mel_filters(spec: FeatureSpec) -> Tensor:
    """Triangular HTK filters [n_mels, n_fft/2+1]."""
    from unmixer_core.features.torchaudio_cpu import torchaudio

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # bands above Nyquist, or narrower than a bin, are empty
        bank = torchaudio.functional.melscale_fbanks(
            spec.n_fft // 2 + 1,
            spec.fmin_hz,
            spec.fmax_hz,
            spec.n_mels,
            spec.sample_rate,
            mel_scale="htk",
        )
    return bank.T.contiguous()
