"""A patch as a `.vital` preset: the sound of the embedded host, to open in Vital."""

from __future__ import annotations

from pathlib import Path

from unmixer_core.headless.sound.device_state import DeviceState
from unmixer_core.headless.sound.voice import preset
from unmixer_core.live.track.targets import FIXED_PROPERTIES, DeviceTarget, baseline, targets
from unmixer_core.schema.devices import WAVETABLES
from unmixer_core.schema.patch import Patch
from unmixer_core.system import files


def text(patch: Patch) -> str:
    """Return the whole preset, wavetables included.

    The patch's note, held for its gate, sounds like the host's render.
    """
    return preset([_state(name, target) for name, target in targets(patch).items()])


def write(path: Path, patch: Patch) -> None:
    files.write_text(path, text(patch))


def _state(name: str, target: DeviceTarget) -> DeviceState:
    """Return the state of a device in the host: the defaults with the patch's values on top."""
    values = baseline(name) | dict(target.parameters)
    properties = dict(target.properties)
    if name == "Wavetable":
        properties = FIXED_PROPERTIES | properties
        for oscillator, table in target.tables.items():
            properties[f"oscillator_{oscillator}_wavetable_index"] = WAVETABLES.index(table)
    modulation: dict[str, dict[str, float]] = {}
    for (parameter, source), amount in target.modulations.items():
        modulation.setdefault(parameter, {})[source] = amount
    return DeviceState(name, values, properties, modulation)
