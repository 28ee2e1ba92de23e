"""The addresses of the companion script, `/unmixer/...`.

The first argument of each request and reply is the client's request number. The server removes it
before the handler, and adds it to the reply.
"""

from __future__ import annotations

from collections.abc import Callable

from unmixer_core.headless.song.devices import SongDevice
from unmixer_core.headless.song.song import Song
from unmixer_core.headless.song.tracks import Track
from unmixer_core.headless.song.values import Args, OscValue, at, to_int

#: The version of the companion script that this host imitates.
VERSION = "1.1"


def handlers(song: Song) -> dict[str, Callable[[Args], Args]]:
    """The handler of each companion address; it raises an error for what cannot be done."""

    def on_track(function: Callable[..., Args]) -> Callable[[Args], Args]:
        return lambda args: (args[0], *function(song.track(to_int(args[0])), *args[1:]))

    def on_device(function: Callable[..., Args]) -> Callable[[Args], Args]:
        def handle(args: Args) -> Args:
            device = at(song.track(to_int(args[0])).devices, to_int(args[1]))
            return (args[0], args[1], *function(device, *args[2:]))

        return handle

    def delete(track: Track, index: OscValue) -> Args:
        device = at(track.devices, to_int(index))
        track.devices.remove(device)
        return (index,)

    def move(track: Track, source: OscValue, target: OscValue) -> Args:
        at(track.devices, to_int(source))  # raises for an index out of range
        return (track.move_device(to_int(source), to_int(target)),)

    def get_all(device: SongDevice, count: int, *keys: str) -> Args:
        properties = keys[:count]
        cells = keys[count:]
        if len(properties) != count or len(cells) % 2:
            raise RuntimeError(
                f"get_all takes {count} properties and then pairs of target and source."
            )
        values: list[OscValue] = []
        for name in properties:
            values.append(device.get_property(name)[0])
        for target, source in zip(cells[::2], cells[1::2], strict=True):
            values.append(device.modulation(target, source))
        return values

    return {
        "/unmixer/get/version": lambda _: (VERSION,),
        "/unmixer/track/insert_device": on_track(
            lambda track, name, at_index: (track.insert_device(name, to_int(at_index)),)
        ),
        "/unmixer/track/move_device": on_track(move),
        "/unmixer/track/delete_device": on_track(delete),
        "/unmixer/device/set": on_device(
            lambda device, name, value: (name, device.set_property(name, value))
        ),
        "/unmixer/device/get": on_device(lambda device, name: (name, *device.get_property(name))),
        "/unmixer/device/set_modulation": on_device(
            lambda device, target, source, amount: (
                target,
                source,
                device.set_modulation(target, source, amount),
            )
        ),
        "/unmixer/device/get_modulation": on_device(
            lambda device, target, source: (target, source, device.modulation(target, source))
        ),
        "/unmixer/device/get_all": on_device(get_all),
    }
