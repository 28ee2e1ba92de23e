"""Which devices stand on a track, and in what order, by the companion script (stock AbletonOSC can
only delete; see stock.py).

Effects that a patch does not use stay on the track, switched off: a bypassed device costs nothing,
and a patch then needs only the few moves that put its own effects in order. Inserts and moves are
never repeated blindly (a second move would undo the first's meaning): the order is read back, and
what is still to do is planned anew from the truth.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Sequence

from unmixer_core.errors import DeviceMissing, HostError, HostRefused, ReadbackMismatch
from unmixer_core.live.osc.client import Client
from unmixer_core.live.track.names import DEVICE_OF_CLASS, SINCE, UNLISTED, device_names

ATTEMPTS = 4


class CompanionOrder:
    """By /unmixer/track/insert_device, move_device and delete_device.

    Each call returns the schema's names of the track's devices, as the host confirmed them.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def set_devices(self, track: int, names: Sequence[str]) -> tuple[str, ...]:
        """Makes the track hold exactly `names`, in any order but the first, which is the
        instrument.

        Raises DeviceMissing when this Live cannot insert one of them, or puts there a class that we
        do not know.
        """
        classes = await self._classes(track)
        strange, present = {c for c in classes if c not in DEVICE_OF_CLASS}, device_names(classes)
        for _ in range(ATTEMPTS):
            surplus = [
                i for i, name in enumerate(present) if name not in names or name in present[:i]
            ]
            missing = [name for name in names if name not in present]
            if not surplus and not missing:
                return present
            for i in reversed(surplus):
                await self._attempt("/unmixer/track/delete_device", track, i)
            refusals = await asyncio.gather(
                *(self._insert(track, name, names.index(name)) for name in missing)
            )
            if refused := [
                (name, text) for name, text in zip(missing, refusals, strict=True) if text
            ]:
                versions = [(name, SINCE.get(name, UNLISTED)) for name, _ in refused]
                needed = ", ".join(f"{name} (in {version})" for name, version in versions)
                raise DeviceMissing(
                    f"this Live cannot insert {needed}: {refused[0][1]} Wavetable and all "
                    f"effects are in Live 12.3 Suite."
                )
            classes = await self._classes(track)
            present = device_names(classes)
            if new := sorted(c for c in classes if c not in DEVICE_OF_CLASS and c not in strange):
                wanted = ", ".join(name for name in missing if name not in present)
                raise DeviceMissing(
                    f"the host put a device of class {', '.join(new)} on track {track} for "
                    f"{wanted or 'ours'}, which we do not "
                    "know; please report it with the output of `python -m unmixer_core.live "
                    "doctor`."
                )
        raise ReadbackMismatch(
            f"track {track} should hold {', '.join(names)}, but holds "
            f"{', '.join(present) or 'nothing'}."
        )

    async def arrange(
        self, track: int, present: Sequence[str], chain: Sequence[str]
    ) -> tuple[str, ...]:
        """Moves devices until those of `chain` stand in its order.

        The others may stand anywhere between.

        Raises ReadbackMismatch when the host keeps another order.
        """
        for _ in range(ATTEMPTS):
            moves = plan_moves(present, chain)
            if not moves:
                return tuple(present)
            await asyncio.gather(
                *(self._attempt("/unmixer/track/move_device", track, *move) for move in moves)
            )
            present = await self.read(track)
        raise ReadbackMismatch(
            f"track {track} should run {' > '.join(chain)}, but the host keeps "
            f"{' > '.join(present)}."
        )

    async def read(self, track: int) -> tuple[str, ...]:
        """The schema's names of the track's devices, by class."""
        return device_names(await self._classes(track))

    async def _classes(self, track: int) -> list[str]:
        return [
            str(name)
            for name in await self._client.query("/live/track/get/devices/class_name", track)
        ]

    async def _insert(self, track: int, name: str, position: int) -> str:
        """What Live said when it refused; "" when it did not."""
        try:
            await self._client.companion(
                "/unmixer/track/insert_device", track, name, position, tries=1
            )
        except HostRefused as error:
            return str(error)
        except HostError:
            pass  # perhaps inserted all the same: the read-back tells
        return ""

    async def _attempt(self, address: str, *arguments: int) -> None:
        try:
            await self._client.companion(address, *arguments, tries=1)
        except HostError:
            pass  # perhaps done all the same: the read-back tells


def plan_moves(present: Sequence[str], chain: Sequence[str]) -> list[tuple[int, int]]:
    """The fewest (from, to) moves after which `chain` is a subsequence of the track, in order to be
    carried out.

    `to` is the index the device has afterwards. Devices on a longest increasing run stay where they
    are; each other one goes right behind its predecessor in the chain.
    """
    order = list(present)
    stay = _longest_increasing([order.index(name) for name in chain])
    moves = []
    for i, name in enumerate(chain):
        if i in stay:
            continue
        start = order.index(name)
        order.pop(start)
        end = order.index(chain[i - 1]) + 1 if i else 1
        order.insert(end, name)
        if start != end:
            moves.append((start, end))
    return moves


def _longest_increasing(values: Sequence[int]) -> set[int]:
    """Indices of one longest increasing subsequence (patience sorting)."""
    tails: list[int] = []
    tail_index: list[int] = []
    before: list[int] = []
    for i, value in enumerate(values):
        k = bisect_left(tails, value)
        tails[k:] = [value] if k == len(tails) else [value, *tails[k + 1 :]]
        tail_index[k:] = [i] if k == len(tail_index) else [i, *tail_index[k + 1 :]]
        before.append(tail_index[k - 1] if k else -1)
    kept = set()
    i = tail_index[-1] if tail_index else -1
    while i >= 0:
        kept.add(i)
        i = before[i]
    return kept
