"""Resonant filters and equalisers as frequency responses.

The engine we imitate runs its filters oversampled, so their responses are nearly those of the analogue prototypes.
Sampled in frequency we can use the prototypes themselves: with r = f / cutoff and s = j r there is no bilinear warp, no
instability, and every parameter may change from frame to frame. Apply a response with `fft.filter_on_circle` (fixed) or
`fft.filter_frames` (moving).

State-variable prototypes: Zavalishin, The Art of VA Filter Design, ch. 4. Shelves and bell: Bristow-Johnson's Audio EQ
Cookbook, analogue prototypes H(s).
"""

from __future__ import annotations

import torch
from torch import Tensor

LOWPASS, HIGHPASS, BANDPASS, NOTCH = range(4)


def state_variable_response(
    frequency_hz: Tensor, cutoff_hz: Tensor, damping: Tensor, kind: Tensor, *, steepness: Tensor | None = None
) -> Tensor:
    """A resonant two-pole filter, or (steepness 1) that filter followed by a second one of damping 1.

    frequency_hz [bins]; cutoff_hz and damping = 1/Q [...]; kind [..., 4] weights of lowpass 1/D, highpass s²/D, bandpass
    s/D, notch (1 + s²)/D with D = 1 + damping·s + s²; steepness [...] in 0 (12 dB/octave) .. 1 (24) → complex [..., bins].
    """
    ratio = frequency_hz / cutoff_hz[..., None]
    first = _two_pole(ratio, damping[..., None], kind)
    if steepness is None:
        return first
    second = _two_pole(ratio, torch.ones_like(ratio[..., :1]), kind)
    return first * (1.0 + steepness[..., None] * (second - 1.0))


def _two_pole(ratio: Tensor, damping: Tensor, kind: Tensor) -> Tensor:
    low, high, band, notch = (kind[..., i, None] for i in range(4))
    squared = ratio * ratio
    numerator = torch.complex(low + notch - (high + notch) * squared, band * ratio)
    return numerator / torch.complex(1.0 - squared, damping * ratio)


def bell_response(frequency_hz: Tensor, center_hz: Tensor, gain_db: Tensor, quality: Tensor) -> Tensor:
    """Peaking equaliser (s² + sA/Q + 1)/(s² + s/(AQ) + 1), A = 10^(gain/40): [bins] × [...] → complex [..., bins]."""
    amplitude = _half_gain(gain_db)[..., None]
    ratio = frequency_hz / center_hz[..., None]
    real, edge = 1.0 - ratio * ratio, ratio / quality[..., None]
    return torch.complex(real, edge * amplitude) / torch.complex(real, edge / amplitude)


def low_shelf_response(frequency_hz: Tensor, corner_hz: Tensor, gain_db: Tensor, quality: Tensor) -> Tensor:
    """Low shelf A(s² + s√A/Q + A)/(As² + s√A/Q + 1): gain below the corner, 1 above. [bins] × [...] → [..., bins]."""
    amplitude = _half_gain(gain_db)[..., None]
    ratio = frequency_hz / corner_hz[..., None]
    squared, edge = ratio * ratio, ratio * amplitude.sqrt() / quality[..., None]
    return amplitude * torch.complex(amplitude - squared, edge) / torch.complex(1.0 - amplitude * squared, edge)


def high_shelf_response(frequency_hz: Tensor, corner_hz: Tensor, gain_db: Tensor, quality: Tensor) -> Tensor:
    """High shelf A(As² + s√A/Q + 1)/(s² + s√A/Q + A): gain above the corner, 1 below. [bins] × [...] → [..., bins]."""
    amplitude = _half_gain(gain_db)[..., None]
    ratio = frequency_hz / corner_hz[..., None]
    squared, edge = ratio * ratio, ratio * amplitude.sqrt() / quality[..., None]
    return amplitude * torch.complex(1.0 - amplitude * squared, edge) / torch.complex(amplitude - squared, edge)


def one_pole_response(frequency_hz: Tensor, corner_hz: Tensor, *, high: bool = False) -> Tensor:
    """First-order lowpass 1/(1 + jr), or highpass jr/(1 + jr): [bins] × [...] → complex [..., bins]."""
    ratio = frequency_hz / corner_hz[..., None]
    numerator = torch.complex(torch.zeros_like(ratio), ratio) if high else torch.ones_like(ratio)
    return numerator / torch.complex(torch.ones_like(ratio), ratio)


def damping_shelf_response(frequency_hz: Tensor, corner_hz: Tensor, high_gain: Tensor) -> Tensor:
    """First-order high shelf (1 + g·jr)/(1 + jr), r = f/corner: gain 1 below, g above. [bins] × [...] → complex [..., bins]."""
    ratio = frequency_hz / corner_hz[..., None]
    one = torch.ones_like(ratio)
    return torch.complex(one, high_gain * ratio) / torch.complex(one, ratio)


def _half_gain(gain_db: Tensor) -> Tensor:
    """10^(dB/40)."""
    return torch.exp(gain_db * (2.302585092994046 / 40.0))
