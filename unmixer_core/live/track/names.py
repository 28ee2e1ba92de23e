"""Where a parameter is on *this* Live.

By name, at run time, because indices, names and whole devices drift with versions.

A device of the schema is recognised by its class name. `DRIFT` holds the classes that replaced
another one, what was renamed, and how a value of the old scale becomes one of the new; it follows
dumps that nobody has checked against a running Live yet, so ranges are compared with what the host
reports and a difference is refused, never guessed over. The one exception is what a patch switches
off: an amount fixed at 0 is 0 on any scale that has it (`_off`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from unmixer_core.errors import DeviceMissing, HostError, ParameterMissing
from unmixer_core.live.osc import wire
from unmixer_core.live.osc.client import Client
from unmixer_core.schema.devices import Device, Parameter
from unmixer_core.schema.knob import Exponential, MidiPitch
from unmixer_core.schema.rack import RACK

#: Device → the Live that has it; editions below Suite lack some, and Wavetable is in Suite alone.
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
#: What errors say of a device that is not in `SINCE`.
UNLISTED = "a version that is not listed"
#: Device → the Live whose parameters schema/devices.py lists: dumps of about 12.1, and presets of
#: 12.2 for the Chorus. Older ones may lack some (Saturator was redesigned in 12.1), newer ones may
#: have changed.
TABLE_FROM = dict.fromkeys(SINCE, "12.1") | {"Chorus-Ensemble": "12.2"}
#: Class → old parameter name → (its new name, the Live that renamed it), where the class stayed.
RENAMED: dict[str, dict[str, tuple[str, str]]] = {"StereoGain": {"Gain": ("Output", "12.4")}}
Convert = Callable[[float], float]
DEVICE_ON = "Device On"
#: How far beyond its range, as a part of it, a value may lie by rounding.
EDGE = 1e-5


@dataclass(frozen=True)
class Scale:
    """A range that a parameter may report, and how a raw value of the schema becomes one on it
    (None: it is the same).
    """

    minimum: float
    maximum: float
    convert: Convert | None = None


@dataclass(frozen=True)
class Drift:
    """A class that stands in for an older one, by the old parameters' names.

    `scales`: what the new parameter may report beside the old range; `neutral`: parameters that the
    old class does not have, held at these values where the host has them on the range 0 to
    `neutral`'s second number.
    """

    replaces: str
    since: str
    renamed: Mapping[str, str] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()
    scales: Mapping[str, tuple[Scale, ...]] = field(default_factory=dict)
    neutral: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def _auto_filter_2_frequency(raw: float) -> float:
    """MIDI pitch (20..135) → position on 20 Hz..20 kHz, logarithmic."""
    return float(Exponential(20.0, 20000.0).to_raw(MidiPitch().to_physical(raw)))


#: By the fact sheet's list of AutoFilter2 (names and API ranges not verified in a running Live):
#:
#: - Type: its items 0..3 are the old ones in the old order (lowpass, highpass, bandpass, notch), so
#: the number stays; the new ones behind them (Morph, DJ, Vowel, …) are not learned. Slope: 12 or 24
#: dB by the same number, if it reports 0..1; - Resonance: per cent stay per cent. The old scale
#: runs to 1.25 (125 %), the new one to 1, and so does the learned range; more than 100 % is refused
#: by `Slot.to_host`, not clamped. What the two filters make of 100 % may differ; - Circuit: the old
#: two are gone (OSR has no namesake); the first, SVF, is the plain one. Soft Clip off, Dry/Wet 100
#: %.
DRIFT: dict[str, Drift] = {
    "AutoFilter2": Drift(
        replaces="AutoFilter",
        since="12.2",
        renamed={"Filter Type": "Type", "Env. Modulation": "Env Amount"},
        gone=frozenset({"Filter Circuit - LP/HP", "Filter Circuit - BP/NO/Morph"}),
        scales={
            "Frequency": (
                Scale(0.0, 1.0, _auto_filter_2_frequency),
                Scale(20.0, 20000.0, MidiPitch().to_physical),
            ),
            "Drive": (Scale(0.0, 1.0, lambda raw: raw / 24.0),),
            "Filter Type": (Scale(0.0, 9.0),),
            "Resonance": (Scale(0.0, 1.0),),
        },
        neutral={"Circuit": (0.0, 3.0), "Soft Clip": (0.0, 1.0), "Dry/Wet": (1.0, 1.0)},
    ),
}


@dataclass(frozen=True)
class Slot:
    """One parameter on the host: its name and index, the range it reports, and how a raw value
    becomes the host's.
    """

    name: str
    index: int
    minimum: float
    maximum: float
    convert: Convert | None = None

    def to_host(self, raw: float) -> float:
        """The float32 to send for the schema's `raw`.

        Only rounding at the ends of the host's range is forgiven.

        Raises HostError for a value beyond them: clamped it would read back as good and sound
        otherwise.
        """
        value = wire.float32(self.convert(raw) if self.convert else raw)
        inside = min(max(value, self.minimum), self.maximum)
        if not abs(value - inside) <= EDGE * max(1.0, self.maximum - self.minimum):
            raise HostError(
                f"{self.name} should become {value:g}, but runs from {self.minimum:g} to "
                f"{self.maximum:g} on this host."
            )
        return inside


@dataclass(frozen=True)
class Table:
    """A device class as the host has it.

    The schema's parameter name → slot, and all the host's own names in order.

    `neutral`: index → value of what the schema does not know, but a newer class has
    (Drift.neutral).
    """

    device: Device
    class_name: str
    slots: Mapping[str, Slot]
    names: tuple[str, ...]
    neutral: Mapping[int, float] = field(default_factory=dict)

    @property
    def n_parameters(self) -> int:
        return len(self.names)


def accepted_classes(device: Device) -> tuple[str, ...]:
    """Class names under which `device` may appear."""
    return (
        device.class_name,
        *(new for new, drift in DRIFT.items() if drift.replaces == device.class_name),
    )


DEVICE_OF_CLASS = {
    class_name: device for device in RACK.devices for class_name in accepted_classes(device)
}


def device_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Class names of a track's devices → the schema's names ("" for a device that is not ours)."""
    return tuple(DEVICE_OF_CLASS[c].name if c in DEVICE_OF_CLASS else "" for c in class_names)


