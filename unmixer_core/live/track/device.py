"""The parameters of a lane's devices: writing them, reading them back, and what differs.

Per device one datagram of values is sent, then one read-back of all of them. What reads back
differently is sent again, and ends in ReadbackMismatch.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from unmixer_core.errors import ReadbackMismatch
from unmixer_core.live.osc import wire
from unmixer_core.live.osc.client import Client
from unmixer_core.live.osc.wire import Message
from unmixer_core.live.track.names import DEVICE_ON, Table
from unmixer_core.live.track.placement import Placement
from unmixer_core.live.track.targets import baseline
from unmixer_core.schema.rack import RACK

log = logging.getLogger(__name__)

#: Writes of one value before it counts as refused.
ATTEMPTS = 4
#: Up to this many differing parameters go as single sets in a bundle; more go as one list that
#: starts at index 0.
MAX_SINGLE_SETS = 6
WAVETABLE = RACK.synth.name
SET_VALUE = "/live/device/set/parameter/value"
#: What only the companion reaches: a property of Wavetable, or (target, source) of its modulation
#: matrix.
Key = str | tuple[str, str]


@dataclass
class LaneDevice:
    """The host's confirmed values of one device, and what differs from a goal.

    `values`: all parameters in the host's order, `on`: the device switch, both None where unknown.
    `rest`: the values after `prepare`. A parameter that a patch does not name goes back to these.
    """

    table: Table
    rest: list[float] = field(default_factory=list)
    values: list[float] | None = None
    on: bool | None = None
    attributes: dict[Key, float] = field(default_factory=dict)

    @property
    def on_index(self) -> int:
        """The host's index of the device switch."""
        return self.table.slots[DEVICE_ON].index

    def forget(self) -> None:
        """Mark every value as unknown."""
        self.values = None
        self.on = None
        self.attributes.clear()

    def store(self, values: list[float]) -> None:
        """Take over all values that the host answered."""
        self.values = values
        self.on = values[self.on_index] != 0.0

    def store_switch(self, on: bool) -> None:
        """Take over the device switch that the host answered."""
        self.on = on
        if self.values is not None:
            self.values[self.on_index] = float(on)

    def goal(self, wanted: Mapping[str, float]) -> dict[int, float]:
        """The value that every parameter should have, by the host's index.

        `wanted`, in the schema's scale, replaces the values of `rest`.
        """
        slots = self.table.slots
        goal = dict(enumerate(self.rest)) | dict(self.table.neutral)
        for name, raw in wanted.items():
            if name in slots:
                goal[slots[name].index] = slots[name].to_host(raw)
        return goal

    def differing(self, goal: Mapping[int, float]) -> list[int]:
        """Indices of the parameters whose confirmed value is not the goal's."""
        values = self.values or []
        indices = []
        for i, value in goal.items():
            # NaN marks a value that has to be sent: it equals nothing.
            if value != values[i] and not wire.same(value, values[i]):
                indices.append(i)
        return indices

    def single_sets(
        self, where: tuple[int, int], goal: Mapping[int, float], indices: list[int]
    ) -> list[Message]:
        """One message per parameter of `indices`."""
        return [(SET_VALUE, (*where, i, goal[i])) for i in indices]

    def list_set(
        self, where: tuple[int, int], goal: Mapping[int, float], indices: list[int]
    ) -> Message:
        """One message that sets all parameters up to the last of `indices`."""
        confirmed = (self.values or [])[: max(indices) + 1]
        whole = [goal.get(i, value) for i, value in enumerate(confirmed)]
        return "/live/device/set/parameters/value", (*where, *whole)


