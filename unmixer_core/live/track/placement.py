"""Where a lane's devices stand and how their order is changed.

One interface over the companion's way and the stock way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from unmixer_core.errors import HostError, HostRefused
from unmixer_core.live.osc.client import Client
from unmixer_core.live.track.names import device_names
from unmixer_core.live.track.order import CompanionOrder


class Placement(Protocol):
    """`track` holds Wavetable and the note clip, `capture` records; both are track indices."""

    @property
    def track(self) -> int: ...

    @property
    def capture(self) -> int: ...

    @property
    def track_names(self) -> tuple[str, str]:
        """How these two are called."""
        ...

    @property
    def order(self) -> tuple[Any, ...]:
        """The order of devices as the host last confirmed it, in whatever terms.

        Equal when nothing moved.
        """
        ...

    def where(self, name: str) -> tuple[int, int]:
        """Track and device index of a device, by the schema's name."""
        ...

    async def arrange(self, chain: Sequence[str]) -> None:
        """Puts the effects of `chain` in its order.

        Raises ReadbackMismatch when the host keeps another.
        """
        ...

    async def inspect(self, names: Sequence[str]) -> dict[str, bool]:
        """Device → is it on.

        Raises HostError when a track or one of the devices `names` is not what we made it.
        """
        ...


@dataclass
class OneTrack:
    """All devices on the lane's track, moved by the companion; the track behind it records.

    `names`: of the two tracks; the second is "" where nothing is recorded.
    """

    client: Client
    mover: CompanionOrder
    track: int
    names: tuple[str, str]
    order: tuple[str, ...] = ()

    @property
    def capture(self) -> int:
        return self.track + 1

    @property
    def track_names(self) -> tuple[str, str]:
        return self.names

    def where(self, name: str) -> tuple[int, int]:
        return self.track, self.order.index(name)

    async def arrange(self, chain: Sequence[str]) -> None:
        self.order = await self.mover.arrange(self.track, self.order, chain)

    async def inspect(self, names: Sequence[str]) -> dict[str, bool]:
        """Looks at both tracks in one question."""
        end = self.track + (2 if self.names[1] else 1)
        asked = (self.track, end, "track.name", "device.class_name", "device.is_active")
        try:
            reply = await self.client.query("/live/song/get/track_data", self.names[0], asked=asked)
        except HostError:
            await self._check_names()
            raise
        n, recorder = len(names), self.names[1:] if self.names[1] else ()
        classes, active = reply[:n], reply[n : 2 * n]
        devices = device_names([str(c) for c in classes])
        if sorted(devices) != sorted(names) or tuple(reply[2 * n : 2 * n + 1]) != recorder:
            await self._check_names()
            raise HostError(
                f"track {self.track + 1} should hold {', '.join(names)}, but Live describes it as "
                f"{reply}: "
                "leave the tracks named Unmixer alone while a render runs."
            )
        self.order = devices
        return {name: bool(on) for name, on in zip(devices, active, strict=True)}

    async def _check_names(self) -> None:
        pairs = [
            (track, name)
            for track, name in zip((self.track, self.capture), self.names, strict=True)
            if name
        ]
        await check_names(self.client, *zip(*pairs, strict=True))


async def check_names(client: Client, tracks: Sequence[int], names: Sequence[str]) -> None:
    """Raises HostError when the tracks are not called `names` (any more)."""
    found: list[str] = []
    try:
        for track in tracks:
            found += await client.query("/live/track/get/name", track)
    except HostRefused:
        found.append("no track")
    if tuple(found) != tuple(names):
        places = " and ".join(str(track + 1) for track in tracks)
        raise HostError(
            f"tracks {places} should be {' and '.join(map(repr, names))}, but are "
            f"{', '.join(map(repr, found))}: they were "
            "moved, renamed or deleted; leave the tracks named Unmixer alone while a render runs."
        )
