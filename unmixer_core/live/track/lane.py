"""One lane: Wavetable and the effects, wherever `placement` has them, and the audio track that
records them.

A lane remembers what the host last confirmed and sends only what differs (device.py for parameters,
attributes.py for what only the companion reaches). What was remembered and not sent may have been
changed by somebody else, so after a take all of it is read once more. Between takes every sounding
device is switched off, which flushes the tails of delays and reverbs; setting the next patch
switches its own devices on.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from unmixer_core.errors import ReadbackMismatch
from unmixer_core.live.osc import wire
from unmixer_core.live.osc.client import Client
from unmixer_core.live.osc.wire import Message
from unmixer_core.live.track.attributes import Attributes, key_text
from unmixer_core.live.track.catalog import Catalog
from unmixer_core.live.track.device import WAVETABLE, Key, LaneDevice, Parameters
from unmixer_core.live.track.frozen import FrozenTrack, verify_frozen
from unmixer_core.live.track.placement import Placement
from unmixer_core.live.track.targets import FIXED_PROPERTIES, DeviceTarget, targets
from unmixer_core.schema.patch import Patch


@dataclass
class Lane:
    """The devices at `place`.

    `state`: device name → what the host confirmed. `frozen`: what this host cannot set (None:
    everything can be set).
    """

    client: Client
    place: Placement
    catalog: Catalog
    frozen: FrozenTrack | None = None
    state: dict[str, LaneDevice] = field(default_factory=dict)
    _wanted: dict[str, DeviceTarget] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._parameters = Parameters(self.client, self.place, self.state)
        self._attributes = Attributes(self.client, self.place, self.catalog, self.state)

    @property
    def track(self) -> int:
        return self.place.track

    @property
    def capture(self) -> int:
        return self.place.capture

    @property
    def names(self) -> tuple[str, str]:
        """The names of the lane's track and of its capture track."""
        return self.place.track_names

    async def prepare(self) -> None:
        """Set every device to its baseline, effects off, whatever presets the user's Live loaded.

        Raises ReadbackMismatch and other HostErrors.
        """
        properties = FIXED_PROPERTIES if self.frozen is None else {}
        await asyncio.gather(
            *(self._parameters.prepare(name) for name in self.state),
            *(
                self._attributes.set_property(WAVETABLE, key, value)
                for key, value in properties.items()
            ),
        )
        if self.frozen is None:
            await self._attributes.clear_matrix()

    async def apply(self, patch: Patch) -> None:
        """Make the lane sound as `patch` and confirm every value.

        Raises ReadbackMismatch, ChoiceFrozen (a choice this host cannot set) and other HostErrors.
        It writes to the lane's tracks: call `inspect` first, as they may be somebody else's by now.
        """
        if self.frozen is not None:
            self.frozen.require(patch)
        self._wanted = targets(patch)
        chain = list(self._wanted)[1:]
        await self.place.arrange(chain)
        unused = [name for name in self.state if name not in self._wanted]
        await asyncio.gather(
            *(self._set_device(name, target) for name, target in self._wanted.items()),
            *(self._parameters.switch_off(name) for name in unused),
        )

    async def _set_device(self, name: str, target: DeviceTarget) -> None:
        parameters = self._parameters
        attributes = self._attributes
        if self.frozen is not None:
            await parameters.set_all(name, target.parameters)
            return
        properties = dict(target.properties)
        if name == WAVETABLE:
            properties = FIXED_PROPERTIES | properties
        writes = [parameters.set_all(name, target.parameters)]
        for key, value in properties.items():
            writes.append(attributes.set_property(name, key, value))
        for oscillator, table in target.tables.items():
            writes.append(attributes.set_table(name, oscillator, table))
        for cell, amount in target.modulations.items():
            writes.append(attributes.set_modulation(name, cell, amount))
        if name == WAVETABLE:
            writes.append(attributes.reset_matrix(target))
        await asyncio.gather(*writes)

    async def inspect(self) -> None:
        """Check that the tracks are ours; read the order of the devices and their switches.

        Raises HostError.
        """
        switches = await self.place.inspect(tuple(self.state))
        for name, on in switches.items():
            self.state[name].store_switch(on)

    async def verify(self) -> None:
        """Check that nothing changed during the recording.

        This reads the order, the switches, every parameter of the patch and what only the companion
        reaches (on stock: what can be read of that), all in one tick. Raises ReadbackMismatch,
        HostError.
        """
        order = self.place.order
        await asyncio.gather(
            self.inspect(),
            *(self._parameters.read(name) for name in self._wanted),
            self._read_attributes(),
        )
        self._require_order(order)
        self._require_parameters()
        self._require_attributes()

    async def _read_attributes(self) -> None:
        """Read all attributes in one question; on stock, check the few that can be read.

        Raises HostError.
        """
        if self.frozen is not None:
            await verify_frozen(self.client, self.track, self.names[0], self.frozen)
            return
        wanted = self._wanted_attributes()
        if wanted:
            await self._attributes.read(list(wanted))

    def _require_order(self, order: tuple[object, ...]) -> None:
        switches_kept = all(
            state.on == (name in self._wanted) for name, state in self.state.items()
        )
        if self.place.order != order or not switches_kept:
            raise ReadbackMismatch(
                f"the devices of track {self.track + 1} were moved or switched while it was "
                f"recorded."
            )

    def _require_parameters(self) -> None:
        for name, target in self._wanted.items():
            state = self.state[name]
            moved = state.differing(state.goal(target.parameters))
            if moved:
                raise ReadbackMismatch(
                    f"{name}'s {state.table.names[moved[0]]} was moved while it was recorded."
                )

    def _require_attributes(self) -> None:
        for key, value in self._wanted_attributes().items():
            confirmed = self.state[WAVETABLE].attributes[key]
            if not wire.same(value, confirmed):
                raise ReadbackMismatch(
                    f"{WAVETABLE}'s {key_text(key)} was changed from {value:g} to {confirmed:g} "
                    f"while it was recorded."
                )

    def _wanted_attributes(self) -> dict[Key, float]:
        """The attributes that the patch asks for; nothing on stock."""
        if self.frozen is not None or WAVETABLE not in self._wanted:
            return {}
        return self._attributes.wanted(self._wanted[WAVETABLE])

    def readings(self) -> list[tuple[str, str, float, float]]:
        """(device, parameter, value asked for, value that `verify` read back), in Live's scale.

        The list holds everything that the patch names.
        """
        readings = []
        for name, target in self._wanted.items():
            state = self.state[name]
            goal = state.goal(target.parameters)
            for parameter in target.parameters:
                if parameter in state.table.slots:
                    i = state.table.slots[parameter].index
                    readings.append((name, parameter, goal[i], (state.values or [])[i]))
        attributes = self.state[WAVETABLE].attributes
        for key, value in self._wanted_attributes().items():
            named = key in self._wanted[WAVETABLE].modulations
            if named or key not in self._attributes.zero_cells:
                confirmed = attributes.get(key, float("nan"))
                readings.append((WAVETABLE, key_text(key), value, confirmed))
        return readings

    def silence(self) -> list[Message]:
        """Messages that switch every sounding device off.

        The next `apply` confirms whether they arrived.
        """
        return self._parameters.silence()

    def forget(self) -> None:
        """Drop all that was confirmed: the next `apply` reads everything again."""
        for state in self.state.values():
            state.forget()
