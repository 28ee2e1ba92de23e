"""Small learned pieces that the voice and the effects share: a positive factor, a filter."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unmixer_core.dsp.levels import decibels_to_gain

#: Frequencies of the residual filter's first and last point: nine octaves.
LOWEST_HZ = 40.0
HIGHEST_HZ = 20480.0


class Positive(nn.Module):
    """A learned positive number, stored as the logarithm of its ratio to the initial value."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.log_ratio = nn.Parameter(torch.zeros(()))

    def forward(self) -> Float[Tensor, ""]:
        """The number."""
        return self.value * torch.exp(self.log_ratio)


class ResidualFilter(nn.Module):
    """A learned magnitude curve in dB over log-frequency, flat before calibration.

    It stands for what the model of a device leaves out.
    """

    def __init__(self, n_points: int = 18) -> None:
        super().__init__()
        self.gain_db = nn.Parameter(torch.zeros(n_points))

    @property
    def idle(self) -> bool:
        """True where filtering would change nothing: flat, and no gradient is needed."""
        learning = torch.is_grad_enabled() and self.gain_db.requires_grad
        return not learning and not bool(self.gain_db.any())

    def forward(self, frequency_hz: Float[Tensor, "bins"]) -> Float[Tensor, "bins"]:
        """Linear gain at each frequency."""
        top = len(self.gain_db) - 1
        octave = torch.log2(frequency_hz.clamp(LOWEST_HZ, HIGHEST_HZ) / LOWEST_HZ)
        place = octave * (top / math.log2(HIGHEST_HZ / LOWEST_HZ))
        lower = place.floor().clamp(0, top - 1).long()
        share = place - lower
        gain_db = self.gain_db[lower] * (1.0 - share) + self.gain_db[lower + 1] * share
        return decibels_to_gain(gain_db)
