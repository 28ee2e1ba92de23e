"""What the effects share: calibrated knobs, a residual filter and level of the wet sound, mixes."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unmixer_core.dsp.fft import Circle, circle, filter_on_circle
from unmixer_core.errors import StageError
from unmixer_core.proxy.controls import Controls, KnobCalibration
from unmixer_core.proxy.parts import Positive, ResidualFilter
from unmixer_core.schema.devices import Device

#: Zeros behind a clip, longer than the response of any filter here: a tail cannot wrap round.
PAD_S = 0.1
#: Loop gains stay below 1, or an echo would grow without end.
MAX_FEEDBACK = 0.97

Stereo = Float[Tensor, "batch 2 time"]


class Effect(nn.Module):
    """Base of the effects: from audio and controls to audio, with the constants of its device.

    An effect receives audio [batch, 2, time] at its true level and the controls of the same batch.
    """

    #: Names of the parameters that are measured on the host and that calibration does not fit.
    MEASURED: ClassVar[tuple[str, ...]] = ()

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device
        self.knobs = KnobCalibration(device)
        self.residual = ResidualFilter()
        self.wet_level = Positive(1.0)

    def forward(self, audio: Stereo, controls: Controls, sample_rate: float) -> Stereo:
        """Dry and wet sound, mixed as the host mixes them. sample_rate: Hz."""
        raise NotImplementedError

    def require_items(self, choice_key: str, count: int) -> None:
        """Raise StageError unless the device's choice has `count` items."""
        choice = next(choice for choice in self.device.choices if choice.key == choice_key)
        if len(choice.items) != count:
            raise StageError(
                f"{self.device.name}'s {choice_key} has {len(choice.items)} items in the schema, "
                f"but the proxy plays {count}."
            )

    def circle(self, audio: Float[Tensor, "*batch time"], sample_rate: float) -> Circle:
        """Sampling points of a short response. sample_rate: Hz."""
        return circle(audio.shape[-1], pad_samples=int(PAD_S * sample_rate), like=audio)

    def coloured(self, audio: Stereo, sample_rate: float) -> Stereo:
        """Wet audio through the residual filter and the wet level. sample_rate: Hz."""
        if self.residual.idle:
            return self.wet_level() * audio
        on = self.circle(audio, sample_rate)
        response = self.wet_level() * self.residual(on.frequencies_hz(sample_rate))
        return filter_on_circle(audio, response, on)


def mix_linear(
    dry: Stereo,
    wet: Stereo,
    share: Float[Tensor, "batch"],
) -> Stereo:
    """dry + share · (wet − dry)."""
    return dry + share[:, None, None] * (wet - dry)


def mix_equal_power(
    dry: Stereo,
    wet: Stereo,
    share: Float[Tensor, "batch"],
) -> Stereo:
    """cos(πs/2) · dry + sin(πs/2) · wet, s = share."""
    angle = 0.5 * math.pi * share[:, None, None]
    return torch.cos(angle) * dry + torch.sin(angle) * wet
