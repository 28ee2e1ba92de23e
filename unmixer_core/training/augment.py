"""Changes of log-mel frames that leave the patch as it is.

Noise, a level offset, a shift in time, masked bands and frames.

Masking after Park et al., "SpecAugment" (Interspeech 2019). Shapes: b clips, c channels, m mels, f
frames.
"""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unmixer_core import config
from unmixer_core.features.frames import FeatureSpec
from unmixer_core.model.noise import draw


def augment(
    x: Float[Tensor, "batch channels mels frames"],
    settings: config.Augment,
    spec: FeatureSpec,
    generator: torch.Generator,
) -> Float[Tensor, "batch channels mels frames"]:
    """A changed copy of features [b, c, m, f], values kept at or above the floor (-1).

    The generator lives on the CPU.
    """
    per_db = -2.0 / spec.floor_db
    b, _, mels, frames = x.shape
    white = draw(torch.randn, x.shape, generator=generator) * (settings.noise_db * per_db)
    gain = draw(torch.randn, (b, 1, 1, 1), generator=generator) * (settings.gain_db * per_db)
    x = _shifted(
        x, draw(partial(torch.randint, settings.shift_frames + 1), (b,), generator=generator)
    )
    x = torch.where(x > -1.0, (x + (white + gain).to(x)).clamp_min(-1.0), x)
    hidden = _spans(b, mels, settings.mask_mels, generator)[:, None, :, None]
    hidden = hidden | _spans(b, frames, settings.mask_frames, generator)[:, None, None, :]
    return torch.where(hidden.to(x.device), x.mean((-2, -1), keepdim=True), x)


def _shifted(
    x: Float[Tensor, "batch channels mels frames"], later: Int[Tensor, "batch"]
) -> Float[Tensor, "batch channels mels frames"]:
    """Each clip delayed by its number of frames, silence before it."""
    source = torch.arange(x.shape[-1]) - later[:, None]
    index = source.clamp_min(0)[:, None, None].expand(x.shape).to(x.device)
    return x.gather(-1, index).masked_fill((source < 0)[:, None, None].to(x.device), -1.0)


def _spans(
    b: int, length: int, widest: int, generator: torch.Generator
) -> Bool[Tensor, "batch length"]:
    """One span of 0 to `widest` per clip, as a mask [b, length]."""
    width = draw(partial(torch.randint, widest + 1), (b, 1), generator=generator)
    start = (draw(torch.rand, (b, 1), generator=generator) * (length - width + 1)).long()
    place = torch.arange(length)
    return (place >= start) & (place < start + width)
