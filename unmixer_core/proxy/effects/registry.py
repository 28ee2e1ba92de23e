"""Which module plays which effect of the schema."""

from __future__ import annotations

from unmixer_core.proxy.effects.base import Effect
from unmixer_core.proxy.effects.modulated import ChorusEnsemble, PhaserFlanger
from unmixer_core.proxy.effects.space import Delay, Reverb
from unmixer_core.proxy.effects.tone import AutoFilter, Compressor, EqEight, Saturator
from unmixer_core.schema.devices import EFFECTS, Device

MODULES: dict[str, type[Effect]] = {
    "auto_filter": AutoFilter,
    "saturator": Saturator,
    "compressor": Compressor,
    "eq_eight": EqEight,
    "chorus_ensemble": ChorusEnsemble,
    "phaser_flanger": PhaserFlanger,
    "delay": Delay,
    "reverb": Reverb,
}


def make_effects(devices: tuple[Device, ...] = EFFECTS) -> list[Effect]:
    """One module for each effect, in the order of the devices.

    Raises:
        NotImplementedError: the proxy has no module for an effect, or a module for none.
    """
    keys = {device.key for device in devices}
    unmatched = sorted(keys ^ MODULES.keys())
    if unmatched:
        raise NotImplementedError(
            f"schema/devices.py and proxy/effects/registry.py differ in the effects "
            f"{', '.join(unmatched)}; give each effect of the schema a module in MODULES."
        )
    return [MODULES[device.key](device) for device in devices]
