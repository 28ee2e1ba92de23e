"""The original DDSP loss (Engel et al., ICLR 2020, eq. 4)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unmixer_core.ddsp.core import safe_log

FFT_SIZES = (2048, 1024, 512, 256, 128, 64)


def spectral_loss(
    target: Float[Tensor, "batch time"],
    audio: Float[Tensor, "batch time"],
    fft_sizes: tuple[int, ...] = FFT_SIZES,
    mag_weight: float = 1.0,
    logmag_weight: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean absolute difference of magnitudes and of their logs, summed over FFT sizes.

    Frames overlap by 75 % and are not centred.
    """
    loss = target.new_zeros(())
    for size in fft_sizes:
        wanted = _trailing_stft(target, size)
        found = _trailing_stft(audio, size)
        loss = loss + mag_weight * (wanted - found).abs().mean()
        if logmag_weight:
            loss = loss + logmag_weight * (safe_log(wanted) - safe_log(found)).abs().mean()
    return loss


def _trailing_stft(
    audio: Float[Tensor, "batch time"], size: int
) -> Float[Tensor, "batch frames bins"]:
    """Magnitudes of frames that start on multiples of size / 4, the last ones padded with zeros."""
    hop = size // 4
    n_frames = math.ceil(audio.shape[-1] / hop)
    padded = F.pad(audio, (0, (n_frames - 1) * hop + size - audio.shape[-1]))
    frames = padded.unfold(-1, size, hop) * torch.hann_window(
        size, dtype=audio.dtype, device=audio.device
    )
    return torch.fft.rfft(frames).abs()