async def read_table(client: Client, track: int, position: int, class_name: str) -> Table:
    """Asks the host for the parameters of one device.

    Raises DeviceMissing, ParameterMissing, HostTimeout.
    """
    if class_name not in DEVICE_OF_CLASS:
        raise DeviceMissing(
            f"the host put a device of class {class_name} on track {track}, which we do not know."
        )
    names, minima, maxima = await asyncio.gather(
        *(
            client.query(f"/live/device/get/parameters/{what}", track, position)
            for what in ("name", "min", "max")
        )
    )
    return table(DEVICE_OF_CLASS[class_name], class_name, names, minima, maxima)


def table(
    device: Device,
    class_name: str,
    names: Sequence[str],
    minima: Sequence[float],
    maxima: Sequence[float],
) -> Table:
    """Matches the host's parameters with the schema's by name.

    Raises ParameterMissing when one that is learned or fixed is not there, or has another range
    than the laws assume.
    """
    drift = DRIFT.get(class_name, Drift(device.class_name, ""))
    index = {name: i for i, name in enumerate(names)}
    slots = {}
    for parameter in device.table:
        name = next((n for n in _names(class_name, drift, parameter.name) if n in index), None)
        if parameter.name in drift.gone or name is None:
            continue
        i = index[name]
        scale = _scale(device, drift, parameter, minima[i], maxima[i])
        if scale is not None:
            slots[parameter.name] = Slot(
                f"{device.name}'s {name}", i, minima[i], maxima[i], scale.convert
            )
    missing = sorted(needed_parameters(device) - drift.gone - slots.keys())
    if missing:
        others = ", ".join(
            _found(name, class_name, drift, index, minima, maxima) for name in missing[1:]
        )
        more = f" Also missing: {others}." if others else ""
        raise ParameterMissing(
            _missing(device, class_name, drift, missing[0], index, minima, maxima) + more
        )
    neutral = {
        index[name]: value
        for name, (value, high) in drift.neutral.items()
        if name in index
        and wire.same(minima[index[name]], 0.0)
        and wire.same(maxima[index[name]], high)
    }
    return Table(device, class_name, slots, tuple(names), neutral)


