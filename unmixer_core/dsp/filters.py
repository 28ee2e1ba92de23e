"""Resonant filters and equalisers as frequency responses.

The engine we imitate runs its filters oversampled, so their responses are nearly those of the
analogue prototypes. Sampled in frequency we can use the prototypes themselves: with r = f / cutoff
and s = j r there is no bilinear warp, no instability, and every parameter may change from frame to
frame. Apply a response with `fft.filter_on_circle` (fixed) or `fft.filter_frames` (moving).

State-variable prototypes: Zavalishin, The Art of VA Filter Design, ch. 4. Shelves and bell:
Bristow-Johnson's Audio EQ Cookbook, analogue prototypes H(s). Frequencies are in Hz and > 0, except
`frequency_hz`, which may be 0.
"""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from unmixer_core.dsp.levels import half_gain

#: Indices into `kind`, and how many there are.
LOWPASS, HIGHPASS, BANDPASS, NOTCH = range(4)
KINDS = 4


def state_variable_response(
    frequency_hz: Float[Tensor, "bins"],
    cutoff_hz: Float[Tensor, "*#batch"],
    damping: Float[Tensor, "*#batch"],
    kind: Float[Tensor, "*#batch 4"],
    *,
    steepness: Float[Tensor, "*#batch"] | None = None,
) -> Complex[Tensor, "*batch bins"]:
    """A resonant two-pole filter, or (steepness 1) that filter followed by a second one of damping
    1.

    damping: 1/Q. kind: weights of lowpass 1/D, highpass s²/D, bandpass s/D, notch (1 + s²)/D with D
    = 1 + damping·s + s², s = j·frequency/cutoff. steepness: 0 (12 dB/octave) .. 1 (24).
    """
    ratio = frequency_hz / cutoff_hz[..., None]
    first = _two_pole(ratio, damping[..., None], kind)
    if steepness is None:
        return first
    second = _two_pole(ratio, torch.ones_like(ratio[..., :1]), kind)
    return first * (1.0 + steepness[..., None] * (second - 1.0))


def _two_pole(
    ratio: Float[Tensor, "*#batch bins"],
    damping: Float[Tensor, "*#batch one"],
    kind: Float[Tensor, "*#batch 4"],
) -> Complex[Tensor, "*batch bins"]:
    low, high, band, notch = (kind[..., i, None] for i in range(4))
    squared = ratio * ratio
    numerator = torch.complex(low + notch - (high + notch) * squared, band * ratio)
    return numerator / torch.complex(1.0 - squared, damping * ratio)


def bell_response(
    frequency_hz: Float[Tensor, "bins"],
    center_hz: Float[Tensor, "*#batch"],
    gain_db: Float[Tensor, "*#batch"],
    quality: Float[Tensor, "*#batch"],
) -> Complex[Tensor, "*batch bins"]:
    """Peaking equaliser (s² + sA/Q + 1)/(s² + s/(AQ) + 1), A = 10^(gain/40), s =
    j·frequency/center.
    """
    amplitude = half_gain(gain_db)[..., None]
    ratio = frequency_hz / center_hz[..., None]
    real, edge = 1.0 - ratio * ratio, ratio / quality[..., None]
    return torch.complex(real, edge * amplitude) / torch.complex(real, edge / amplitude)


def low_shelf_response(
    frequency_hz: Float[Tensor, "bins"],
    corner_hz: Float[Tensor, "*#batch"],
    gain_db: Float[Tensor, "*#batch"],
    quality: Float[Tensor, "*#batch"],
) -> Complex[Tensor, "*batch bins"]:
    """Low shelf A(s² + s√A/Q + A)/(As² + s√A/Q + 1), A = 10^(gain/40).

    The gain below the corner, 1 above.
    """
    amplitude = half_gain(gain_db)[..., None]
    ratio = frequency_hz / corner_hz[..., None]
    squared, edge = ratio * ratio, ratio * amplitude.sqrt() / quality[..., None]
    return (
        amplitude
        * torch.complex(amplitude - squared, edge)
        / torch.complex(1.0 - amplitude * squared, edge)
    )


def high_shelf_response(
    frequency_hz: Float[Tensor, "bins"],
    corner_hz: Float[Tensor, "*#batch"],
    gain_db: Float[Tensor, "*#batch"],
    quality: Float[Tensor, "*#batch"],
) -> Complex[Tensor, "*batch bins"]:
    """High shelf A(As² + s√A/Q + 1)/(s² + s√A/Q + A), A = 10^(gain/40).

    The gain above the corner, 1 below.
    """
    amplitude = half_gain(gain_db)[..., None]
    ratio = frequency_hz / corner_hz[..., None]
    squared, edge = ratio * ratio, ratio * amplitude.sqrt() / quality[..., None]
    return (
        amplitude
        * torch.complex(1.0 - amplitude * squared, edge)
        / torch.complex(amplitude - squared, edge)
    )


def one_pole_response(
    frequency_hz: Float[Tensor, "bins"], corner_hz: Float[Tensor, "*batch"], *, high: bool = False
) -> Complex[Tensor, "*batch bins"]:
    """First-order lowpass 1/(1 + jr), or highpass jr/(1 + jr), r = frequency/corner."""
    ratio = frequency_hz / corner_hz[..., None]
    numerator = torch.complex(torch.zeros_like(ratio), ratio) if high else torch.ones_like(ratio)
    return numerator / torch.complex(torch.ones_like(ratio), ratio)


def damping_shelf_response(
    frequency_hz: Float[Tensor, "bins"],
    corner_hz: Float[Tensor, "*batch"],
    high_gain: Float[Tensor, ""],
) -> Complex[Tensor, "*batch bins"]:
    """First-order high shelf (1 + g·jr)/(1 + jr), r = frequency/corner.

    Linear gain 1 below, g above.
    """
    ratio = frequency_hz / corner_hz[..., None]
    one = torch.ones_like(ratio)
    return torch.complex(one, high_gain * ratio) / torch.complex(one, ratio)
