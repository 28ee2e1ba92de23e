"""Chorus, flanger and phaser: delays and allpasses that an LFO moves.

Feedback around a slowly moving delay u is the geometric series 1/(1 − u), written as the product (1 + u)(1 + u²)(1 + u⁴)…,
so that n passes of one fractional delay each make 2ⁿ echoes. The phaser moves its allpass chain frame by frame.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unmixer_core.ddsp.fft import filter_frames


def fractional_delay(audio: Tensor, delay_samples: Tensor) -> Tensor:
    """Delay that moves, linear interpolation, silence before the start.

    audio [batch, time], delay_samples [batch, taps, time] ≥ 0 → [batch, taps, time].
    """
    n_samples = audio.shape[-1]
    index = torch.arange(n_samples, device=audio.device, dtype=delay_samples.dtype)
    place = (index - delay_samples + 1.0) * (2.0 / n_samples) - 1.0  # sample 0 is a zero put in front
    grid = torch.view_as_real(torch.complex(place, torch.zeros_like(place)))  # pairs, a third of what stack takes
    source = torch.nn.functional.pad(audio, (1, 0))[:, None, None]
    return torch.nn.functional.grid_sample(source, grid, padding_mode="border", align_corners=True)[:, 0]


def feedback_passes(audio: Tensor, delay_samples: Tensor, feedback: Tensor, *, passes: int) -> Tensor:
    """1/(1 − feedback · D) by `passes` doublings, i.e. 2^passes − 1 echoes, D f(t) = f(t − delay(t)).

    audio and delay_samples [batch, time], feedback [batch] in −1..1 → [batch, time]. A second echo was delayed when the
    first one was, not now: D² delays by delay(t) + delay(t − delay(t)), and so on.
    """
    gain = feedback[:, None]
    for step in range(passes):
        delayed = fractional_delay(audio, delay_samples[:, None])[:, 0]
        audio = audio + gain * delayed
        if step + 1 < passes:
            gain = gain * gain
            delay_samples = delay_samples + fractional_delay(delay_samples, delay_samples[:, None])[:, 0]
    return audio


def chorus(audio: Tensor, delay_ms: Tensor, feedback: Tensor, *, sample_rate: float, passes: int = 3) -> Tensor:
    """Wet signal of a chorus: the sum of several moving delays, each fed back to itself.

    audio [batch, channel, time], delay_ms [batch, channel, voices, time], feedback [batch] → [batch, channel, time].
    """
    batch, channels, voices, n_samples = delay_ms.shape
    delays = delay_ms.reshape(-1, n_samples) * (sample_rate / 1000.0)
    source = audio[:, :, None].expand(-1, -1, voices, -1).reshape(-1, n_samples)
    looped = feedback_passes(source, delays, feedback.repeat_interleave(channels * voices), passes=passes)
    heard = fractional_delay(looped, delays[:, None])
    return heard.reshape(batch, channels, voices, n_samples).sum(dim=2)


def flanger(audio: Tensor, delay_ms: Tensor, feedback: Tensor, *, sample_rate: float, passes: int = 4) -> Tensor:
    """Wet signal of a flanger: one short moving delay with feedback.

    audio [batch, channel, time], delay_ms [batch, channel, time], feedback [batch] → [batch, channel, time].
    """
    flat, delays = audio.flatten(0, 1), delay_ms.flatten(0, 1) * (sample_rate / 1000.0)
    looped = feedback_passes(flat, delays, feedback.repeat_interleave(audio.shape[1]), passes=passes)
    return fractional_delay(looped, delays[:, None])[:, 0].unflatten(0, audio.shape[:2])


def phaser(
    audio: Tensor, center_hz: Tensor, feedback: Tensor, *, sample_rate: float, hop_samples: int, stages: int = 8
) -> Tensor:
    """Wet signal of a phaser: half the input plus half an allpass chain of `stages` first-order sections, fed back.

    audio [batch, channel, time], center_hz [batch, channel, frames] (frames of `fft.filter_frames`), feedback [batch] in
    0..1 → [batch, channel, time].
    """
    frequency_hz = torch.arange(hop_samples + 1, device=audio.device, dtype=audio.dtype) * (
        sample_rate / (2 * hop_samples)
    )
    return filter_frames(
        audio, phaser_response(frequency_hz, center_hz, feedback, stages=stages), hop_samples=hop_samples
    )


def phaser_response(frequency_hz: Tensor, center_hz: Tensor, feedback: Tensor, *, stages: int) -> Tensor:
    """H = ½(1 + A)/(1 − feedback·A), A = ((1 − jr)/(1 + jr))^stages, r = f/center: [bins] × [batch, ...] → [..., bins]."""
    angle = -2.0 * stages * torch.atan(frequency_hz / center_hz[..., None])
    cosine, sine = torch.cos(angle), torch.sin(angle)
    back = feedback.reshape(-1, *([1] * (angle.dim() - 1)))
    return 0.5 * torch.complex(1.0 + cosine, sine) / torch.complex(1.0 - back * cosine, -back * sine)
