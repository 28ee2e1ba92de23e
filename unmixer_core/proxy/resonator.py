"""The resonant filter with drive that both the synthesizer and Auto Filter have.

Its laws, found on the host and learned on.

Measured: resonance r (0..1) lowers the input by g = 1/(1 + 1.98 r); drive d multiplies it before a
tanh and by 1/√d after it. The first section's damping is 2 − 2.15·√r·(1 + 0.0113·drive_db)·N^4.4,
where N is the tanh's mean slope: a loud signal takes the resonance away, less so where a second
highpass or bandpass section stands before it. The notch always has both sections and half the loss
in dB.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unmixer_core.dsp import filters
from unmixer_core.proxy.parts import Positive, decibels_to_gain

SMALLEST_DAMPING = 0.045
START_HZ = 261.6
SMOOTHING_S, FIRST_HEARD_S = 0.008, 0.003
TINY = 1e-4


def settling_octaves(time_s: Tensor, cutoff_hz: Tensor, start_hz: Tensor) -> Tensor:
    """How far (in octaves) the cutoff still is from where it is set.

    A new note glides there from the host's default.

    time_s [frames] (the first frame is heard a little after its centre), cutoff_hz [batch] →
    [batch, frames].
    """
    remaining = torch.exp(-time_s.clamp_min(FIRST_HEARD_S) / SMOOTHING_S)
    return remaining * torch.log2(start_hz / cutoff_hz)[:, None]


class Resonator(nn.Module):
    """Loss and drive, tanh, two sections.

    Shapes: audio [batch, channel, time], controls [batch], kind [batch, 4].
    """

    def __init__(self) -> None:
        super().__init__()
        self.depth, self.boost_per_db, self.loss = Positive(2.15), Positive(0.0113), Positive(1.98)
        self.start_hz = Positive(START_HZ)
        self.knee, self.loading, self.shelter = Positive(1.0), Positive(4.4), Positive(0.25)

    def drive(
        self, audio: Tensor, resonance: Tensor, drive_db: Tensor, kind: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Driven audio, and the mean slope N [batch] of the tanh it went through."""
        gain = decibels_to_gain(drive_db)
        loss = (1.0 + self.loss() * resonance.clamp_min(0.0)) ** (
            0.5 * kind[:, filters.NOTCH] - 1.0
        )
        pushed = audio * (gain * loss * self.knee())[:, None, None]
        bent = torch.tanh(pushed)
        power = audio.square() + TINY**2
        slope = 1.0 - (power * bent.square()).sum(dim=(1, 2)) / power.sum(dim=(1, 2))
        return bent / (gain.sqrt() * self.knee())[:, None, None], slope

    def response(
        self,
        frequency_hz: Tensor,
        cutoff_hz: Tensor,
        resonance: Tensor,
        drive_db: Tensor,
        slope: Tensor,
        kind: Tensor,
        steepness: Tensor,
    ) -> Tensor:
        """frequency_hz [bins], cutoff_hz [batch, frames] → complex [batch, frames, bins]."""
        sheltered = steepness * (kind[:, filters.HIGHPASS] + kind[:, filters.BANDPASS])
        loaded = 1.0 - (1.0 - slope) * (1.0 + sheltered * (self.shelter() - 1.0))
        feedback = (
            self.depth()
            * (resonance.clamp_min(0.0) + TINY).sqrt()
            * (1.0 + self.boost_per_db() * drive_db)
        )
        damping = 2.0 - feedback * loaded.clamp_min(TINY) ** self.loading()
        damping = (
            SMALLEST_DAMPING + nn.functional.softplus(30.0 * (damping - SMALLEST_DAMPING)) / 30.0
        )
        both = steepness + (1.0 - steepness) * kind[:, filters.NOTCH]
        return filters.state_variable_response(
            frequency_hz,
            cutoff_hz,
            damping[:, None].expand_as(cutoff_hz),
            kind[:, None],
            steepness=both[:, None].expand_as(cutoff_hz),
        )
