"""The resonant filter with drive that both the synthesizer and Auto Filter have.

Its laws were measured on the host, and calibration goes on from there. Resonance r (0..1) lowers
the input by g = 1/(1 + 1.98 r). Drive d multiplies the input of a tanh, and 1/√d its output. The
first section's damping is 2 − 2.15·√r·(1 + 0.0113·drive_db)·N^4.4, where N is the tanh's mean
slope: a loud signal reduces the resonance, and less so where a second highpass or bandpass section
precedes it. The notch always has both sections and half the loss in dB.
"""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from unmixer_core.dsp import filters
from unmixer_core.dsp.levels import decibels_to_gain
from unmixer_core.proxy.parts import Positive

#: The host's filter does not oscillate by itself: its damping stays above this.
SMALLEST_DAMPING = 0.045
#: Sharpness of the soft limit at `SMALLEST_DAMPING`.
LIMIT_SHARPNESS = 30.0
#: Default cutoff of the host, from which the cutoff of a new note glides.
START_HZ = 261.6
#: Time constant of that glide, and the time at which the first frame is taken.
SMOOTHING_S = 0.008
FIRST_FRAME_S = 0.003
#: Keeps the gradient of a square root and a power finite at zero.
TINY = 1e-4


def settling_octaves(
    time_s: Float[Tensor, "frames"],
    cutoff_hz: Float[Tensor, "batch"],
    start_hz: Float[Tensor, ""],
) -> Float[Tensor, "batch frames"]:
    """Distance of the moving cutoff from its setting, in octaves.

    The cutoff of a new note glides from the host's default, start_hz, to its setting, cutoff_hz.
    """
    remaining = torch.exp(-time_s.clamp_min(FIRST_FRAME_S) / SMOOTHING_S)
    return remaining * torch.log2(start_hz / cutoff_hz)[:, None]


class Resonator(nn.Module):
    """Loss and drive, tanh, two sections."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = Positive(2.15)
        self.boost_per_db = Positive(0.0113)
        self.loss = Positive(1.98)
        self.start_hz = Positive(START_HZ)
        self.knee = Positive(1.0)
        self.loading = Positive(4.4)
        self.shelter = Positive(0.25)

    def drive(
        self,
        audio: Float[Tensor, "batch 2 time"],
        resonance: Float[Tensor, "batch"],
        drive_db: Float[Tensor, "batch"],
        kind: Float[Tensor, "batch 4"],
    ) -> tuple[Float[Tensor, "batch 2 time"], Float[Tensor, "batch"]]:
        """Driven audio, and the mean slope N of the tanh that it passed.

        resonance: 0..1. kind: weights of `filters.state_variable_response`.
        """
        gain = decibels_to_gain(drive_db)
        exponent = 0.5 * kind[:, filters.NOTCH] - 1.0
        loss = (1.0 + self.loss() * resonance.clamp_min(0.0)) ** exponent
        pushed = audio * (gain * loss * self.knee())[:, None, None]
        bent = torch.tanh(pushed)
        power = audio.square() + TINY**2
        slope = 1.0 - (power * bent.square()).sum(dim=(1, 2)) / power.sum(dim=(1, 2))
        return bent / (gain.sqrt() * self.knee())[:, None, None], slope

    def response(
        self,
        frequency_hz: Float[Tensor, "bins"],
        cutoff_hz: Float[Tensor, "batch frames"],
        resonance: Float[Tensor, "batch"],
        drive_db: Float[Tensor, "batch"],
        slope: Float[Tensor, "batch"],
        kind: Float[Tensor, "batch 4"],
        steepness: Float[Tensor, "batch"],
    ) -> Complex[Tensor, "batch frames bins"]:
        """Response of the moving filter.

        slope: N of `drive`. steepness: 0 (12 dB/octave) .. 1 (24).
        """
        sheltered = steepness * (kind[:, filters.HIGHPASS] + kind[:, filters.BANDPASS])
        loaded = 1.0 - (1.0 - slope) * (1.0 + sheltered * (self.shelter() - 1.0))
        feedback = (
            self.depth()
            * (resonance.clamp_min(0.0) + TINY).sqrt()
            * (1.0 + self.boost_per_db() * drive_db)
        )
        damping = 2.0 - feedback * loaded.clamp_min(TINY) ** self.loading()
        above = nn.functional.softplus(LIMIT_SHARPNESS * (damping - SMALLEST_DAMPING))
        damping = SMALLEST_DAMPING + above / LIMIT_SHARPNESS
        both = steepness + (1.0 - steepness) * kind[:, filters.NOTCH]
        return filters.state_variable_response(
            frequency_hz,
            cutoff_hz,
            damping[:, None].expand_as(cutoff_hz),
            kind[:, None],
            steepness=both[:, None].expand_as(cutoff_hz),
        )
