"""Feedback delay with a filter in its loop, straight or ping-pong, in closed form.

The echoes of a linear delay line are a geometric series, so the whole endless tail is one division
per bin: the feedback comb g z^-D / (1 - g z^-D) of J. O. Smith, "Physical Audio Signal Processing".
See fft.Circle for why no zero padding is needed.
"""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from unmixer_core.dsp.fft import Circle, circle, delay_response, filter_on_circle
from unmixer_core.dsp.filters import one_pole_response

#: Attenuation of what wraps round the end of the transform.
ALIAS_DB = 60.0


def delay_circle(audio: Float[Tensor, "*batch time"]) -> Circle:
    """Return the damped circle that `feedback_delay` uses for this clip.

    What wraps round comes back 60 dB quieter.
    """
    return circle(audio.shape[-1], pad_samples=256, alias_db=ALIAS_DB, like=audio)


def band_response(
    frequency_hz: Float[Tensor, "bins"],
    low_hz: Float[Tensor, "batch"],
    high_hz: Float[Tensor, "batch"],
) -> Complex[Tensor, "batch bins"]:
    """First-order highpass at low_hz times lowpass at high_hz, 0 dB at √(low · high).

    (1 + l/h) · jf/l / ((1 + jf/l)(1 + jf/h)).

    All in Hz, > 0.
    """
    peak = 1.0 + low_hz / high_hz
    return (
        peak[:, None]
        * one_pole_response(frequency_hz, low_hz, high=True)
        * one_pole_response(frequency_hz, high_hz)
    )


def feedback_delay(
    audio: Float[Tensor, "batch 2 time"],
    time_s: Float[Tensor, "batch"],
    feedback: Float[Tensor, "batch"],
    low_hz: Float[Tensor, "batch"],
    high_hz: Float[Tensor, "batch"],
    ping_pong: Float[Tensor, "batch"],
    *,
    sample_rate: float,
) -> Float[Tensor, "batch 2 time"]:
    """Wet signal of a delay: echoes every time_s, each `feedback` times the last one.

    Each echo is also band-filtered once more than the last one. With u = band · z^-time: straight u
    / (1 - feedback · u), bounced right u / (1 - feedback · u²) and left u times that. time_s:
    seconds > 0. feedback: linear gain, |feedback| < 1. low_hz, high_hz: corners of `band_response`.
    ping_pong: 0 = each side repeats itself, 1 = the sum bounces right, left, right …, each pair of
    bounces `feedback` times the last. sample_rate: Hz.
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
