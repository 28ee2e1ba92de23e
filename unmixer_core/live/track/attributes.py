"""What only the companion reaches: properties, wavetables and the modulation matrix."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from unmixer_core.errors import ReadbackMismatch
from unmixer_core.live.osc import wire
from unmixer_core.live.osc.client import Client
from unmixer_core.live.osc.wire import OscValue
from unmixer_core.live.track.catalog import Catalog
from unmixer_core.live.track.device import ATTEMPTS, WAVETABLE, Key, LaneDevice
from unmixer_core.live.track.modulation import clear_matrix
from unmixer_core.live.track.placement import Placement
from unmixer_core.live.track.targets import FIXED_PROPERTIES, DeviceTarget


class Attributes:
    """Writes and reads back the attributes of the devices in `state`.

    `zero_cells`: (target, source) of the matrix that are zero unless the patch names them.
    """

    def __init__(
        self,
        client: Client,
        place: Placement,
        catalog: Catalog,
        state: Mapping[str, LaneDevice],
    ) -> None:
        self.zero_cells: list[tuple[str, str]] = []
        self._client = client
        self._place = place
        self._catalog = catalog
        self._state = state

    async def clear_matrix(self) -> None:
        """Set every modulation of the preset that Live loaded to zero. Raises ReadbackMismatch."""
        self.zero_cells = await clear_matrix(self._client, *self._place.where(WAVETABLE))
        self._state[WAVETABLE].attributes.update(dict.fromkeys(self.zero_cells, 0.0))

    async def set_property(self, name: str, key: str, value: int) -> None:
        """Set and confirm one property of a device. Raises ReadbackMismatch."""
        await self._confirm(name, key, float(value), "/unmixer/device/set", key, value)

    async def set_modulation(self, name: str, key: tuple[str, str], amount: float) -> None:
        """Set and confirm the amount of (target, source). Raises ReadbackMismatch."""
        await self._confirm(
            name, key, wire.float32(amount), "/unmixer/device/set_modulation", *key, float(amount)
        )

    async def set_table(self, name: str, oscillator: int, table: str) -> None:
        """Set and confirm an oscillator's wavetable. Raises ReadbackMismatch.

        The category goes first: Live then replaces the list that the index counts in.
        """
        category, index = self._catalog.find(table)
        key = f"oscillator_{oscillator}_wavetable_"
        attributes = self._state[name].attributes
        if attributes.get(f"{key}category") != category:
            attributes.pop(f"{key}index", None)
            await self.set_property(name, f"{key}category", category)
        await self.set_property(name, f"{key}index", index)

    async def reset_matrix(self, target: DeviceTarget) -> None:
        """Set every cell that `target` does not name to zero. Raises ReadbackMismatch.

        Cells of which nothing is known are read first.
        """
        attributes = self._state[WAVETABLE].attributes
        cells = [cell for cell in self.zero_cells if cell not in target.modulations]
        unknown = [cell for cell in cells if cell not in attributes]
        if unknown:
            await self._read_keys((), unknown)
        await asyncio.gather(*(self.set_modulation(WAVETABLE, cell, 0.0) for cell in cells))

    def wanted(self, target: DeviceTarget) -> dict[Key, float]:
        """Everything beyond the parameters that Wavetable should have for `target`."""
        properties = {**FIXED_PROPERTIES, **target.properties}
        wanted: dict[Key, float] = {key: float(value) for key, value in properties.items()}
        for oscillator, table in target.tables.items():
            category, index = self._catalog.find(table)
            wanted[f"oscillator_{oscillator}_wavetable_category"] = float(category)
            wanted[f"oscillator_{oscillator}_wavetable_index"] = float(index)
        for cell in self.zero_cells:
            wanted[cell] = 0.0
        for cell, amount in target.modulations.items():
            wanted[cell] = wire.float32(amount)
        return wanted

    async def read(self, keys: Sequence[Key]) -> None:
        """Read `keys` of Wavetable in one question."""
        properties = [key for key in keys if isinstance(key, str)]
        cells = [key for key in keys if not isinstance(key, str)]
        await self._read_keys(properties, cells)

    async def _read_keys(self, properties: Sequence[str], cells: Sequence[tuple[str, str]]) -> None:
        words: list[OscValue] = [len(properties), *properties]
        for cell in cells:
            words += cell
        where = self._place.where(WAVETABLE)
        reply = await self._client.companion("/unmixer/device/get_all", *where, *words)
        keys: list[Key] = [*properties, *cells]
        # The reply starts with the track and the device.
        values = wire.numbers(reply[2:])
        self._state[WAVETABLE].attributes.update(zip(keys, values, strict=True))

    async def _confirm(
        self, name: str, key: Key, value: float, address: str, *arguments: OscValue
    ) -> None:
        attributes = self._state[name].attributes
        if key in attributes and wire.same(attributes[key], value):
            return
        attributes.pop(key, None)
        confirmed = float("nan")
        for _ in range(ATTEMPTS):
            where = self._place.where(name)
            reply = await self._client.companion(address, *where, *arguments)
            confirmed = wire.number(reply[-1])
            if wire.same(confirmed, value):
                attributes[key] = confirmed
                return
        raise ReadbackMismatch(
            f"{name}'s {key_text(key)} was set to {value:g} {ATTEMPTS} times, but reads back as "
            f"{confirmed:g}."
        )


def key_text(key: Key) -> str:
    """A property's name, or "LFO 1 -> Osc 1 Pos"."""
    return key if isinstance(key, str) else f"{key[1]} -> {key[0]}"
