"""Devices of a track.

Attribute names are those of the Live Object Model, because AbletonOSC exposes them by name.
"""

from __future__ import annotations

from collections.abc import Sequence

from unmixer_core.headless.song import auto_filter_2
from unmixer_core.headless.song.values import (
    OUT_OF_RANGE,
    OscValue,
    Rule,
    float32,
    to_float,
    to_int,
)
from unmixer_core.headless.sound.device_state import PROPERTIES, SILENT_SOURCES, DeviceState
from unmixer_core.headless.sound.voice import DESTINATIONS, SOURCES
from unmixer_core.schema.devices import CLASS_NAMES, TABLES, WAVETABLES, Parameter

#: Live's device type of an instrument.
INSTRUMENT = 1
#: Live's device type of an audio effect.
AUDIO_EFFECT = 2


class SongDevice:
    """A device of a track: name, class, and parameters in Live's order.

    The values are stored in a `DeviceState`, which the voice reads.
    """

    def __init__(self, name: str, table: tuple[Parameter, ...] = ()) -> None:
        self.parameters = table or TABLES[name]
        defaults = {row.name: float32(row.default) for row in self.parameters}
        self.state = DeviceState(name, defaults)

    @property
    def name(self) -> str:
        """The device's name, which selects its table of parameters."""
        return self.state.name

    @property
    def class_name(self) -> str:
        """Live's class of the device, such as InstrumentVector."""
        return CLASS_NAMES[self.name]

    @property
    def type(self) -> int:
        """1: instrument, 2: audio effect."""
        return INSTRUMENT if self.name == "Wavetable" else AUDIO_EFFECT

    @property
    def is_active(self) -> bool:
        """Whether the device is switched on."""
        return self.state.values["Device On"] > 0.5

    @property
    def latency_in_samples(self) -> int:
        """Always 0: the host renders offline."""
        return 0

    @property
    def can_have_chains(self) -> bool:
        """Always False: this host has no racks."""
        return False

    def __getattr__(self, name: str) -> int:
        """A property of Wavetable, which `/live/song/get/track_data` reads as an attribute."""
        if name in PROPERTIES and self.type == INSTRUMENT:
            return to_int(self.get_property(name)[0])
        raise AttributeError(f"'Device' object has no attribute '{name}'")

    @property
    def voice_state(self) -> DeviceState:
        """The state that the voice reads."""
        return self.state

    def copy(self) -> SongDevice:
        """Another device of the same kind in the same state."""
        twin = type(self)(self.name)
        twin.state = DeviceState.from_dict(self.state.to_dict())
        return twin

    def value(self, parameter: Parameter) -> float:
        """A parameter's raw value."""
        return self.state.values[parameter.name]

    def set_value(self, parameter: Parameter, value: OscValue) -> None:
        """Set a parameter's raw value. Raises Live's RuntimeError outside its range."""
        # The margin lets through limits that were rounded to float32 on the wire.
        rule = Rule(
            float,
            float32(parameter.minimum) - 1e-6,
            float32(parameter.maximum) + 1e-6,
            OUT_OF_RANGE,
        )
        number = to_float(rule.check("DeviceParameter", value))
        if parameter.quantized:
            number = round(number)
        self.state.values[parameter.name] = float32(number)

    def text(self, parameter: Parameter) -> str:
        """A parameter's value as text, as in Live's display."""
        digits = 0 if parameter.quantized else 2
        return f"{self.value(parameter):.{digits}f}"

    # Only the companion script's addresses use the methods below.

    def get_property(self, name: str) -> Sequence[OscValue]:
        """Values of a property that is no parameter: one number, or a list of names.

        Raises RuntimeError for an unknown property.
        """
        if name == "oscillator_wavetable_categories":
            return ["Unmixer"]
        if name.endswith(("_wavetables", "_target_names")) and self.type == INSTRUMENT:
            if name == "visible_modulation_target_names":
                return list(DESTINATIONS)
            return list(WAVETABLES)
        self._check_property(name)
        return [self.state.properties.get(name, PROPERTIES[name][0])]

    def set_property(self, name: str, value: OscValue) -> int:
        """Set a property that is no parameter, and return its new value.

        Raises RuntimeError for an unknown property or a value outside its range.
        """
        self._check_property(name)
        _, low, high = PROPERTIES[name]
        number = to_int(value)
        if not low <= number <= high:
            raise RuntimeError(f"{name} takes {low} to {high}, not {value!s}.")
        self.state.properties[name] = number
        return number

    def _check_property(self, name: str) -> None:
        if self.type != INSTRUMENT or name not in PROPERTIES:
            raise RuntimeError(f"{self.name} has no property {name}.")

    def modulation(self, target: str, source: str) -> float:
        """The amount, −1 to 1, of one cell of the modulation matrix."""
        if source not in SILENT_SOURCES:
            self._check_modulation(target, source)
        return self.state.modulation.get(target, {}).get(source, 0.0)

    def set_modulation(self, target: str, source: str, amount: OscValue) -> float:
        """Set the amount of one cell of the modulation matrix, and return its new value.

        Raises RuntimeError for an unknown cell or an amount outside −1..1.
        """
        self._check_modulation(target, source)
        rule = Rule(float, -1.0, 1.0, f"A modulation amount lies in -1..1, not {amount!s}.")
        value = float32(to_float(rule.check("WavetableDevice", amount)))
        self.state.modulation.setdefault(target, {})[source] = value
        return value

    def _check_modulation(self, target: str, source: str) -> None:
        if self.type != INSTRUMENT or target not in DESTINATIONS or source not in SOURCES:
            raise RuntimeError(
                f"The embedded host cannot modulate {target} of {self.name} by {source}."
            )


class AutoFilter2(SongDevice):
    """Auto Filter as Live 12.2 and later inserts it."""

    def __init__(self, name: str) -> None:
        super().__init__(name, auto_filter_2.TABLE)

    @property
    def class_name(self) -> str:
        """Live's class of the device."""
        return auto_filter_2.CLASS_NAME

    @property
    def voice_state(self) -> DeviceState:
        """The state of the old Auto Filter with the same sound."""
        return auto_filter_2.as_old(self.state)


def make_device(name: str, newer: bool = False) -> SongDevice:
    """A new device with its defaults; with `newer`, of the class that Live 12.2 and later uses."""
    if newer and name == auto_filter_2.NAME:
        return AutoFilter2(name)
    return SongDevice(name)
