"""The `/live/device` addresses of AbletonOSC."""

from __future__ import annotations

from collections.abc import Callable

from unmixer_core.headless.addresses.actions import get_attribute
from unmixer_core.headless.song.devices import SongDevice
from unmixer_core.headless.song.song import Song
from unmixer_core.headless.song.values import Args, Handler, OscValue, at, to_int
from unmixer_core.schema.devices import Parameter

ParameterReader = Callable[[SongDevice, Parameter], OscValue]


def handlers(song: Song) -> dict[str, Handler]:
    """The handler of each `/live/device` address."""

    def on(function: Callable[[SongDevice, Args], Args | None]) -> Handler:
        def handle(args: Args) -> Args | None:
            track = to_int(args[0])
            number = to_int(args[1])
            answer = function(at(song.track(track).devices, number), args[2:])
            return None if answer is None else (track, number, *answer)

        return handle

    def every(read: ParameterReader) -> Handler:
        """A handler that replies with a value of each parameter."""
        return on(lambda device, _: tuple(read(device, p) for p in device.parameters))

    def one(read: ParameterReader) -> Handler:
        """A handler that replies with the index and a value of the parameter at that index."""

        def handle(device: SongDevice, rest: Args) -> Args:
            index = to_int(rest[0])
            return (index, read(device, at(device.parameters, index)))

        return on(handle)

    def name_of(_: SongDevice, parameter: Parameter) -> str:
        return parameter.name

    table: dict[str, Handler] = {}
    for name in ("name", "class_name", "type"):
        table[f"/live/device/get/{name}"] = on(get_attribute(name))
    table["/live/device/get/num_parameters"] = on(lambda device, _: (len(device.parameters),))
    table["/live/device/get/parameters/name"] = every(name_of)
    table["/live/device/get/parameters/value"] = every(SongDevice.value)
    table["/live/device/get/parameters/min"] = every(lambda _, p: float(p.minimum))
    table["/live/device/get/parameters/max"] = every(lambda _, p: float(p.maximum))
    table["/live/device/get/parameters/is_quantized"] = every(lambda _, p: bool(p.quantized))
    table["/live/device/get/parameter/name"] = one(name_of)
    table["/live/device/get/parameter/value"] = one(SongDevice.value)
    table["/live/device/get/parameter/value_string"] = one(SongDevice.text)
    table["/live/device/set/parameter/value"] = on(_set_parameter)
    table["/live/device/set/parameters/value"] = on(_set_parameters)
    return table


def _set_parameter(device: SongDevice, rest: Args) -> None:
    index, value = rest[:2]
    device.set_value(at(device.parameters, to_int(index)), value)


def _set_parameters(device: SongDevice, rest: Args) -> None:
    """Set the parameters from 0 on. A bad value ends it; those before it stay set, as in Live."""
    for index, value in enumerate(rest):
        device.set_value(at(device.parameters, index), value)
