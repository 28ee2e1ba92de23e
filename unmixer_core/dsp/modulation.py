"""Chorus, flanger and phaser: delays and allpasses that an LFO moves.

Feedback around a slowly moving delay u is the geometric series 1/(1 − u), written as the product (1
+ u)(1 + u²)(1 + u⁴)…, so that n passes of one fractional delay each make 2ⁿ echoes. The phaser
moves its allpass chain frame by frame.

Delay lines: Dattorro, "Effect Design, Part 2: Delay-Line Modulation and Chorus" (JAES 1997).
Phaser: J. O. Smith, "An Allpass Approach to Digital Phasing and Flanging" (ICMC 1984).
"""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from unmixer_core.dsp.fft import filter_frames, frame_frequencies_hz


def fractional_delay(
    audio: Float[Tensor, "batch time"], delay_samples: Float[Tensor, "batch taps time"]
) -> Float[Tensor, "batch taps time"]:
    """x(t − delay(t)), linearly interpolated, with silence before the start.

    delay_samples: ≥ 0, may change from sample to sample.
    """
    n_samples = audio.shape[-1]
    index = torch.arange(n_samples, device=audio.device, dtype=delay_samples.dtype)
    # Sample 0 of the source is a zero that is put in front.
    place = (index - delay_samples + 1.0) * (2.0 / n_samples) - 1.0
    # Pairs of coordinates; this takes a third of the time of `stack`.
    grid = torch.view_as_real(torch.complex(place, torch.zeros_like(place)))
    source = torch.nn.functional.pad(audio, (1, 0))[:, None, None]
    return torch.nn.functional.grid_sample(source, grid, padding_mode="border", align_corners=True)[
        :, 0
    ]


def feedback_passes(
    audio: Float[Tensor, "batch time"],
    delay_samples: Float[Tensor, "batch time"],
    feedback: Float[Tensor, "batch"],
    *,
    passes: int,
) -> Float[Tensor, "batch time"]:
    """1/(1 − feedback · D) by `passes` doublings, i.e. 2^passes − 1 echoes, D f(t) = f(t −
    delay(t)).

    delay_samples: ≥ 0. feedback: linear gain, −1..1. A second echo was delayed when the first one
    was, not now: D² delays by delay(t) + delay(t − delay(t)), and so on.
    """
    gain = feedback[:, None]
    for step in range(passes):
        delayed = fractional_delay(audio, delay_samples[:, None])[:, 0]
        audio = audio + gain * delayed
        if step + 1 < passes:
            gain = gain * gain
            delay_samples = (
                delay_samples + fractional_delay(delay_samples, delay_samples[:, None])[:, 0]
            )
    return audio


def chorus(
    audio: Float[Tensor, "batch channel time"],
    delay_ms: Float[Tensor, "batch channel voices time"],
    feedback: Float[Tensor, "batch"],
    *,
    sample_rate: float,
    passes: int = 3,
) -> Float[Tensor, "batch channel time"]:
    """Wet signal of a chorus: several moving delays, each fed back, Σ D / (1 − feedback · D).

    delay_ms: milliseconds ≥ 0. feedback: linear gain, −1..1, over 2^passes − 1 echoes. sample_rate:
    Hz.
    """
    batch, channels, voices, n_samples = delay_ms.shape
    delays = delay_ms.reshape(-1, n_samples) * (sample_rate / 1000.0)
    source = audio[:, :, None].expand(-1, -1, voices, -1).reshape(-1, n_samples)
    looped = feedback_passes(
        source, delays, feedback.repeat_interleave(channels * voices), passes=passes
    )
    delayed = fractional_delay(looped, delays[:, None])
    return delayed.reshape(batch, channels, voices, n_samples).sum(dim=2)


def flanger(
    audio: Float[Tensor, "batch channel time"],
    delay_ms: Float[Tensor, "batch channel time"],
    feedback: Float[Tensor, "batch"],
    *,
    sample_rate: float,
    passes: int = 4,
) -> Float[Tensor, "batch channel time"]:
    """Wet signal of a flanger: one short moving delay with feedback, D / (1 − feedback · D).

    delay_ms: milliseconds ≥ 0. feedback: linear gain, −1..1, over 2^passes − 1 echoes. sample_rate:
    Hz.
    """
    flat, delays = audio.flatten(0, 1), delay_ms.flatten(0, 1) * (sample_rate / 1000.0)
    looped = feedback_passes(
        flat, delays, feedback.repeat_interleave(audio.shape[1]), passes=passes
    )
    return fractional_delay(looped, delays[:, None])[:, 0].unflatten(0, audio.shape[:2])


def phaser(
    audio: Float[Tensor, "batch channel time"],
    center_hz: Float[Tensor, "batch channel frames"],
    feedback: Float[Tensor, "batch"],
    *,
    sample_rate: float,
    hop_samples: int,
    stages: int = 8,
) -> Float[Tensor, "batch channel time"]:
    """Wet signal of a phaser: half the input plus half an allpass chain, fed back.

    The chain has `stages` first-order sections; see `phaser_response`. center_hz: Hz > 0, by frames
    of `fft.filter_frames`. feedback: linear gain, 0 ≤ feedback < 1.
    """
    frequency_hz = frame_frequencies_hz(hop_samples, sample_rate, audio)
    return filter_frames(
        audio,
        phaser_response(frequency_hz, center_hz, feedback, stages=stages),
        hop_samples=hop_samples,
    )


def phaser_response(
    frequency_hz: Float[Tensor, "bins"],
    center_hz: Float[Tensor, "batch *frames"],
    feedback: Float[Tensor, "batch"],
    *,
    stages: int,
) -> Complex[Tensor, "batch *frames bins"]:
    """H = ½(1 + A)/(1 − feedback·A), A = ((1 − jr)/(1 + jr))^stages, r = frequency/center."""
    angle = -2.0 * stages * torch.atan(frequency_hz / center_hz[..., None])
    cosine, sine = torch.cos(angle), torch.sin(angle)
    back = feedback.reshape(-1, *([1] * (angle.dim() - 1)))
    return (
        0.5 * torch.complex(1.0 + cosine, sine) / torch.complex(1.0 - back * cosine, -back * sine)
    )
