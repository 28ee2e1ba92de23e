"""Upsampling of control signals from frame rate to audio rate.

Every method of the original is one formula: output sample n lies at frame position p(n), and is a
weighted sum of the frames around floor(p), with weights that depend only on the fraction of p.
Nearest takes 1 tap, linear and window 2 (straight line, raised cosine), cubic 4 (Keys 1981 with a =
-0.75, edges repeated, the fraction rounded to 1/1024 as TensorFlow's resize kernel does). Where the
hop is a whole number of samples, the taps are plain broadcasts: no gather, and a backward pass that
is a sum.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

KEYS_A = -0.75
CUBIC_STEPS = 1024
METHODS = ("nearest", "linear", "cubic", "window")


def resample(
    inputs: Float[Tensor, "frames"] | Float[Tensor, "batch frames *channels"],
    n_timesteps: int,
    method: str = "linear",
    add_endpoint: bool = True,
) -> Float[Tensor, "n_timesteps"] | Float[Tensor, "batch n_timesteps *channels"]:
    """Interpolate a control signal to `n_timesteps` samples.

    inputs: any unit; [batch, frames] may have more axes, each a signal of its own. method: one of
    METHODS. add_endpoint: hold the last frame for one more hop (hop = n_timesteps / frames); False
    puts the last frame on the last sample (for "window": hop = n_timesteps / (frames - 1)). Raises
    ValueError for another method.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, not {method!r}")
    if inputs.ndim == 1:
        return resample(inputs[None], n_timesteps, method, add_endpoint)[0]
    frames = inputs.reshape(inputs.shape[0], inputs.shape[1], -1)
    left, fraction = _positions(frames.shape[1], n_timesteps, method, add_endpoint, frames.device)
    weights, first = _tap_weights(fraction.to(frames.dtype), method)
    hop = (
        n_timesteps // frames.shape[1] if add_endpoint and n_timesteps % frames.shape[1] == 0 else 0
    )
    mix = (
        _mix_blocks(frames, weights[:, :hop], first)
        if hop
        else _mix_gather(frames, left, weights, first)
    )
    return mix.reshape(inputs.shape[0], n_timesteps, *inputs.shape[2:])


def _positions(
    n_frames: int, n_timesteps: int, method: str, add_endpoint: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Left frame index and fraction of every output sample, computed in float64."""
    if add_endpoint:
        step = n_frames / n_timesteps
    elif method == "window":
        step = (n_frames - 1) / n_timesteps
    else:
        step = (n_frames - 1) / max(n_timesteps - 1, 1)
    position = torch.arange(n_timesteps, dtype=torch.float64, device=device) * step
    left = (position + 1e-9).floor()
    return left.long(), (position - left).clamp(min=0.0)


def _tap_weights(
    fraction: Float[Tensor, "time"], method: str
) -> tuple[Float[Tensor, "taps time"], int]:
    """Weights of neighbouring frames, and the first one's offset from the left frame."""
    if method == "nearest":
        return torch.ones_like(fraction)[None], 0
    if method == "cubic":
        return _keys_weights((fraction * CUBIC_STEPS).round() / CUBIC_STEPS), -1
    right = 0.5 - 0.5 * torch.cos(torch.pi * fraction) if method == "window" else fraction
    return torch.stack([1.0 - right, right]), 0


def _keys_weights(fraction: Float[Tensor, "time"]) -> Float[Tensor, "4 time"]:
    """Keys' cubic convolution kernel at distances 1 + f, f, 1 - f and 2 - f."""

    def near(x: Tensor) -> Tensor:
        return ((KEYS_A + 2.0) * x - (KEYS_A + 3.0)) * x * x + 1.0

    def far(x: Tensor) -> Tensor:
        return KEYS_A * (((x - 5.0) * x + 8.0) * x - 4.0)

    return torch.stack(
        [far(1.0 + fraction), near(fraction), near(1.0 - fraction), far(2.0 - fraction)]
    )


def _mix_blocks(frames: Tensor, weights: Tensor, first: int) -> Tensor:
    """Weighted taps when every frame covers the same whole number of samples."""
    n_frames, n_taps = frames.shape[1], weights.shape[0]
    padded = F.pad(
        frames.transpose(1, 2), (-first, n_taps + first - 1), mode="replicate"
    ).transpose(1, 2)
    taps = [padded[:, k : k + n_frames, None] for k in range(n_taps)]
    return _weighted(taps, weights).flatten(1, 2)


def _mix_gather(frames: Tensor, left: Tensor, weights: Tensor, first: int) -> Tensor:
    """Weighted taps at arbitrary positions."""
    last = frames.shape[1] - 1
    taps = [frames[:, (left + first + k).clamp(0, last)] for k in range(weights.shape[0])]
    return _weighted(taps, weights)


def _weighted(taps: list[Tensor], weights: Float[Tensor, "taps time"]) -> Tensor:
    """Sum of taps [..., time, channels] times weights that add up to 1.

    Two taps take one pass over memory.
    """
    if len(taps) == 2:
        return torch.lerp(taps[0], taps[1], weights[1, :, None])
    terms = [tap * weight[:, None] for tap, weight in zip(taps, weights, strict=True)]
    return sum(terms[1:], terms[0])
