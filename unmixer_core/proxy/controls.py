"""From unit knobs to physical controls, with a learned correction for each knob.

The schema's laws say what Live displays. What the host does with a knob differs a little (a slope,
an offset), so each knob carries φ: unit' = ½ + (unit − ½)·e^{stretch} + shift. It is monotone by
construction and the identity before calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor, nn

from unmixer_core.schema.devices import Device
from unmixer_core.schema.rack import RACK

#: Item indices, or for each choice the weights of its items.
Choices: TypeAlias = Int[Tensor, "batch choices"] | Sequence[Float[Tensor, "batch _items"]]
#: Effect ids (−1 = end), or weights of the effects and of the end (last).
Chain: TypeAlias = Int[Tensor, "batch slots"] | Float[Tensor, "batch slots codes"]
#: One number a patch, such as its MIDI note.
PerPatch: TypeAlias = Real[Tensor, "batch"]

#: Choice weights up to this one are inaudible.
AUDIBLE_WEIGHT = 1e-3
#: How far a corrected knob may leave its learned range, in unit.
EDGE = 0.08


class Controls:
    """One device's settings for a group of patches.

    Physical values [batch] by knob key, weights [batch, items] by choice key.
    """

    def __init__(
        self,
        device: Device,
        unit: Float[Tensor, "batch knobs"],
        weights: dict[str, Float[Tensor, "batch _items"]],
        calibration: KnobCalibration | None = None,
    ) -> None:
        self._device = device
        self._weights = weights
        self._columns = {knob.key: i for i, knob in enumerate(device.knobs)}
        self._unit = calibration(unit) if calibration else unit

    @property
    def batch(self) -> int:
        """Number of patches."""
        return self._unit.shape[0]

    def physical(self, key: str) -> Float[Tensor, "batch"]:
        """Physical value of a knob, in the unit of the schema.

        Integers are rounded, and their gradient passes through the rounding.
        """
        column = self._columns[key]
        knob = self._device.knobs[column]
        unit = self._unit[:, column]
        if knob.integer:
            steps = knob.raw_high - knob.raw_low
            unit = unit + ((unit.detach() * steps).round() / steps - unit.detach())
        return knob.to_physical(unit)

    def share(self, key: str) -> Float[Tensor, "batch"]:
        """A percent knob as 0..1 (or −1..1)."""
        return self.physical(key) / 100.0

    def weights(self, key: str) -> Float[Tensor, "batch _items"]:
        """Weights of a choice's items: one-hot, or anything that sums to one."""
        return self._weights[key]

    def select(self, rows: Int[Tensor, "rows"]) -> Controls:
        """The same controls for some of the patches."""
        weights = {key: weight[rows] for key, weight in self._weights.items()}
        return Controls(self._device, self._unit[rows], weights)


class KnobCalibration(nn.Module):
    """φ of one device's knobs: a stretch and a shift each."""

    #: 1 for knobs that are corrected; integers and bipolar amounts, whose 0 must stay 0, are not.
    free: Float[Tensor, "knobs"]

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.stretch = nn.Parameter(torch.zeros(len(device.knobs)))
        self.shift = nn.Parameter(torch.zeros(len(device.knobs)))
        fixed = [knob.integer or knob.bipolar_amount for knob in device.knobs]
        free = torch.tensor([0.0 if f else 1.0 for f in fixed])
        self.register_buffer("free", free, persistent=False)

    def forward(self, unit: Float[Tensor, "batch knobs"]) -> Float[Tensor, "batch knobs"]:
        """Corrected unit values, softly limited to within EDGE of [0, 1]."""
        moved = 0.5 + (unit - 0.5) * torch.exp(self.free * self.stretch) + self.free * self.shift
        outside = moved - moved.clamp(0.0, 1.0)
        return moved - outside + EDGE * torch.tanh(outside / EDGE)


def choice_weights(
    choices: Choices, like: Float[Tensor, "batch knobs"]
) -> list[Float[Tensor, "batch _items"]]:
    """Weights of each choice's items: one-hot of item indices; weights are returned as they are.

    `like` lends its dtype and device.
    """
    if not isinstance(choices, Tensor):
        return [weight.to(like) for weight in choices]
    columns = zip(choices.unbind(-1), RACK.sizes, strict=True)
    return [nn.functional.one_hot(column, size).to(like) for column, size in columns]


def sounding(weight: Float[Tensor, "batch"]) -> Int[Tensor, "rows"]:
    """Rows whose weight is audible; all rows when the weight itself is being learned."""
    if weight.requires_grad:
        return torch.arange(len(weight), device=weight.device)
    return (weight.detach() > AUDIBLE_WEIGHT).nonzero()[:, 0]


def soft_unit(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Limit a value to 0..1 and leave a tenth of the gradient outside.

    So a knob at a stop can still be learned.
    """
    limited = value.clamp(0.0, 1.0)
    return limited + 0.1 * ((value - limited) - (value - limited).detach())
