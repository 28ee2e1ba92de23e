"""A knob and its three faces.

Unit [0, 1] (learned), raw (what Live's DeviceParameter takes), physical (Hz, dB, s, …).

unit ↔ raw is affine over the learned range; raw ↔ physical is the law Live's own display follows,
as collected in AbletonOSC's and Live's sources (see the `law` of each knob in devices.py). Laws use
only arithmetic that a float, a numpy array and a torch tensor with gradient share, so that one
definition serves sampling, the wire and the proxy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from unmixer_core.schema.notes import midi_to_hz

Value = Any  # float, numpy array or torch tensor: the laws treat them alike


class Law(Protocol):
    """raw ↔ physical; each arrow is the other's inverse over the knob's learned range."""

    def to_physical(self, raw: Value) -> Value:
        """Raw value → physical value, in the knob's unit."""
        ...

    def to_raw(self, physical: Value) -> Value:
        """Physical value, in the knob's unit → raw value."""
        ...


@dataclass(frozen=True)
class Linear:
    """physical = offset + slope · raw."""

    slope: float = 1.0
    offset: float = 0.0

    def to_physical(self, raw: Value) -> Value:
        """Raw value → physical value, in the knob's unit."""
        return self.offset + self.slope * raw

    def to_raw(self, physical: Value) -> Value:
        """Physical value, in the knob's unit → raw value."""
        return (physical - self.offset) / self.slope


@dataclass(frozen=True)
class Exponential:
    """physical = low · (high/low)^raw, the law Live uses for frequencies and many times."""

    low: float
    high: float

    def to_physical(self, raw: Value) -> Value:
        """Raw position 0..1 → physical value, in the unit of the bounds."""
        return self.low * (self.high / self.low) ** raw

    def to_raw(self, physical: Value) -> Value:
        """Physical value above 0, in the unit of the bounds → raw position."""
        return _log(physical / self.low) / math.log(self.high / self.low)


@dataclass(frozen=True)
class Power:
    """physical = offset + scale · raw^exponent (raw ≥ 0)."""

    scale: float
    exponent: float
    offset: float = 0.0

    def to_physical(self, raw: Value) -> Value:
        """Raw value at least 0 → physical value, in the unit of `scale`."""
        return self.offset + self.scale * raw**self.exponent

    def to_raw(self, physical: Value) -> Value:
        """Physical value at least `offset` → raw value."""
        return ((physical - self.offset) / self.scale) ** (1.0 / self.exponent)


@dataclass(frozen=True)
class Amplitude:
    """Decibels of a linear amplitude: physical = 20 · log10(raw)."""

    def to_physical(self, raw: Value) -> Value:
        """Linear amplitude above 0 → dB."""
        return _log(raw) * (20.0 / math.log(10.0))

    def to_raw(self, physical: Value) -> Value:
        """dB → linear amplitude."""
        return 10.0 ** (physical / 20.0)


@dataclass(frozen=True)
class MidiPitch:
    """physical Hz = 440 · 2^((raw − 69) / 12)."""

    def to_physical(self, raw: Value) -> Value:
        """MIDI note number, fractions allowed → Hz."""
        return midi_to_hz(raw)

    def to_raw(self, physical: Value) -> Value:
        """Hz above 0 → MIDI note number, with its fraction."""
        return 69.0 + _log(physical / 440.0) * (12.0 / math.log(2.0))


@dataclass(frozen=True)
class Ratio:
    """Compressor ratio: physical = 1 / (1 − raw), so raw .75 is 4:1."""

    def to_physical(self, raw: Value) -> Value:
        """Raw value below 1 → compression ratio (4 is 4:1)."""
        return 1.0 / (1.0 - raw)

    def to_raw(self, physical: Value) -> Value:
        """Compression ratio at least 1 → raw value."""
        return 1.0 - 1.0 / physical


@dataclass(frozen=True)
class Address:
    """Where a value lives in Live.

    `parameter`: a DeviceParameter, by `name`. `property`: a property of WavetableDevice that only
    the companion script can set, `name` in the Live Object Model. `modulation`: the amount from
    `source` to the parameter `name`.
    """

    kind: Literal["parameter", "property", "modulation"]
    name: str
    source: str = ""


@dataclass(frozen=True)
class Condition:
    """A knob or choice is audible only while the choice `key` (same device) is one of the item
    indices `items`.
    """

    key: str
    items: tuple[int, ...]


@dataclass(frozen=True)
class Knob:
    """A continuous control. `raw_low`..`raw_high` is the learned range; `default` is in unit."""

    key: str
    name: str
    unit: str
    law: Law
    raw_low: float
    raw_high: float
    default: float
    address: Address
    integer: bool = False
    when: tuple[Condition, ...] = ()
    #: Keys of bipolar amount knobs of which at least one must be away from zero for this knob to be
    #: heard.
    modulated_by: tuple[str, ...] = field(default=())

    def to_raw(self, unit: Value) -> Value:
        """unit → raw; a float or array of an `integer` knob is rounded, a tensor is not (its
        gradient is needed).
        """
        raw = self.raw_low + (self.raw_high - self.raw_low) * unit
        if not self.integer or hasattr(raw, "requires_grad"):
            return raw
        rounded = np.round(raw)
        return float(rounded) if np.ndim(rounded) == 0 else rounded

    def to_unit(self, raw: Value) -> Value:
        """Raw value → unit value, 0..1 over the learned range."""
        return (raw - self.raw_low) / (self.raw_high - self.raw_low)

    def to_physical(self, unit: Value) -> Value:
        """Unit value → physical value in `unit`; integer knobs are rounded as in `to_raw`."""
        return self.law.to_physical(self.to_raw(unit))

    def from_physical(self, physical: Value) -> Value:
        """Physical value in `unit` → unit value; outside 0..1 beyond the learned range."""
        return self.to_unit(self.law.to_raw(physical))

    @property
    def bipolar_amount(self) -> bool:
        """True for a modulation amount: zero modulation lies at unit 0.5."""
        return self.address.kind == "modulation"


@dataclass(frozen=True)
class Choice:
    """A discrete control: `items` are Live's display names, `raws` the values to write,
    `default` an item index.
    """

    key: str
    name: str
    items: tuple[str, ...]
    raws: tuple[float, ...]
    default: int
    address: Address
    when: tuple[Condition, ...] = ()

    def index_of(self, item: str) -> int:
        """Index of the item of this name. Raises ValueError naming what is allowed."""
        if item not in self.items:
            raise ValueError(f"{self.name} has no item {item!r}; it has {', '.join(self.items)}")
        return self.items.index(item)


def _log(value: Value) -> Value:
    """Natural logarithm of a float, array or tensor."""
    return value.log() if hasattr(value, "requires_grad") else np.log(value)