def _scale(
    device: Device, drift: Drift, parameter: Parameter, minimum: float, maximum: float
) -> Scale | None:
    """The scale on which a parameter stands that reports this range.

    None when it is none that we know.
    """
    known = (Scale(parameter.minimum, parameter.maximum), *drift.scales.get(parameter.name, ()))
    for scale in known:
        if wire.same(scale.minimum, minimum) and wire.same(scale.maximum, maximum):
            return scale
    return Scale(minimum, maximum) if _off(device, parameter, minimum, maximum) else None


def _off(device: Device, parameter: Parameter, minimum: float, maximum: float) -> bool:
    """Is this an amount that is always 0, and is 0 nothing on the host's scale, too?

    A bipolar one has to stay bipolar (on
    0..1 its middle would be 0.5), and an item of a list counts only in the list that we know.
    """
    always_zero = device.fixed.get(parameter.name) == 0.0 and not parameter.quantized
    return always_zero and minimum <= 0.0 <= maximum and (minimum < 0.0 or parameter.minimum >= 0.0)


def _names(class_name: str, drift: Drift, name: str) -> tuple[str, ...]:
    """Names under which a parameter may appear, the class's own first."""
    renamed = RENAMED.get(class_name, {}).get(name)
    return (drift.renamed.get(name, name), name, *([renamed[0]] if renamed else []))


def needed_parameters(device: Device) -> set[str]:
    """Names of the parameters that a patch sets: learned, chosen, fixed, and the switch."""
    addresses = [knob.address for knob in device.knobs] + [
        choice.address for choice in device.choices
    ]
    return {a.name for a in addresses if a.kind == "parameter"} | set(device.fixed) | {DEVICE_ON}


def _found(
    name: str,
    class_name: str,
    drift: Drift,
    index: Mapping[str, int],
    minima: Sequence[float],
    maxima: Sequence[float],
) -> str:
    """A name, and the range that the host reports for it where it has it."""
    i = next((index[n] for n in _names(class_name, drift, name) if n in index), None)
    return name if i is None else f"{name} (runs from {minima[i]:g} to {maxima[i]:g})"


def _missing(
    device: Device,
    class_name: str,
    drift: Drift,
    name: str,
    index: Mapping[str, int],
    minima: Sequence[float],
    maxima: Sequence[float],
) -> str:
    ours = next(
        (n for n in _names(class_name, drift, name) if n in index), drift.renamed.get(name, name)
    )
    version = (
        f" (class {class_name}, Live {drift.since} and later)"
        if drift.since
        else f" (class {class_name})"
    )
    if ours in index:
        i = index[ours]
        return (
            f"{device.name}'s parameter {ours!r} runs from {minima[i]:g} to {maxima[i]:g} on this "
            f"host{version}, but our "
            "conversion knows another range; please report it with the output of `python -m "
            "unmixer_core.live doctor`."
        )
    table_from = drift.since or TABLE_FROM.get(device.name, UNLISTED)
    return (
        f"{device.name}{version} has no parameter {ours!r} on this host; it has "
        f"{', '.join(sorted(index)[:12])}, …; "
        f"{device.name} of Live {table_from} has it, which is what "
        f"this code was written for "
        "(`python -m unmixer_core.live doctor` lists all)."
    )
