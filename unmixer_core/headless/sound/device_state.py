"""A device as the song holds it (raw values by name), and how the voice reads it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache

from unmixer_core.schema.devices import EFFECTS, TABLES, WAVETABLE
from unmixer_core.schema.knob import Law
from unmixer_core.schema.notes import hz_to_midi
from unmixer_core.system.json_types import Json

Controls = dict[str, float]
PROPERTIES: dict[
    str, tuple[int, int, int]
] = {  # Wavetable's properties beyond its parameters: default, minimum, maximum
    "oscillator_1_wavetable_category": (0, 0, 0),
    "oscillator_1_wavetable_index": (0, 0, 15),
    "oscillator_2_wavetable_category": (0, 0, 0),
    "oscillator_2_wavetable_index": (0, 0, 15),
    "oscillator_1_effect_mode": (0, 0, 3),
    "oscillator_2_effect_mode": (0, 0, 3),
    "unison_mode": (0, 0, 6),
    "unison_voice_count": (4, 2, 8),
    "filter_routing": (0, 0, 2),
    "poly_voices": (6, 0, 6),
}
#: Wavetable's modulation sources that move nothing here: their amounts are zero.
SILENT_SOURCES = ("Amp", "Velocity", "Key", "PB", "Press", "Mod", "Random")


@dataclass
class DeviceState:
    """One device: parameter values by name (missing = default), LOM properties,
    modulation[target][source] = amount −1..1.
    """

    name: str
    values: dict[str, float] = field(default_factory=dict)
    properties: dict[str, int] = field(default_factory=dict)
    modulation: dict[str, dict[str, float]] = field(default_factory=dict)

    def to_dict(self) -> Json:
        """Plain data, for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Json) -> DeviceState:
        """The state that `to_dict` gave."""
        return DeviceState(**data)


class Raw:
    """Reads a device: raw["Osc 1 Pos"] is Live's value, raw.physical(...) its Hz, dB, s as the
    schema's law says.
    """

    def __init__(self, device: DeviceState) -> None:
        self.device, self.name = device, device.name
        self.defaults = _defaults(device.name)

    def __getitem__(self, parameter: str) -> float:
        value = self.device.values.get(parameter)
        return self.defaults[parameter] if value is None else float(value)

    def physical(self, parameter: str) -> float:
        """A parameter in physical units (Hz, dB, ms ...)."""
        return float(_laws(self.name)[parameter].to_physical(self[parameter]))

    def property(self, name: str) -> int:
        """A property, such as a wavetable's index."""
        return self.device.properties.get(name, PROPERTIES[name][0])

    def modulations(self) -> Iterator[tuple[str, str, float]]:
        """(target, source, amount) of every cell that was set, sorted."""
        for target, row in sorted(self.device.modulation.items()):
            for source, amount in sorted(row.items()):
                yield target, source, amount


@cache
def _defaults(name: str) -> dict[str, float]:
    return {p.name: p.default for p in TABLES.get(name, ())}


@cache
def _laws(name: str) -> dict[str, Law]:
    device = {d.name: d for d in (WAVETABLE, *EFFECTS)}[name]
    return {knob.name: knob.law for knob in device.knobs}


def clip(value: float, low: float, high: float) -> float:
    """`value`, held between `low` and `high`."""
    return min(max(value, low), high)


def octaves(value: float) -> float:
    """log2: how Vital keeps rates in Hz and reverb times in seconds."""
    return math.log2(max(value, 1e-9))


def root4(seconds: float) -> float:
    """How Vital keeps envelope times."""
    return clip(seconds, 0.0, 32.0) ** 0.25


def to_note(frequency_hz: float) -> float:
    """Hz → MIDI note number: how Vital keeps cutoffs."""
    return hz_to_midi(frequency_hz)
