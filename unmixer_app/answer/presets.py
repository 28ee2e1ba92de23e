"""A patch as the text of a `.vital` preset.

What the embedded host sounds, for a person to open in Vital.
"""

from __future__ import annotations

from pathlib import Path

from unmixer_core.headless.sound.device_state import DeviceState
from unmixer_core.headless.sound.voice import preset
from unmixer_core.live.track.targets import FIXED_PROPERTIES, DeviceTarget, baseline, targets
from unmixer_core.schema.devices import WAVETABLES
from unmixer_core.schema.patch import Patch
from unmixer_core.system import files


def text(patch: Patch) -> str:
    """The whole preset, wavetables included.

    Playing the patch's note for its gate sounds like the host's render.
    """
    return preset([_state(name, target) for name, target in targets(patch).items()])


def write(path: Path, patch: Patch) -> None:
    files.write_text(path, text(patch))


def _state(name: str, target: DeviceTarget) -> DeviceState:
    """A device as a lane of the host holds it once it was set.

    Defaults, then what the patch asks for.
    """
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
