"""One lane: Wavetable and the effects, wherever `placement` has them, and the audio track that
records them.

A lane remembers what the host last confirmed and sends only what differs: per device one datagram
of values, then one read-back of all of them. What reads back differently is sent again, and ends in
ReadbackMismatch, never in a wrong sound. What was remembered and not sent may have been changed by
somebody else, so after a take all of it is read once more. Between takes every sounding device is
switched off, which flushes the tails of delays and reverbs; setting the next patch switches its own
devices on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from unmixer_core.errors import ReadbackMismatch
from unmixer_core.live.osc import wire
from unmixer_core.live.osc.client import Client
from unmixer_core.live.osc.wire import Message, OscValue
from unmixer_core.live.track.catalog import Catalog
from unmixer_core.live.track.frozen import FrozenTrack, verify_frozen
from unmixer_core.live.track.modulation import clear_matrix
from unmixer_core.live.track.names import DEVICE_ON, Table
from unmixer_core.live.track.placement import Placement
from unmixer_core.live.track.targets import FIXED_PROPERTIES, DeviceTarget, baseline, targets
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK

log = logging.getLogger(__name__)

ATTEMPTS = 4
#: Up to this many differing parameters go as single sets in a bundle, more as one list from index
#: 0.
FEW = 6
WAVETABLE = RACK.synth.name
#: What only the companion reaches: a property of Wavetable, or (target, source) of its modulation
#: matrix.
Key = str | tuple[str, str]


@dataclass
class LaneDevice:
    """What the host confirmed of one device: all parameter values in its order.

    `None` where nothing is known.

    `rest`: the values it had when it was prepared. A patch leaves the parameters it does not name
    at these.
    """

    table: Table
    rest: list[float] = field(default_factory=list)
    values: list[float] | None = None
    on: bool | None = None
    attributes: dict[Key, float] = field(default_factory=dict)

    def forget(self) -> None:
        self.values, self.on = None, None
        self.attributes.clear()


@dataclass
class Lane:
    """Devices at `place`, what is known of each in `state`; `frozen`.

    What this host cannot set (None: everything can be).
    """

    client: Client
    place: Placement
    catalog: Catalog
    frozen: FrozenTrack | None = None
    state: dict[str, LaneDevice] = field(default_factory=dict)
    _wanted: dict[str, DeviceTarget] = field(default_factory=dict)
    #: (target, source) of the matrix that are zero unless the patch names them.
    _zero_cells: list[tuple[str, str]] = field(default_factory=list)

    @property
    def track(self) -> int:
        return self.place.track

    @property
    def capture(self) -> int:
        return self.place.capture

    @property
    def names(self) -> tuple[str, str]:
        """How the lane's track and its capture track are called."""
        return self.place.track_names

    async def prepare(self) -> None:
        """Every device at its baseline, effects off: whatever presets the user's Live loaded."""
        properties = FIXED_PROPERTIES if self.frozen is None else {}
        await asyncio.gather(
            *(self._prepare_device(name) for name in self.state),
            *(self._set_property(WAVETABLE, key, value) for key, value in properties.items()),
        )
        if self.frozen is None:
            self._zero_cells = await clear_matrix(self.client, *self.place.where(WAVETABLE))
            self.state[WAVETABLE].attributes.update(dict.fromkeys(self._zero_cells, 0.0))

    async def apply(self, patch: Patch) -> None:
        """Makes the lane sound as `patch` and confirms every value.

        Raises ReadbackMismatch, ChoiceFrozen (a choice this host cannot set) and other HostErrors.
        Writes to the lane's tracks: `inspect` them first, lest they be somebody else's by now.
        """
        if self.frozen is not None:
            self.frozen.require(patch)
        self._wanted = targets(patch)
        await self.place.arrange(list(self._wanted)[1:])
        await asyncio.gather(
            *(self._set_device(name, target) for name, target in self._wanted.items()),
            *(self._switch_off(name) for name in self.state if name not in self._wanted),
        )

    async def inspect(self) -> None:
        """Looks at the lane's tracks.

        Are they ours, which devices stand in what order, which are on. Raises HostError.
        """
        for name, on in (await self.place.inspect(tuple(self.state))).items():
            self._note_switch(name, on)

    async def verify(self) -> None:
        """Nothing moved while it was recorded.

        Order, switches, every parameter of the patch and what only the companion reaches (on stock:
        what it can read of that). All is asked for in one tick. Raises ReadbackMismatch, HostError.
        """
        order = self.place.order
        await asyncio.gather(
            self.inspect(), *(self._read(name) for name in self._wanted), self._read_attributes()
        )
        if self.place.order != order or any(
            state.on != (name in self._wanted) for name, state in self.state.items()
        ):
            raise ReadbackMismatch(
                f"the devices of track {self.track + 1} were moved or switched while it was "
                f"recorded."
            )
        for name, target in self._wanted.items():
            state = self.state[name]
            moved = self._differing(state, self._goal(name, target.parameters))
            if moved:
                raise ReadbackMismatch(
                    f"{name}'s {state.table.names[moved[0]]} was moved while it was recorded."
                )
        for key, value in self._wanted_attributes().items():
            kept = self.state[WAVETABLE].attributes[key]
            if not wire.same(value, kept):
                raise ReadbackMismatch(
                    f"{WAVETABLE}'s {_words(key)} was changed from {value:g} to {kept:g} while it "
                    f"was recorded."
                )

    def readings(self) -> list[tuple[str, str, float, float]]:
        """(device, parameter, value asked for, value that `verify` read back) of everything the
        patch names, in Live's scale.
        """
        found = []
        for name, target in self._wanted.items():
            state = self.state[name]
            goal = self._goal(name, target.parameters)
            slots = {
                p: state.table.slots[p].index for p in target.parameters if p in state.table.slots
            }
            found += [
                (name, parameter, goal[i], (state.values or [])[i])
                for parameter, i in slots.items()
            ]
        attributes = self.state[WAVETABLE].attributes
        return found + [
            (WAVETABLE, _words(key), value, attributes.get(key, float("nan")))
            for key, value in self._wanted_attributes().items()
            if key not in self._zero_cells or key in self._wanted[WAVETABLE].modulations
        ]

    def _note_switch(self, name: str, on: bool) -> None:
        state = self.state[name]
        state.on = on
        if state.values is not None:
            state.values[self._on_index(name)] = float(on)

    def silence(self) -> list[Message]:
        """Messages that switch every sounding device off.

        Whether they arrived is confirmed by the next `apply`.
        """
        sounding = sorted(
            (name for name in self.state if self.state[name].on is not False), key=self.place.where
        )
        for name in sounding:
            self.state[name].on = None
        return [
            (
                "/live/device/set/parameter/value",
                (*self.place.where(name), self._on_index(name), 0.0),
            )
            for name in sounding
        ]

    def forget(self) -> None:
        """Drops all that was confirmed: the next `apply` reads everything anew."""
        for state in self.state.values():
            state.forget()

    # -- one device ----------------------------------------------------------------------------

    async def _prepare_device(self, name: str) -> None:
        state, on = self.state[name], 1.0 if name == WAVETABLE else 0.0
        kept = await self._set_parameters(name, baseline(name) | {DEVICE_ON: on})
        lost = [key for key in kept if key in state.table.device.fixed]
        if lost:
            raise ReadbackMismatch(
                f"{name}'s {lost[0]} cannot be set to {state.table.device.fixed[lost[0]]:g}."
            )
        if kept:
            log.info("%s keeps its own %s", name, ", ".join(kept))
        state.rest = list(state.values or [])

    async def _set_device(self, name: str, target: DeviceTarget) -> None:
        if self.frozen is not None:
            await self._set_all_parameters(name, target.parameters)
            return
        properties = (FIXED_PROPERTIES if name == WAVETABLE else {}) | dict(target.properties)
        await asyncio.gather(
            self._set_all_parameters(name, target.parameters),
            *(self._set_property(name, key, value) for key, value in properties.items()),
            *(
                self._set_table(name, oscillator, table)
                for oscillator, table in target.tables.items()
            ),
            *(
                self._set_modulation(name, key, amount)
                for key, amount in target.modulations.items()
            ),
            *([self._reset_matrix(target)] if name == WAVETABLE else []),
        )

    async def _set_all_parameters(self, name: str, wanted: Mapping[str, float]) -> None:
        """Raises ReadbackMismatch when one value does not stay."""
        mark = self.client.mark
        lost = await self._set_parameters(name, wanted)
        if not lost:
            return
        state, errors = self.state[name], self.client.errors_since(mark)
        index = state.table.names.index(lost[0])
        goal, kept = self._goal(name, wanted)[index], (state.values or [])[index]
        because = f" (the host said: {errors[-1]})" if errors else ""
        raise ReadbackMismatch(
            f"{name}'s {lost[0]} was set to {goal:g} {ATTEMPTS} times, but reads back as "
            f"{kept:g}{because}."
        )

    async def _set_parameters(self, name: str, wanted: Mapping[str, float]) -> list[str]:
        """Sets and reads back until all values stay; the names of those that do not."""
        state, goal = self.state[name], self._goal(name, wanted)
        if state.values is None:
            await self._read(name)
        elif state.on is None:
            state.values[self._on_index(name)] = float("nan")
        for attempt in range(ATTEMPTS):
            differing = self._differing(state, goal)
            if not differing:
                return []
            await self._send_values(name, goal, differing, together=attempt == 0)
            await self._read(name)
        return [state.table.names[i] for i in self._differing(state, goal)]

    def _goal(self, name: str, wanted: Mapping[str, float]) -> dict[int, float]:
        """The value every parameter should have, by the host's index.

        `wanted` (schema's scale) over the rest.
        """
        state = self.state[name]
        slots = state.table.slots
        goal = dict(enumerate(state.rest)) | dict(state.table.neutral)
        goal.update(
            (slots[p].index, slots[p].to_host(raw)) for p, raw in wanted.items() if p in slots
        )
        return goal

    @staticmethod
    def _differing(state: LaneDevice, goal: Mapping[int, float]) -> list[int]:
        values = state.values or []
        return [
            i for i, value in goal.items() if value != values[i] and not wire.same(value, values[i])
        ]

    async def _send_values(
        self, name: str, goal: Mapping[int, float], differing: list[int], *, together: bool
    ) -> None:
        """A refused value costs all that stand behind it in a list or bundle, so a second
        attempt is not `together`.
        """
        where, values = self.place.where(name), self.state[name].values or []
        singles = [("/live/device/set/parameter/value", (*where, i, goal[i])) for i in differing]
        if not together:
            for single in singles:
                await self.client.send(single, alone=True)
        elif len(differing) <= FEW:
            await self.client.send(*singles)
        else:
            whole = [goal.get(i, value) for i, value in enumerate(values[: max(differing) + 1])]
            await self.client.send(("/live/device/set/parameters/value", (*where, *whole)))

    async def _read(self, name: str) -> None:
        state = self.state[name]
        values = await self.client.query(
            "/live/device/get/parameters/value", *self.place.where(name)
        )
        if len(values) != state.table.n_parameters:
            raise ReadbackMismatch(
                f"{name} answered with {len(values)} values, but has {state.table.n_parameters} "
                f"parameters: "
                f"the devices of track {self.track + 1} were changed; leave them alone while a "
                f"render runs."
            )
        state.values = list(values)
        state.on = state.values[self._on_index(name)] != 0.0

    async def _switch_off(self, name: str) -> None:
        state, index = self.state[name], self._on_index(name)
        if state.on is False:
            return
        where = (*self.place.where(name), index)
        for _ in range(ATTEMPTS):
            (value,) = await self.client.query("/live/device/get/parameter/value", *where)
            if value == 0.0:
                self._note_switch(name, False)
                return
            await self.client.send(("/live/device/set/parameter/value", (*where, 0.0)))
        raise ReadbackMismatch(f"{name} was switched off {ATTEMPTS} times, but reads back as on.")

    def _on_index(self, name: str) -> int:
        return self.state[name].table.slots[DEVICE_ON].index

    # -- what only the companion reaches -------------------------------------------------------

    async def _set_property(self, name: str, key: str, value: int) -> None:
        await self._confirm(name, key, float(value), "/unmixer/device/set", key, value)

    async def _set_modulation(self, name: str, key: tuple[str, str], amount: float) -> None:
        await self._confirm(
            name, key, wire.float32(amount), "/unmixer/device/set_modulation", *key, float(amount)
        )

    async def _set_table(self, name: str, oscillator: int, table: str) -> None:
        """Category first: choosing one replaces the list that the index counts in."""
        category, index = self.catalog.find(table)
        key = f"oscillator_{oscillator}_wavetable_"
        attributes = self.state[name].attributes
        if attributes.get(f"{key}category") != category:
            attributes.pop(f"{key}index", None)
            await self._set_property(name, f"{key}category", category)
        await self._set_property(name, f"{key}index", index)

    def _wanted_attributes(self) -> dict[Key, float]:
        """Everything beyond the parameters that Wavetable should have now; nothing on stock."""
        if self.frozen is not None or WAVETABLE not in self._wanted:
            return {}
        target = self._wanted[WAVETABLE]
        wanted: dict[Key, float] = {
            key: float(v) for key, v in {**FIXED_PROPERTIES, **target.properties}.items()
        }
        for oscillator, table in target.tables.items():
            category, index = self.catalog.find(table)
            wanted[f"oscillator_{oscillator}_wavetable_category"] = float(category)
            wanted[f"oscillator_{oscillator}_wavetable_index"] = float(index)
        wanted.update(dict.fromkeys(self._zero_cells, 0.0))
        wanted.update({cell: wire.float32(amount) for cell, amount in target.modulations.items()})
        return wanted

    async def _read_attributes(self) -> None:
        """All of them in one question.

        On stock: the few that can be read are as they were. Raises HostError if not.
        """
        if self.frozen is not None:
            await verify_frozen(self.client, self.track, self.names[0], self.frozen)
        elif wanted := self._wanted_attributes():
            properties = [key for key in wanted if isinstance(key, str)]
            cells = [key for key in wanted if not isinstance(key, str)]
            await self._read_keys(properties, cells)

    async def _read_keys(self, properties: Sequence[str], cells: Sequence[tuple[str, str]]) -> None:
        words: list[OscValue] = [len(properties), *properties]
        for cell in cells:
            words += cell
        reply = await self.client.companion(
            "/unmixer/device/get_all", *self.place.where(WAVETABLE), *words
        )
        keys: list[Key] = [*properties, *cells]
        self.state[WAVETABLE].attributes.update(zip(keys, map(float, reply[2:]), strict=True))

    async def _reset_matrix(self, target: DeviceTarget) -> None:
        """What no patch names is still zero, or becomes so.

        It is read when nothing is known of it any more.
        """
        attributes = self.state[WAVETABLE].attributes
        cells = [cell for cell in self._zero_cells if cell not in target.modulations]
        if unknown := [cell for cell in cells if cell not in attributes]:
            await self._read_keys((), unknown)
        await asyncio.gather(*(self._set_modulation(WAVETABLE, cell, 0.0) for cell in cells))

    async def _confirm(
        self, name: str, key: Key, value: float, address: str, *arguments: OscValue
    ) -> None:
        attributes = self.state[name].attributes
        if key in attributes and wire.same(attributes[key], value):
            return
        attributes.pop(key, None)
        kept = float("nan")
        for _ in range(ATTEMPTS):
            reply = await self.client.companion(address, *self.place.where(name), *arguments)
            kept = float(reply[-1])
            if wire.same(kept, value):
                attributes[key] = kept
                return
        raise ReadbackMismatch(
            f"{name}'s {_words(key)} was set to {value:g} {ATTEMPTS} times, but reads back as "
            f"{kept:g}."
        )


def _words(key: Key) -> str:
    """A property's name, or "LFO 1 -> Osc 1 Pos"."""
    return key if isinstance(key, str) else f"{key[1]} -> {key[0]}"
