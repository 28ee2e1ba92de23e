"""Where a parameter is on *this* Live: by name, at run time, because indices, names and whole devices drift with versions.

A device of the schema is recognised by its class name. `DRIFT` holds the classes that replaced another one, what was
renamed, and how a value of the old scale becomes one of the new; it follows dumps that nobody has checked against a
running Live yet, so ranges are compared with what the host reports and a difference is refused, never guessed over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from unmixer_core.errors import DeviceMissing, ParameterMissing
from unmixer_core.live import wire
from unmixer_core.live.client import Client
from unmixer_core.schema.devices import Device
from unmixer_core.schema.knob import Exponential, MidiPitch
from unmixer_core.schema.rack import RACK

SINCE = {
    "Wavetable": "Live 10 Suite",
    "Auto Filter": "any Live; as AutoFilter2 since 12.2",
    "Saturator": "any Live but Lite",
    "Compressor": "any Live",
    "EQ Eight": "any Live but Lite",
    "Chorus-Ensemble": "Live 11",
    "Phaser-Flanger": "Live 11",
    "Delay": "Live 10.1",
    "Reverb": "any Live",
}
"""Device → the Live that has it; editions below Suite lack some, and Wavetable is in Suite alone."""
RENAMED: dict[str, dict[str, tuple[str, str]]] = {"StereoGain": {"Gain": ("Output", "12.4")}}
"""Class → old parameter name → (its new name, the Live that renamed it), where the class stayed."""
Convert = Callable[[float], float]
DEVICE_ON = "Device On"


@dataclass(frozen=True)
class Drift:
    """A class that stands in for an older one. `convert`: raw of the old parameter → raw of the new, by old name."""

    replaces: str
    since: str
    renamed: Mapping[str, str] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()
    convert: Mapping[str, tuple[Convert, float, float]] = field(default_factory=dict)
    """Old name → (conversion, minimum and maximum that the new parameter must report)."""


def _auto_filter_2_frequency(raw: float) -> float:
    """MIDI pitch (20..135) → position on 20 Hz..20 kHz, logarithmic."""
    return float(Exponential(20.0, 20000.0).to_raw(MidiPitch().to_physical(raw)))


DRIFT: dict[str, Drift] = {
    "AutoFilter2": Drift(
        replaces="AutoFilter",
        since="12.2",
        renamed={"Filter Type": "Type", "Env. Modulation": "Env Amount"},
        gone=frozenset({"Filter Circuit - LP/HP", "Filter Circuit - BP/NO/Morph"}),
        convert={
            "Frequency": (_auto_filter_2_frequency, 0.0, 1.0),
            "Drive": (lambda raw: raw / 24.0, 0.0, 1.0),
            "Filter Type": (lambda raw: raw, 0.0, 9.0),
            "Resonance": (lambda raw: raw, 0.0, 1.0),
        },
    ),
}


@dataclass(frozen=True)
class Slot:
    """One parameter on the host: its index, the range it reports, and how the schema's raw value becomes the host's."""

    index: int
    minimum: float
    maximum: float
    convert: Convert | None = None

    def to_host(self, raw: float) -> float:
        """The float32 to send for the schema's `raw`, inside the host's range."""
        value = wire.float32(self.convert(raw) if self.convert else raw)
        return min(max(value, self.minimum), self.maximum)


@dataclass(frozen=True)
class Table:
    """A device class as the host has it: the schema's parameter name → slot, and all the host's own names in order."""

    device: Device
    class_name: str
    slots: Mapping[str, Slot]
    names: tuple[str, ...]

    @property
    def n_parameters(self) -> int:
        return len(self.names)


def accepted_classes(device: Device) -> tuple[str, ...]:
    """Class names under which `device` may appear."""
    return (device.class_name, *(new for new, drift in DRIFT.items() if drift.replaces == device.class_name))


DEVICE_OF_CLASS = {class_name: device for device in RACK.devices for class_name in accepted_classes(device)}


def device_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Class names of a track's devices → the schema's names ("" for a device that is not ours)."""
    return tuple(DEVICE_OF_CLASS[c].name if c in DEVICE_OF_CLASS else "" for c in class_names)


async def read_table(client: Client, track: int, position: int, class_name: str) -> Table:
    """Asks the host for the parameters of one device. Raises DeviceMissing, ParameterMissing, HostTimeout."""
    if class_name not in DEVICE_OF_CLASS:
        raise DeviceMissing(f"the host put a device of class {class_name} on track {track}, which we do not know.")
    names, minima, maxima = await asyncio.gather(
        *(client.query(f"/live/device/get/parameters/{what}", track, position) for what in ("name", "min", "max"))
    )
    return table(DEVICE_OF_CLASS[class_name], class_name, names, minima, maxima)


def table(
    device: Device, class_name: str, names: Sequence[str], minima: Sequence[float], maxima: Sequence[float]
) -> Table:
    """Matches the host's parameters with the schema's by name.

    Raises ParameterMissing when one that is learned or fixed is not there, or has another range than the laws assume.
    """
    drift = DRIFT.get(class_name, Drift(device.class_name, ""))
    index = {name: i for i, name in enumerate(names)}
    slots = {}
    for parameter in device.table:
        name = next((n for n in _names(class_name, drift, parameter.name) if n in index), None)
        if parameter.name in drift.gone or name is None:
            continue
        i = index[name]
        convert, low, high = drift.convert.get(parameter.name, (None, parameter.minimum, parameter.maximum))
        if wire.same(low, minima[i]) and wire.same(high, maxima[i]):
            slots[parameter.name] = Slot(i, minima[i], maxima[i], convert)
    missing = sorted(needed_parameters(device) - drift.gone - slots.keys())
    if missing:
        more = f" Also missing: {', '.join(missing[1:])}." if missing[1:] else ""
        raise ParameterMissing(_missing(device, class_name, drift, missing[0], index, minima, maxima) + more)
    return Table(device, class_name, slots, tuple(names))


def _names(class_name: str, drift: Drift, name: str) -> tuple[str, ...]:
    """Names under which a parameter may appear, today's first."""
    renamed = RENAMED.get(class_name, {}).get(name)
    return (drift.renamed.get(name, name), *([renamed[0]] if renamed else []))


def needed_parameters(device: Device) -> set[str]:
    """Names of the parameters that a patch sets: learned, chosen, fixed, and the switch."""
    addresses = [knob.address for knob in device.knobs] + [choice.address for choice in device.choices]
    return {a.name for a in addresses if a.kind == "parameter"} | set(device.fixed) | {DEVICE_ON}


def _missing(
    device: Device,
    class_name: str,
    drift: Drift,
    name: str,
    index: Mapping[str, int],
    minima: Sequence[float],
    maxima: Sequence[float],
) -> str:
    ours = drift.renamed.get(name, name)
    version = f" (class {class_name}, Live {drift.since} and later)" if drift.since else f" (class {class_name})"
    if ours in index:
        i = index[ours]
        return (
            f"{device.name}'s parameter {ours!r} runs from {minima[i]:g} to {maxima[i]:g} on this host{version}, but our "
            "conversion knows another range; please report it with the output of `python -m unmixer_core.live doctor`."
        )
    return (
        f"{device.name}{version} has no parameter {ours!r} on this host; it has {', '.join(sorted(index)[:12])}, …; "
        f"{device.name} of Live {drift.since or '12.0'} has it, which is what this code was written for "
        "(`python -m unmixer_core.live doctor` lists all)."
    )
