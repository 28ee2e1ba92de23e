"""The tracks a session makes, each with the session's token in its name.

It changes and deletes no others.

Live knows tracks by index, and an index moves when the user adds or deletes a track. So a track is
named as soon as it is there, found again by that name, and deleted by it. A name that merely looks
like ours is somebody else's track.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from unmixer_core.errors import HostError, HostRefused, ReadbackMismatch
from unmixer_core.live.osc.client import Client

log = logging.getLogger(__name__)

ATTEMPTS = 4
TRACKS_AT_ONCE = 32
PREFIX = "Unmixer"
CAPTURE = "capture"
LANE = re.compile(rf"{PREFIX} [0-9a-f]{{4}} [1-9][0-9]*")
#: How the names of a session's tracks begin; LANE is the whole name of a companion lane's first
#: track.
OURS = re.compile(rf"{LANE.pattern}(?: |\Z)")
NO_INPUT = "No Input"
POST_FX = "Post FX"
MONITOR_IN, MONITOR_OFF = 0, 2


@dataclass
class Tracks:
    """Makes, finds and deletes tracks named "Unmixer <token> …" on one host.

    `made`: the names it gave.
    """

    client: Client
    token: str
    made: set[str] = field(default_factory=set)

    def name(self, lane: int, part: str = "") -> str:
        """The name of a lane's track (lanes count from 0)."""
        return f"{PREFIX} {self.token} {lane + 1} {part}".rstrip()

    async def make(self, names: Sequence[str], *, midi: Sequence[bool]) -> int:
        """Makes tracks at the end of the set.

        Returns the first one's index. Raises ReadbackMismatch.
        """
        (first,) = await self.client.query("/live/song/get/num_tracks")
        for i, (name, is_midi) in enumerate(zip(names, midi, strict=True)):
            await self._make(
                int(first) + i, "create_midi_track" if is_midi else "create_audio_track", name
            )
        return int(first)

    async def adopt(self, pairs: Sequence[tuple[str, str]]) -> list[int]:
        """Takes over what a killed session left.

        A track and its capture track behind it get the next of the names `pairs`, and lose their
        note clip. Returns the index of each first one; fewer than `pairs` when there are no more.
        """
        names, adopted = await track_names(self.client), list[int]()
        for i, (name, behind) in enumerate(pairwise(names)):
            if len(adopted) == len(pairs) or not LANE.fullmatch(name) or name in self.made:
                continue
            if behind != f"{name} {CAPTURE}":
                continue
            wanted = pairs[len(adopted)]
            if not all([await self.rename(i + n, wanted[n]) for n in (0, 1)]):
                raise ReadbackMismatch(
                    f"tracks {name!r} and {behind!r} of an earlier session cannot be renamed."
                )
            (full,) = await self.client.query("/live/clip_slot/get/has_clip", i, 0)
            if full:
                await self.client.send(
                    ("/live/track/stop_all_clips", (i,)), ("/live/clip_slot/delete_clip", (i, 0))
                )
            adopted.append(i)
        return adopted

    async def duplicate(self, index: int, original: str, name: str) -> None:
        """A copy of track `index`, whose name is `original`, called `name`.

        Raises HostError when the set moved meanwhile.

        Live puts the copy right behind the original; should there be two (a repeated datagram), the
        second is ours too.
        """
        (before,) = await self.client.query("/live/song/get/num_tracks")
        for _ in range(ATTEMPTS):
            await self.client.send(("/live/song/duplicate_track", (index,)))
            (after,) = await self.client.query("/live/song/get/num_tracks")
            if after > before:
                break
        copies = range(index + 1, index + 1 + after - before)
        there = await self.client.query("/live/song/get/track_names", extra=(index, copies.stop))
        if not copies or any(_plain(found) != _plain(original) for found in there):
            raise HostError(
                f"track {original!r} could not be duplicated (there stand "
                f"{', '.join(map(repr, there))}): "
                "does this edition of Live limit the number of tracks, or was the set changed "
                "meanwhile?"
            )
        for i in copies:
            if not await self.rename(i, name if i == index + 1 else f"{name} spare"):
                raise ReadbackMismatch(f"the copy of track {original!r} cannot be named.")

    async def rename(self, index: int, name: str) -> bool:
        """False when the track is not there, or keeps another name."""
        if name.startswith(f"{PREFIX} {self.token} "):
            self.made.add(name)
        await self.client.send(("/live/track/set/name", (index, name)))
        try:
            return bool(await self.client.query("/live/track/get/name", index) == (name,))
        except HostRefused:
            return False

    async def set(self, track: int, key: str, value: str | int) -> None:
        """Sets an attribute of a track of ours, confirmed. Raises ReadbackMismatch."""
        kept: tuple[object, ...] = ()
        for _ in range(ATTEMPTS):
            await self.client.send((f"/live/track/set/{key}", (track, value)))
            kept = await self.client.query(f"/live/track/get/{key}", track)
            if kept == (value,):
                return
        raise ReadbackMismatch(
            f"track {track + 1}'s {key} was set to {value!r}, but Live keeps {kept}."
        )

    async def find(self) -> dict[str, int]:
        """Name → index of this session's tracks."""
        return {
            name: i for i, name in enumerate(await track_names(self.client)) if name in self.made
        }

    async def delete(self) -> None:
        """Deletes this session's tracks, and no other.

        Those that stay all the same are named in a warning.
        """
        for _ in range(ATTEMPTS):
            found = [
                i for i, name in enumerate(await track_names(self.client)) if name in self.made
            ]
            if not found:
                return
            for i in reversed(found):
                await self.client.send(("/live/song/delete_track", (i,)))
        if left := await self.find():
            log.warning(
                "these tracks could not be deleted, please do it by hand: %s.", ", ".join(left)
            )

    async def _make(self, index: int, method: str, name: str) -> None:
        """One track at the end of a set of `index` tracks.

        A set that grew by two (a repeated datagram) loses one again.
        """
        for _ in range(ATTEMPTS):
            (n,) = await self.client.query("/live/song/get/num_tracks")
            if n == index + 1 and await self.rename(index, name):
                return
            if n > index + 1:
                await self.client.send(("/live/song/delete_track", (n - 1,)))
            if n <= index:
                await self.client.send((f"/live/song/{method}", (-1,)))
        if not await self.rename(index, name):
            raise ReadbackMismatch(
                f"track {index + 1} could not be made: does this edition of Live limit the number "
                f"of tracks?"
            )


