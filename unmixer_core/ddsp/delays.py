"""Feedback delay with a filter in its loop, straight or ping-pong, in closed form on the damped circle.

The echoes of a linear delay line are a geometric series, so the whole endless tail is one division per bin. See
fft.Circle for why no zero padding is needed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unmixer_core.ddsp.fft import Circle, circle, delay_response, filter_on_circle
from unmixer_core.ddsp.filters import one_pole_response

ALIAS_DB = 60.0


def delay_circle(audio: Tensor) -> Circle:
    """The damped circle that `feedback_delay` works on for this clip."""
    return circle(audio.shape[-1], pad_samples=256, alias_db=ALIAS_DB, like=audio)


def band_response(frequency_hz: Tensor, low_hz: Tensor, high_hz: Tensor) -> Tensor:
    """First-order highpass at low_hz times lowpass at high_hz, 0 dB half-way: [bins] × [batch] → complex [batch, bins]."""
    peak = 1.0 + low_hz / high_hz
    return peak[:, None] * one_pole_response(frequency_hz, low_hz, high=True) * one_pole_response(frequency_hz, high_hz)


def feedback_delay(
    audio: Tensor,
    time_s: Tensor,
    feedback: Tensor,
    low_hz: Tensor,
    high_hz: Tensor,
    ping_pong: Tensor,
    *,
    sample_rate: float,
) -> Tensor:
    """Wet signal of a delay: echoes every time_s, each `feedback` times and band-filtered once more than the last.

    audio [batch, 2, time]; time_s, feedback (|feedback| < 1), low_hz, high_hz, ping_pong (0 = each side repeats itself, 1 = the
    sum bounces right, left, right …, each pair of bounces `feedback` times the last) [batch] → [batch, 2, time].
    """
    on = delay_circle(audio)
    band = band_response(on.frequencies_hz(sample_rate), low_hz, high_hz)
    once = band * delay_response(time_s * sample_rate, on)  # [batch, bins]
    back = feedback[:, None] * once
    straight = once / (1.0 - back)
    right = once / (1.0 - back * once)
    bounced = torch.stack([right * once, right], dim=1)  # [batch, 2, bins]
    mono = audio.sum(dim=1, keepdim=True) * 0.5**0.5
    share = ping_pong[:, None, None]
    sides = filter_on_circle(audio, straight[:, None], on)
    return sides + share * (filter_on_circle(mono, bounced, on) - sides)
