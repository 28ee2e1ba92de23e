"""From unit knobs to physical controls, with a learned correction a knob.

The schema's laws say what Live's display says. What the host does with a knob differs a little (a
slope, an offset), so each knob carries φ: unit' = ½ + (unit − ½)·e^{stretch} + shift, monotone by
construction and the identity at the start.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unmixer_core.schema.devices import Device
from unmixer_core.schema.rack import RACK

#: Choice weights below this are not heard.
HEARD = 1e-3
#: How far a corrected knob may leave its learned range, in unit.
EDGE = 0.08


class Controls:
    """One device's settings for a group of patches.

    Physical values [batch] by knob key, weights [batch, items] by choice key.
    """

    def __init__(
        self,
        device: Device,
        unit: Tensor,
        weights: dict[str, Tensor],
        calibration: KnobCalibration | None = None,
    ) -> None:
        self._device, self._weights = device, weights
        self._columns = {knob.key: i for i, knob in enumerate(device.knobs)}
        self._unit = calibration(unit) if calibration else unit

    @property
    def batch(self) -> int:
        return self._unit.shape[0]

    def physical(self, key: str) -> Tensor:
        """Physical value [batch] of a knob in its schema unit.

        Integers are rounded, their gradient passes through.
        """
        column = self._columns[key]
        knob = self._device.knobs[column]
        unit = self._unit[:, column]
        if knob.integer:
            steps = knob.raw_high - knob.raw_low
            unit = unit + ((unit.detach() * steps).round() / steps - unit.detach())
        return knob.to_physical(unit)

    def share(self, key: str) -> Tensor:
        """A percent knob as 0..1 (or −1..1)."""
        return self.physical(key) / 100.0

    def weights(self, key: str) -> Tensor:
        """Weights [batch, items] of a choice: one-hot, or anything that sums to one."""
        return self._weights[key]

    def select(self, rows: Tensor) -> Controls:
        """The same controls for some of the patches."""
        return Controls(
            self._device, self._unit[rows], {key: w[rows] for key, w in self._weights.items()}
        )


class KnobCalibration(nn.Module):
    """φ of one device's knobs: a stretch and a shift each."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.stretch = nn.Parameter(torch.zeros(len(device.knobs)))
        self.shift = nn.Parameter(torch.zeros(len(device.knobs)))
        fixed = [knob.integer or knob.bipolar_amount for knob in device.knobs]
        self.register_buffer(
            "free", torch.tensor([0.0 if f else 1.0 for f in fixed]), persistent=False
        )

    def forward(self, unit: Tensor) -> Tensor:
        """unit [batch, knobs] → corrected unit, softly kept within EDGE of [0, 1]."""
        moved = 0.5 + (unit - 0.5) * torch.exp(self.free * self.stretch) + self.free * self.shift
        outside = moved - moved.clamp(0.0, 1.0)
        return moved - outside + EDGE * torch.tanh(outside / EDGE)


def choice_weights(choices: Tensor | Sequence[Tensor], like: Tensor) -> list[Tensor]:
    """Item indices [batch, C] → one-hot weights per choice; weights pass through."""
    if not isinstance(choices, Tensor):
        return [weight.to(like) for weight in choices]
    columns = zip(choices.unbind(-1), RACK.sizes, strict=True)
    return [nn.functional.one_hot(column, size).to(like) for column, size in columns]


def sounding(weight: Tensor) -> Tensor:
    """Rows [n] whose weight is heard; all rows when the weight itself is being learned."""
    heard = weight.detach() > HEARD
    return (
        torch.arange(len(weight), device=weight.device)
        if weight.requires_grad
        else heard.nonzero()[:, 0]
    )


def soft_unit(value: Tensor) -> Tensor:
    """value limited to 0..1, with a tenth of the gradient outside so that no knob dies at a
    stop.
    """
    limited = value.clamp(0.0, 1.0)
    return limited + 0.1 * ((value - limited) - (value - limited).detach())