async def track_names(client: Client) -> list[str]:
    """Names of all tracks, asked for in chunks that stay far below the size a datagram may have,
    and in smaller ones where names are so long that the host cannot send them. Raises
    HostRefused when it cannot send a single one.
    """
    (n,) = await client.query("/live/song/get/num_tracks")
    names: list[str] = []
    start, at_once = 0, TRACKS_AT_ONCE
    while start < n:
        end = min(n, start + at_once)
        try:
            names += await client.query("/live/song/get/track_names", extra=(start, end))
            start = end
        except HostRefused:
            if at_once == 1:
                raise
            at_once //= 2
    return names


def left_behind(names: Sequence[str], token: str = "") -> list[str]:
    """Tracks of other sessions than `token`'s: another client at work, or one that was killed."""
    return [
        name for name in names if OURS.match(name) and not name.startswith(f"{PREFIX} {token} ")
    ]


async def input_types(client: Client, track: int) -> list[str]:
    """What Live offers as inputs of a track."""
    return list(
        map(str, await client.query("/live/track/get/available_input_routing_types", track))
    )


def input_name(types: Sequence[str], source: str) -> str:
    """What Live calls the track named `source` among the `types`: so, or with its number before it.

    Raises HostRefused when it is not there, or when it cannot be told from another track.
    """
    numbered = re.compile(rf"[0-9]+-{re.escape(source)}")
    found = [t for t in types if t == source] or [t for t in types if numbered.fullmatch(t)]
    if len(found) != 1:
        several = "; two tracks are called so" if found else ""
        raise HostRefused(
            f"track {source!r} cannot be chosen as an input; Live offers "
            f"{', '.join(types)}{several}."
        )
    return found[0]


def _plain(name: str) -> str:
    """A name without the number that Live puts before automatic names and counts up in copies."""
    return re.sub(r"^[0-9]+-", "", name)
