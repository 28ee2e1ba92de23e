"""What a patch asks of each device, in Live's terms.

Parameter values by name, Wavetable's properties and matrix amounts.

Controls that cannot be heard are sent at their defaults (`Patch.canonical`), so patches of one
digest are one sound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from unmixer_core.live.track.names import DEVICE_ON
from unmixer_core.schema.chain import END
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK

#: Wavetable's properties that no patch names, at the values the laws assume.
FIXED_PROPERTIES = {"unison_voice_count": 4, "filter_routing": 0, "oscillator_2_effect_mode": 0}
WAVETABLE_INDEX = "oscillator_{}_wavetable_index"


@dataclass(frozen=True)
class DeviceTarget:
    """One device: `parameters` name → raw (schema's scale), `properties` name → int, `tables`
    oscillator → wavetable name, `modulations` (target parameter, source) → amount.
    """

    parameters: Mapping[str, float]
    properties: Mapping[str, int] = field(default_factory=dict)
    tables: Mapping[int, str] = field(default_factory=dict)
    modulations: Mapping[tuple[str, str], float] = field(default_factory=dict)


def targets(patch: Patch) -> dict[str, DeviceTarget]:
    """Device name → target: Wavetable first, then the effects in chain order."""
    patch = patch.canonical()
    positions = [0, *(int(code) + 1 for code in patch.chain if code != END)]
    return {RACK.devices[i].name: _target(patch, i) for i in positions}


def _target(patch: Patch, position: int) -> DeviceTarget:
    parameters = {DEVICE_ON: 1.0, **RACK.devices[position].fixed}
    properties: dict[str, int] = {}
    tables: dict[int, str] = {}
    modulations: dict[tuple[str, str], float] = {}
    for column in _KNOBS[position]:
        knob = RACK.knobs[column].knob
        raw = float(knob.to_raw(float(patch.knobs[column])))
        if knob.address.kind == "modulation":
            modulations[knob.address.name, knob.address.source] = raw
        else:
            parameters[knob.address.name] = raw
    for column in _CHOICES[position]:
        choice, item = RACK.choices[column].choice, int(patch.choices[column])
        if choice.address.name in _OSCILLATOR:
            tables[_OSCILLATOR[choice.address.name]] = choice.items[item]
        elif choice.address.kind == "property":
            properties[choice.address.name] = int(choice.raws[item])
        else:
            parameters[choice.address.name] = float(choice.raws[item])
    return DeviceTarget(parameters, properties, tables, modulations)


def baseline(name: str) -> dict[str, float]:
    """The whole parameter table of a device at its defaults.

    What a patch does not mention, whatever preset Live loads.
    """
    device = next(device for device in RACK.devices if device.name == name)
    return {parameter.name: parameter.default for parameter in device.table} | device.fixed


_OSCILLATOR = {WAVETABLE_INDEX.format(oscillator): oscillator for oscillator in (1, 2)}
_KNOBS = [
    [c for c, ref in enumerate(RACK.knobs) if ref.device == i] for i in range(len(RACK.devices))
]
_CHOICES = [
    [c for c, ref in enumerate(RACK.choices) if ref.device == i] for i in range(len(RACK.devices))
]
