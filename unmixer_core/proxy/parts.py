"""Small learned pieces shared by the voice and the effects.

A positive factor, a smooth law, a residual filter.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

LOWEST_HZ, HIGHEST_HZ = 40.0, 20480.0


class Positive(nn.Module):
    """A learned positive number, kept as a logarithm: starts at `value`."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.log_ratio = nn.Parameter(torch.zeros(()))

    def forward(self) -> Tensor:
        return self.value * torch.exp(self.log_ratio)


class Polynomial(nn.Module):
    """A learned smooth law of a 0..1 control: Σ cᵢ xⁱ, starting at the given coefficients."""

    def __init__(self, *coefficients: float) -> None:
        super().__init__()
        self.register_buffer("start", torch.tensor(coefficients), persistent=False)
        self.change = nn.Parameter(torch.zeros(len(coefficients)))

    def forward(self, x: Tensor) -> Tensor:
        coefficients = self.start + self.change
        return sum((c * x**i for i, c in enumerate(coefficients.unbind())), torch.zeros_like(x))


class ResidualFilter(nn.Module):
    """A learned magnitude curve in dB over log-frequency, flat at the start.

    What the physics of a device leaves out.
    """

    def __init__(self, n_points: int = 18) -> None:
        super().__init__()
        self.gain_db = nn.Parameter(torch.zeros(n_points))

    @property
    def idle(self) -> bool:
        """True where filtering would change nothing: flat, and nobody asks for its gradient."""
        learning = torch.is_grad_enabled() and self.gain_db.requires_grad
        return not learning and not bool(self.gain_db.any())

    def forward(self, frequency_hz: Tensor) -> Tensor:
        """frequency_hz [bins] → linear gain [bins]."""
        top = len(self.gain_db) - 1
        octave = torch.log2(frequency_hz.clamp(LOWEST_HZ, HIGHEST_HZ) / LOWEST_HZ)
        place = octave * (top / math.log2(HIGHEST_HZ / LOWEST_HZ))
        lower = place.floor().clamp(0, top - 1).long()
        share = place - lower
        gain_db = self.gain_db[lower] * (1.0 - share) + self.gain_db[lower + 1] * share
        return torch.exp(gain_db * (math.log(10.0) / 20.0))


def decibels_to_gain(level_db: Tensor) -> Tensor:
    """10^(dB/20)."""
    return torch.exp(level_db * (math.log(10.0) / 20.0))