class Parameters:
    """Writes and reads back the parameters of the devices in `state`."""

    def __init__(self, client: Client, place: Placement, state: Mapping[str, LaneDevice]) -> None:
        self._client = client
        self._place = place
        self._state = state

    async def prepare(self, name: str) -> None:
        """Set the whole table to its defaults, effects off, and store the values as `rest`.

        Raises ReadbackMismatch when a value that the schema fixes does not stay.
        """
        state = self._state[name]
        on = 1.0 if name == WAVETABLE else 0.0
        refused = await self._set_until_confirmed(name, baseline(name) | {DEVICE_ON: on})
        fixed = state.table.device.fixed
        refused_fixed = [key for key in refused if key in fixed]
        if refused_fixed:
            first = refused_fixed[0]
            raise ReadbackMismatch(f"{name}'s {first} cannot be set to {fixed[first]:g}.")
        if refused:
            log.info("%s keeps its own %s", name, ", ".join(refused))
        state.rest = list(state.values or [])

    async def set_all(self, name: str, wanted: Mapping[str, float]) -> None:
        """Set and confirm every parameter. Raises ReadbackMismatch when one value does not stay."""
        mark = self._client.mark
        refused = await self._set_until_confirmed(name, wanted)
        if not refused:
            return
        state = self._state[name]
        errors = self._client.errors_since(mark)
        index = state.table.names.index(refused[0])
        goal = state.goal(wanted)[index]
        confirmed = (state.values or [])[index]
        because = f" (the host said: {errors[-1]})" if errors else ""
        raise ReadbackMismatch(
            f"{name}'s {refused[0]} was set to {goal:g} {ATTEMPTS} times, but reads back as "
            f"{confirmed:g}{because}."
        )

    async def _set_until_confirmed(self, name: str, wanted: Mapping[str, float]) -> list[str]:
        """Set and read back until all values stay; return the names of those that do not."""
        state = self._state[name]
        goal = state.goal(wanted)
        if state.values is None:
            await self.read(name)
        elif state.on is None:
            state.values[state.on_index] = float("nan")
        for attempt in range(ATTEMPTS):
            differing = state.differing(goal)
            if not differing:
                return []
            await self._send_values(name, goal, differing, together=attempt == 0)
            await self.read(name)
        return [state.table.names[i] for i in state.differing(goal)]

    async def _send_values(
        self, name: str, goal: Mapping[int, float], differing: list[int], *, together: bool
    ) -> None:
        """Send the differing values in one datagram, or one datagram each.

        The host drops what stands behind a refused value in a list or bundle, so a second attempt
        is not `together`.
        """
        where = self._place.where(name)
        state = self._state[name]
        singles = state.single_sets(where, goal, differing)
        if not together:
            for single in singles:
                await self._client.send(single, alone=True)
        elif len(differing) <= MAX_SINGLE_SETS:
            await self._client.send(*singles)
        else:
            await self._client.send(state.list_set(where, goal, differing))

    async def read(self, name: str) -> None:
        """Read all values. Raises ReadbackMismatch when their number is another device's."""
        table = self._state[name].table
        where = self._place.where(name)
        values = await self._client.query("/live/device/get/parameters/value", *where)
        if len(values) != table.n_parameters:
            raise ReadbackMismatch(
                f"{name} answered with {len(values)} values, but has {table.n_parameters} "
                f"parameters: the devices of track {self._place.track + 1} were changed; leave "
                f"them alone while a render runs."
            )
        self._state[name].store(wire.numbers(values))

    async def switch_off(self, name: str) -> None:
        """Switch the device off unless it is off. Raises ReadbackMismatch when it stays on."""
        state = self._state[name]
        if state.on is False:
            return
        where = (*self._place.where(name), state.on_index)
        for _ in range(ATTEMPTS):
            (value,) = await self._client.query("/live/device/get/parameter/value", *where)
            if value == 0.0:
                state.store_switch(False)
                return
            await self._client.send((SET_VALUE, (*where, 0.0)))
        raise ReadbackMismatch(f"{name} was switched off {ATTEMPTS} times, but reads back as on.")

    def silence(self) -> list[Message]:
        """Messages that switch off every device that may be on, in set order.

        The switches count as unknown until the next `set_all` or `switch_off`.
        """
        sounding = [name for name, state in self._state.items() if state.on is not False]
        messages: list[Message] = []
        for name in sorted(sounding, key=self._place.where):
            state = self._state[name]
            state.on = None
            messages.append((SET_VALUE, (*self._place.where(name), state.on_index, 0.0)))
        return messages
