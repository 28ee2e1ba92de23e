"""The companion script's addresses.

/unmixer/..., each request and reply led by the client's request number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from unmixer_core.headless.song.song import Song, at

Args = Sequence[Any]
VERSION = "1.1"


def handlers(song: Song) -> dict[str, Callable[[Args], Args]]:
    """Every companion address: arguments after the request number → reply after it.

    They raise what cannot be done.
    """

    def on_track(function: Callable[..., Args]) -> Callable[[Args], Args]:
        return lambda args: (args[0], *function(song.track(int(args[0])), *args[1:]))

    def on_device(function: Callable[..., Args]) -> Callable[[Args], Args]:
        def handle(args: Args) -> Args:
            device = at(song.track(int(args[0])).devices, int(args[1]))
            return (args[0], args[1], *function(device, *args[2:]))

        return handle

    def delete(track: Any, index: int) -> Args:
        del track.devices[track.devices.index(at(track.devices, int(index)))]
        return (index,)

    def move(track: Any, source: int, target: int) -> Args:
        at(track.devices, int(source))
        return (track.move_device(int(source), int(target)),)

    def get_all(device: Any, count: int, *keys: str) -> Args:
        properties, cells = keys[:count], keys[count:]
        if len(properties) != count or len(cells) % 2:
            raise RuntimeError(
                f"get_all takes {count} properties and then pairs of target and source."
            )
        amounts = (device.modulation(*pair) for pair in zip(cells[::2], cells[1::2], strict=True))
        return (*(device.get_property(name)[0] for name in properties), *amounts)

    return {
        "/unmixer/get/version": lambda _: (VERSION,),
        "/unmixer/track/insert_device": on_track(
            lambda track, name, at_index: (track.insert_device(name, int(at_index)),)
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
