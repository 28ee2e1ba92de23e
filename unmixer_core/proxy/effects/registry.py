"""Which module plays which effect of the schema."""

from __future__ import annotations

from unmixer_core.errors import StageError
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
        StageError: the proxy has no module for an effect.
    """
    for device in devices:
        if device.key not in MODULES:
            raise StageError(
                f'the proxy has no module for the effect "{device.name}"; add one to MODULES in '
                f"unmixer_core/proxy/effects/registry.py."
            )
    return [MODULES[device.key](device) for device in devices]
