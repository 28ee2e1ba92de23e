"""Wavetable's tables by name: which category and index each one has on this host.

The lists are read once per session through the companion. Reading another category's list means
choosing it, so the catalogue is made on a fresh lane, and stops as soon as every table of the
schema is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from unmixer_core.errors import DeviceMissing
from unmixer_core.live.osc.client import Client
from unmixer_core.schema.devices import WAVETABLES

CATEGORIES = "oscillator_wavetable_categories"
CATEGORY = "oscillator_1_wavetable_category"
TABLES = "oscillator_1_wavetables"


@dataclass
class Catalog:
    """Table name → (category, index)."""

    places: dict[str, tuple[int, int]] = field(default_factory=dict)

    def find(self, name: str) -> tuple[int, int]:
        """Raises DeviceMissing for a table that this host does not have."""
        if name not in self.places:
            raise DeviceMissing(
                f"Wavetable on this host has no table {name!r}; it has "
                f"{', '.join(sorted(self.places)[:8])}, …."
            )
        return self.places[name]


async def read_catalog(
    client: Client, track: int, position: int, needed: Sequence[str] = WAVETABLES
) -> Catalog:
    """Reads category after category of the Wavetable at `track`, `position` until all `needed`
    tables are found.
    """
    reply = await client.companion("/unmixer/device/get", track, position, CATEGORIES)
    catalog = Catalog()
    for category, _ in enumerate(reply[3:]):
        await client.companion("/unmixer/device/set", track, position, CATEGORY, category)
        names = (await client.companion("/unmixer/device/get", track, position, TABLES))[3:]
        for index, name in enumerate(names):
            catalog.places.setdefault(name, (category, index))
        if all(name in catalog.places for name in needed):
            break
    return catalog
