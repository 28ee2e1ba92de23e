"""Saturation curves with anti-aliasing, and a feed-forward compressor.

Compressor: Giannoulis, Massberg and Reiss, "Digital Dynamic Range Compressor Design" (JAES 2012),
branching smoother on the mean square. The branch of every control frame is found first, without
gradient; given the branches the smoother is a linear recurrence, which `linear_recurrence` solves
in log₂(frames) parallel steps with exact gradients to both times. Anti-aliasing is oversampling:
Kahles, Esqueda and Välimäki, "Oversampling for Nonlinear Waveshaping" (JAES 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unmixer_core.dsp.fft import fast_length
from unmixer_core.dsp.levels import decibels_to_power

#: Keeps the logarithm of silence finite.
POWER_FLOOR = 1e-10
#: Zeros behind a clip, so that the ideal lowpass does not ring from its end into its start.
EDGE_SAMPLES = 256
#: A memoryless function of a sample; full scale is 1.
Curve = Callable[[Float[Tensor, "*shape"]], Float[Tensor, "*shape"]]


def soft_clip(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """tanh(x): slope 1 at the origin, ±1 far out."""
    return torch.tanh(x)


def hard_clip(x: Float[Tensor, "*shape"], *, leak: float = 0.0) -> Float[Tensor, "*shape"]:
    """x limited to −1..1; outside, `leak` of the slope stays in the gradient only."""
    clipped = x.clamp(-1.0, 1.0)
    return clipped + leak * (x - x.detach()) if leak else clipped


def linear_fold(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Triangle of period 4 through the origin with slope 1: what exceeds ±1 is folded back."""
    phase = 0.25 * x + 0.75
    wrapped = phase - phase.detach().floor()
    return (4.0 * wrapped - 2.0).abs() - 1.0


