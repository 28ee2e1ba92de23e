"""The companion's addresses as functions of Live's Object Model.

No import of Live: a test passes a model of the song.

Every request starts with an int id, and so does every answer. A request that comes twice (a
repeated datagram) is answered twice but carried out once. What goes wrong is answered by
/unmixer/error with id, address and one sentence.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from Live.Device import Device
    from Live.Song import Song
    from Live.Track import Track
    from Live.WavetableDevice import WavetableDevice

VERSION = "1.1"
ERROR = "/unmixer/error"
REMEMBERED = 1024
SETTABLE = (
    "oscillator_1_wavetable_category",
    "oscillator_1_wavetable_index",
    "oscillator_2_wavetable_category",
    "oscillator_2_wavetable_index",
    "oscillator_1_effect_mode",
    "oscillator_2_effect_mode",
    "unison_mode",
    "unison_voice_count",
    "filter_routing",
    "poly_voices",
)
LISTS = (
    "oscillator_wavetable_categories",
    "oscillator_1_wavetables",
    "oscillator_2_wavetables",
    "visible_modulation_target_names",
)
#: Live.WavetableDevice.ModulationSource, in order.
SOURCES = (
    "Amp",
    "Env 2",
    "Env 3",
    "LFO 1",
    "LFO 2",
    "Velocity",
    "Key",
    "PB",
    "Press",
    "Mod",
    "Random",
)

Answer = tuple[str, tuple[Any, ...]]


class Refused(Exception):
    """One sentence for the user."""


class Operations:
    """`answer(address, arguments)` carries a request out. `song`: returns Live's current song."""

    def __init__(self, song: Callable[[], Song]) -> None:
        self._song = song
        self._answers: OrderedDict[tuple[str, int], Answer] = OrderedDict()
        self._calls: dict[str, Callable[..., tuple[Any, ...]]] = {
            "/unmixer/get/version": lambda: (VERSION,),
            "/unmixer/track/insert_device": self.insert_device,
            "/unmixer/track/move_device": self.move_device,
            "/unmixer/track/delete_device": self.delete_device,
            "/unmixer/device/set": self.set_property,
            "/unmixer/device/get": self.get_property,
            "/unmixer/device/set_modulation": self.set_modulation,
            "/unmixer/device/get_modulation": self.get_modulation,
            "/unmixer/device/get_all": self.get_all,
        }

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(self._calls)

    def answer(self, address: str, arguments: tuple[Any, ...]) -> Answer:
        """The message to send back."""
        if not arguments or not isinstance(arguments[0], int):
            return ERROR, (0, address, "The first argument must be an int request id.")
        request, *rest = arguments
        key = (address, request)
        if key not in self._answers:
            self._answers[key] = self._carry_out(address, request, rest)
            while len(self._answers) > REMEMBERED:
                self._answers.popitem(last=False)
        return self._answers[key]

    def _carry_out(self, address: str, request: int, arguments: list[Any]) -> Answer:
        try:
            return address, (request, *self._calls[address](*arguments))
        except Refused as refusal:
            return ERROR, (request, address, str(refusal))
        except TypeError as error:
            return ERROR, (request, address, f"{address} was called with {arguments}: {error}.")
        except (
            Exception
        ) as error:  # Live raises RuntimeError, ValueError and Boost's own; none may end the tick
            return ERROR, (request, address, f"{type(error).__name__}: {error}")

    # -- devices on a track --------------------------------------------------------------------

    def insert_device(self, track: int, name: str, position: int) -> tuple[Any, ...]:
        """Inserts a native device by its exact UI name; → (track, index)."""
        target = self._track(track)
        if not hasattr(target, "insert_device"):
            raise Refused("Inserting devices needs Live 12.3 or later.")
        before = list(target.devices)
        try:
            target.insert_device(name, position)
        except ValueError as error:
            raise Refused(f"Live has no device named {name!r} ({error}).") from error
        new = [i for i, device in enumerate(target.devices) if device not in before]
        if not new:
            raise Refused(f"Live did not insert {name!r} at position {position} of track {track}.")
        return track, new[0]

    def move_device(self, track: int, start: int, end: int) -> tuple[Any, ...]:
        """Moves a device so that its index is `end` afterwards, or as near as Live allows.

        → (track, index).
        """
        target, device = self._track(track), self._device(track, start)
        self._song().move_device(device, target, end)
        if (
            list(target.devices).index(device) < end
        ):  # Live counts positions before the device is taken out
            self._song().move_device(device, target, end + 1)
        return track, list(target.devices).index(device)

    def delete_device(self, track: int, device: int) -> tuple[Any, ...]:
        """→ (track, device)."""
        self._device(track, device)
        self._track(track).delete_device(device)
        return track, device

    # -- Wavetable -----------------------------------------------------------------------------

    def set_property(self, track: int, device: int, name: str, value: float) -> tuple[Any, ...]:
        """Sets one of SETTABLE; → (track, device, name, value afterwards)."""
        target = self._owner(track, device, name, SETTABLE)
        try:
            setattr(target, name, int(value))
        except TypeError:  # an enumeration that takes only its own kind
            setattr(target, name, type(getattr(target, name))(int(value)))
        return track, device, name, int(getattr(target, name))

    def get_property(self, track: int, device: int, name: str) -> tuple[Any, ...]:
        """→ (track, device, name, value) or, for the lists of names, (track, device, name,
        *names).
        """
        owner = self._owner(track, device, name, SETTABLE + LISTS)
        if name in LISTS:
            return (track, device, name, *map(str, getattr(owner, name)))
        return track, device, name, int(getattr(owner, name))

    def set_modulation(
        self, track: int, device: int, target: str, source: str, amount: float
    ) -> tuple[Any, ...]:
        """Amount −1..1 from `source` to the parameter `target`.

        → (track, device, target, source, amount afterwards).
        """
        if not -1.0 <= amount <= 1.0:
            raise Refused(f"A modulation amount lies in -1..1, not {amount}.")
        owner = self._owner(track, device, "set_modulation_value", ("set_modulation_value",))
        row, column = self._row(owner, target, add=True), self._column(source)
        owner.set_modulation_value(row, column, float(amount))
        return track, device, target, source, float(owner.get_modulation_value(row, column))

    def get_modulation(self, track: int, device: int, target: str, source: str) -> tuple[Any, ...]:
        """→ (track, device, target, source, amount); 0 for a target that is not in the matrix."""
        owner = self._owner(track, device, "get_modulation_value", ("get_modulation_value",))
        row, column = self._row(owner, target, add=False), self._column(source)
        amount = 0.0 if row < 0 else float(owner.get_modulation_value(row, column))
        return track, device, target, source, amount

    def get_all(self, track: int, device: int, count: int, *keys: str) -> tuple[Any, ...]:
        """`count` properties of SETTABLE, then pairs of target and source.

        → (track, device, value, …) in that order.
        """
        properties, cells = keys[:count], keys[count:]
        if len(properties) != count or len(cells) % 2:
            raise Refused(
                f"get_all takes {count} properties and then pairs of target and source, not "
                f"{len(keys)} names."
            )
        for name in properties:
            self._owner(track, device, name, SETTABLE)
        values = [self.get_property(track, device, name)[-1] for name in properties]
        pairs = zip(cells[::2], cells[1::2], strict=True)
        return (
            track,
            device,
            *values,
            *(self.get_modulation(track, device, *pair)[-1] for pair in pairs),
        )

    # -- finding -------------------------------------------------------------------------------

    def _track(self, index: int) -> Track:
        tracks = self._song().tracks
        if not 0 <= index < len(tracks):
            raise Refused(f"There is no track {index}; the set has {len(tracks)}.")
        return tracks[index]

    def _device(self, track: int, index: int) -> Device:
        devices = self._track(track).devices
        if not 0 <= index < len(devices):
            raise Refused(f"Track {track} has no device {index}; it has {len(devices)}.")
        return devices[index]

    def _owner(
        self, track: int, device: int, name: str, allowed: tuple[str, ...]
    ) -> WavetableDevice:
        found = self._device(track, device)
        if name not in allowed:
            raise Refused(f"The companion does not know the property {name!r}.")
        if not hasattr(found, name):
            raise Refused(f"{found.name} has no {name}; only Wavetable does.")
        return cast("WavetableDevice", found)

    def _row(self, device: WavetableDevice, target: str, *, add: bool) -> int:
        """Index of a target in the modulation matrix.

        −1 when it is not there and is not to be added.
        """
        names = [str(name) for name in device.visible_modulation_target_names]
        if target in names:
            return names.index(target)
        if not add:
            return -1
        parameter = next((p for p in device.parameters if p.name == target), None)
        if parameter is None or not device.is_parameter_modulatable(parameter):
            raise Refused(f"{target!r} cannot be modulated; the matrix shows {', '.join(names)}.")
        return int(device.add_parameter_to_modulation_matrix(parameter))

    def _column(self, source: str) -> int:
        if source not in SOURCES:
            raise Refused(
                f"There is no modulation source {source!r}; there are {', '.join(SOURCES)}."
            )
        return SOURCES.index(source)
