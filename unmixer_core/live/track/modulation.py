"""Wavetable's modulation matrix at rest.

What a user's saved default preset moves by envelopes and LFOs is set to zero.

Velocity, wheels and pitch bend are left alone: one note at one velocity does not move them.
"""

from __future__ import annotations

import asyncio
import logging

from unmixer_core.errors import HostRefused, ReadbackMismatch
from unmixer_core.live.osc.client import Client

log = logging.getLogger(__name__)

ATTEMPTS = 4
MOVING = ("Env 2", "Env 3", "LFO 1", "LFO 2", "Key", "Random")
TARGETS = "visible_modulation_target_names"


async def clear_matrix(client: Client, track: int, device: int) -> list[tuple[str, str]]:
    """Every amount of MOVING to every target in the matrix becomes zero, confirmed.

    Returns these (target, source), all zero now. Raises ReadbackMismatch.
    """
    where = (track, device)
    try:
        names = [
            str(name)
            for name in (await client.companion("/unmixer/device/get", *where, TARGETS))[3:]
        ]
    except HostRefused as error:
        log.info("the matrix cannot be listed (%s); it is taken to be Live's own", error)
        return []
    cells = [(target, source) for target in names for source in MOVING]
    amounts = await asyncio.gather(*(_amount(client, where, cell) for cell in cells))
    await asyncio.gather(
        *(
            _clear(client, where, cell)
            for cell, amount in zip(cells, amounts, strict=True)
            if amount != 0.0
        )
    )
    return cells


async def _amount(client: Client, where: tuple[int, int], cell: tuple[str, str]) -> float:
    return float((await client.companion("/unmixer/device/get_modulation", *where, *cell))[-1])


async def _clear(client: Client, where: tuple[int, int], cell: tuple[str, str]) -> None:
    log.info("the preset that Live loaded moves %s by %s; set to zero", *cell)
    for _ in range(ATTEMPTS):
        if (
            float(
                (await client.companion("/unmixer/device/set_modulation", *where, *cell, 0.0))[-1]
            )
            == 0.0
        ):
            return
    raise ReadbackMismatch(
        f"Wavetable's modulation of {cell[0]} by {cell[1]} cannot be set to zero."
    )