def sine_fold(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """sin(π x / 2): ±1 at ±1, folded back beyond."""
    return torch.sin(0.5 * math.pi * x)


def oversampled(
    audio: Float[Tensor, "*batch time"], curve: Curve, *, factor: int = 2
) -> Float[Tensor, "*batch time"]:
    """curve(audio) computed at `factor` times the rate, so that what would alias is mostly cut off.

    Up and down by zero-padding and cutting the spectrum of the whole clip: an ideal lowpass.
    """
    if factor == 1:
        return curve(audio)
    n_samples = audio.shape[-1]
    n_fft = fast_length(n_samples + EDGE_SAMPLES)
    raised = torch.fft.irfft(torch.fft.rfft(audio, n=n_fft), n=factor * n_fft) * factor
    shaped = torch.fft.rfft(curve(raised))[..., : n_fft // 2 + 1]
    return torch.fft.irfft(shaped, n=n_fft)[..., :n_samples] / factor


def linear_recurrence(
    coefficient: Float[Tensor, "*batch frames"], value: Float[Tensor, "*batch frames"]
) -> Float[Tensor, "*batch frames"]:
    """y[n] = coefficient[n] · y[n−1] + value[n], y[−1] = 0, along the last dimension.

    Solved by recursive doubling: Hillis and Steele, "Data parallel algorithms" (1986);
    |coefficient| ≤ 1 keeps it stable.
    """
    length, step = value.shape[-1], 1
    while step < length:
        earlier = torch.nn.functional.pad(value[..., :-step], (step, 0))
        value = value + coefficient * earlier
        shifted = torch.nn.functional.pad(coefficient[..., :-step], (step, 0))
        step *= 2
        coefficient = coefficient * shifted if step < length else coefficient
    return value


def branching_smoother(
    power: Float[Tensor, "batch channel frames"],
    attack_keep: Float[Tensor, "batch"],
    release_keep: Float[Tensor, "batch"],
    *,
    floor: Float[Tensor, "batch"],
) -> Float[Tensor, "batch channel frames"]:
    """y[n] = k y[n−1] + (1 − k) power[n], k = attack_keep where power > y, else release_keep.

    The smooth branching detector of Giannoulis et al. 2012, on the mean square. power: ≥ 0, re full
    scale. keeps: e^(−frame / time), 0 ... 1. y starts at the floor (a power) and never falls below
    it.
    """
    rising, held = _branches(power, attack_keep, release_keep, floor)
    keep = torch.where(rising, attack_keep[:, None, None], release_keep[:, None, None])
    rest = floor[:, None, None]
    keep_here = torch.where(held, torch.zeros_like(keep), keep)
    value = torch.where(held, rest.expand_as(power), (1.0 - keep) * power)
    first = torch.cat([value[..., :1] + keep_here[..., :1] * rest, value[..., 1:]], dim=-1)
    return linear_recurrence(keep_here, first)


def _branches(
    power: Float[Tensor, "batch channel frames"],
    attack_keep: Float[Tensor, "batch"],
    release_keep: Float[Tensor, "batch"],
    floor: Float[Tensor, "batch"],
) -> tuple[Bool[Tensor, "batch channel frames"], Bool[Tensor, "batch channel frames"]]:
    """Which frames rise, and which stay at the floor.

    This runs the recursion itself, frame by frame over the whole batch, without gradient.
    """
    # [frames, batch, channel]
    steps = np.moveaxis(power.detach().cpu().double().numpy(), -1, 0).copy()
    attack, release, rest = (
        v.detach().cpu().double().numpy()[:, None] for v in (attack_keep, release_keep, floor)
    )
    level = np.broadcast_to(rest, steps.shape[1:]).copy()
    rising = np.empty(steps.shape, bool)
    held = np.empty(steps.shape, bool)
    for n, now in enumerate(steps):
        np.greater(now, level, out=rising[n])
        keep = np.where(rising[n], attack, release)
        level = keep * level + (1.0 - keep) * now
        np.less(level, rest, out=held[n])
        np.maximum(level, rest, out=level)
    masks = (
        torch.from_numpy(np.moveaxis(m, 0, -1).copy()).to(power.device) for m in (rising, held)
    )
    rising_mask, held_mask = masks
    return rising_mask, held_mask


def compressor(
    audio: Float[Tensor, "batch channel time"],
    threshold_db: Float[Tensor, "batch"],
    slope: Float[Tensor, "batch"],
    attack_ms: Float[Tensor, "batch"],
    release_ms: Float[Tensor, "batch"],
    *,
    sample_rate: float,
    hop_samples: int = 16,
) -> Float[Tensor, "batch channel time"]:
    """Downward compression with a hard knee, each channel by its own level.

    Giannoulis et al. 2012, with `branching_smoother`. Above the threshold the gain is (threshold /
    level)^slope of the smoothed RMS level. threshold_db: dB re full scale. slope: 1 − 1/ratio, 0 =
    none, 1 = limiter. attack_ms, release_ms: time constants in milliseconds > 0. sample_rate: Hz.
    hop_samples: the level's control frame, between which the gain is a ramp.
    """
    n_samples = audio.shape[-1]
    frames = -(-n_samples // hop_samples)
    padded = torch.nn.functional.pad(audio, (0, frames * hop_samples - n_samples))
    power = padded.unflatten(-1, (frames, hop_samples)).square().mean(dim=-1)
    floor = decibels_to_power(threshold_db)
    frame_ms = 1000.0 * hop_samples / sample_rate
    keeps = [torch.exp(-frame_ms / time_ms) for time_ms in (attack_ms, release_ms)]
    level = branching_smoother(power, *keeps, floor=floor)
    excess = (
        torch.log(level.clamp_min(POWER_FLOOR))
        - torch.log(floor.clamp_min(POWER_FLOOR))[:, None, None]
    )
    # [batch, channel, frames]
    gain = torch.exp(-0.5 * slope[:, None, None] * excess.clamp_min(0.0))
    smooth = _hold_and_ramp(gain, hop_samples)[..., :n_samples]
    return audio * smooth


def _hold_and_ramp(
    frames: Float[Tensor, "*batch frames"], hop_samples: int
) -> Float[Tensor, "*batch time"]:
    """Linear ramps from each frame's value to the next; time = frames · hop."""
    following = torch.cat([frames[..., 1:], frames[..., -1:]], dim=-1)
    ramp = torch.arange(hop_samples, device=frames.device, dtype=frames.dtype) / hop_samples
    return (frames[..., None] + (following - frames)[..., None] * ramp).flatten(-2)
