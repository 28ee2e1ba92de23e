"""A session with one host: what it is, N lanes that render in parallel, and leaving the user's set as it was found.

Every track a session makes carries a token in its name; closing deletes the tracks with that token and nothing else, and
puts tempo, quantisation and the metronome back.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unmixer_core.errors import HostError, HostRefused, HostTimeout, ReadbackMismatch
from unmixer_core.live import wire
from unmixer_core.live.catalog import Catalog, read_catalog
from unmixer_core.live.client import Client, Timing
from unmixer_core.live.lane import DeviceState, Lane
from unmixer_core.live.order import CompanionOrder
from unmixer_core.live.recorder import NO_QUANTIZATION, TEMPO_BPM, Clip, PathMap, Recorder, Take
from unmixer_core.live.resolve import DEVICE_OF_CLASS, Table, read_table
from unmixer_core.live.transport import Endpoint, Transport, connect
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK

log = logging.getLogger(__name__)

ATTEMPTS = 4
SCENES = 8
"""Clip slots used in turn per capture track, if the set has as many scenes."""
MONITOR_OFF = 2
POST_FX = "Post FX"
DEVICES = tuple(device.name for device in RACK.devices)
SETTINGS = {"tempo": TEMPO_BPM, "clip_trigger_quantization": NO_QUANTIZATION, "metronome": 0}
TRACKS_AT_ONCE = 32
INSTALL = (
    "copy remote_script/UnmixerCompanion beside AbletonOSC and choose it as a control surface (remote_script/README.md)"
)


@dataclass(frozen=True)
class HostInfo:
    """Live's version (major, minor), and the companion's ("" when it does not answer)."""

    version: tuple[int, int]
    companion: str


@dataclass
class Session:
    """Use as `async with await Session.open(endpoint, take, lanes=…) as session`."""

    client: Client
    take: Take
    info: HostInfo
    lanes: list[Lane] = field(default_factory=list)
    recorders: list[Recorder] = field(default_factory=list)
    token: str = field(default_factory=lambda: secrets.token_hex(2))
    _settings: dict[str, float] = field(default_factory=dict)
    _tables: dict[str, Table] = field(default_factory=dict)
    _was_playing: bool = False

    @classmethod
    async def open(
        cls, endpoint: Endpoint, take: Take, *, lanes: int, transport: Transport | None = None, timing: Timing | None = None,
        delete_files: bool = False, trace: Path | None = None,
    ) -> Session:  # fmt: skip
        """Connects, probes and builds the lanes. Raises a HostError that says what is missing and what to do."""
        client = Client(transport or connect(endpoint, trace), str(endpoint), timing)
        session = None
        try:
            session = cls(client, take, await probe(client, endpoint))
            if not session.info.companion:
                raise HostRefused(
                    f"Live at {endpoint} answers, but not its companion script, which inserts and orders devices: {INSTALL}."
                )
            await session._build(lanes, delete_files)
        except BaseException:
            if session is not None:
                await session.close()
            else:
                client.close()
            raise
        return session

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def render(self, lane: int, patch: Patch) -> Clip:
        """One patch on one lane → float32 [2, samples]. After an error the lane knows nothing and reads all anew."""
        recorder = self.recorders[lane]
        try:
            await self.lanes[lane].inspect()
            await asyncio.gather(
                self.lanes[lane].apply(patch), recorder.set_note(patch.note, patch.gate_s), recorder.next_slot()
            )
            return await recorder.record()
        except BaseException:
            self.lanes[lane].forget()
            recorder.note = None
            raise

    async def close(self) -> None:
        """Deletes the session's own tracks, restores the settings and closes the socket; a dead host is left as it is."""
        try:
            await self._delete_tracks()
            await self.client.send(*((f"/live/song/set/{key}", (value,)) for key, value in self._settings.items()))
            if not self._was_playing:
                await self.client.send(("/live/song/stop_playing", ()))
        except HostError as error:
            log.warning("the session could not tidy up: %s", error)
        finally:
            self.client.close()

    def abandon(self) -> None:
        """Closes the socket without a word to the host (which is gone, or about to be stopped)."""
        self.client.close()

    # -- building ----------------------------------------------------------------------------------------------------

    async def _build(self, lanes: int, delete_files: bool) -> None:
        await self._set_song()
        (scenes,) = await self.client.query("/live/song/get/num_scenes")
        first = await self._make_tracks(lanes)
        order = CompanionOrder(self.client)
        paths, catalog = PathMap.from_environment(), Catalog()
        self.lanes = [Lane(self.client, order, catalog, first + 2 * i, self._track_names(i)) for i in range(lanes)]
        self.recorders = [
            Recorder(self.client, lane, self.take, paths, min(SCENES, int(scenes)), delete_files=delete_files)
            for lane in self.lanes
        ]
        await self._furnish(self.lanes[0], order)
        found = await read_catalog(self.client, first, self.lanes[0].devices.index(RACK.synth.name))
        catalog.places.update(found.places)
        await asyncio.gather(*(self._furnish(lane, order) for lane in self.lanes[1:]))
        await asyncio.gather(
            *(self._wire_capture(lane) for lane in self.lanes),
            *(lane.prepare() for lane in self.lanes),
            *(recorder.prepare() for recorder in self.recorders),
        )

    async def _set_song(self) -> None:
        keys = list(SETTINGS)
        values = await asyncio.gather(*(self.client.query(f"/live/song/get/{key}") for key in (*keys, "is_playing")))
        self._was_playing = bool(values[-1][0])
        self._settings = {key: value for key, (value,) in zip(keys, values, strict=False)}
        for _ in range(ATTEMPTS):
            await self.client.send(*((f"/live/song/set/{key}", (value,)) for key, value in SETTINGS.items()))
            kept = await asyncio.gather(*(self.client.query(f"/live/song/get/{key}") for key in keys))
            if all(wire.same(float(kept[i][0]), float(SETTINGS[key])) for i, key in enumerate(keys)):
                return
        raise ReadbackMismatch(
            f"tempo {TEMPO_BPM:g}, no launch quantisation and no metronome were set, but Live keeps {kept}."
        )

    def _track_names(self, lane: int) -> tuple[str, str]:
        name = f"Unmixer {self.token} {lane + 1}"
        return name, f"{name} capture"

    async def _make_tracks(self, lanes: int) -> int:
        """Makes lanes × (MIDI, audio) tracks at the end of the set, named. Returns the first one's index."""
        (first,) = await self.client.query("/live/song/get/num_tracks")
        for i in range(2 * lanes):
            await self._make_track(
                first + i, "create_audio_track" if i % 2 else "create_midi_track", self._track_names(i // 2)[i % 2]
            )
        return int(first)

    async def _make_track(self, index: int, method: str, name: str) -> None:
        """One track at the end of a set of `index` tracks; a set that grew by two (a repeated datagram) loses one again."""
        for _ in range(ATTEMPTS):
            (n,) = await self.client.query("/live/song/get/num_tracks")
            if n == index + 1 and await self._name_track(index, name):
                return
            if n > index + 1:
                await self.client.send(("/live/song/delete_track", (n - 1,)))
            if n <= index:
                await self.client.send((f"/live/song/{method}", (-1,)))
        if not await self._name_track(index, name):
            raise ReadbackMismatch(
                f"track {index + 1} could not be made: does this edition of Live limit the number of tracks?"
            )

    async def _name_track(self, index: int, name: str) -> bool:
        await self.client.send(("/live/track/set/name", (index, name)))
        try:
            return bool(await self.client.query("/live/track/get/name", index) == (name,))
        except HostRefused:
            return False

    async def _furnish(self, lane: Lane, order: CompanionOrder) -> None:
        lane.devices = await order.furnish(lane.track, DEVICES)
        classes = await self.client.query("/live/track/get/devices/class_name", lane.track)
        for position, class_name in enumerate(classes):
            if class_name not in self._tables:
                self._tables[class_name] = await read_table(self.client, lane.track, position, class_name)
            lane.state[DEVICE_OF_CLASS[class_name].name] = DeviceState(self._tables[class_name])

    async def _wire_capture(self, lane: Lane) -> None:
        """The audio track records the lane's track behind its effects: armed, and not monitored."""
        types = await self.client.query("/live/track/get/available_input_routing_types", lane.capture)
        source = next((t for t in types if t == lane.names[0] or t.endswith(f"-{lane.names[0]}")), None)
        if source is None:
            raise HostRefused(
                f"track {lane.names[0]!r} cannot be chosen as an input; Live offers {', '.join(map(str, types))}."
            )
        await self._set_track(lane.capture, "input_routing_type", source)
        await self._set_track(lane.capture, "input_routing_channel", POST_FX)
        await self._set_track(lane.capture, "current_monitoring_state", MONITOR_OFF)
        await self._set_track(lane.capture, "arm", 1)
        await self._set_track(lane.track, "arm", 0)

    async def _set_track(self, track: int, key: str, value: str | int) -> None:
        kept: tuple[object, ...] = ()
        for _ in range(ATTEMPTS):
            await self.client.send((f"/live/track/set/{key}", (track, value)))
            kept = await self.client.query(f"/live/track/get/{key}", track)
            if kept == (value,):
                return
        raise ReadbackMismatch(f"track {track + 1}'s {key} was set to {value!r}, but Live keeps {kept}.")

    # -- leaving -----------------------------------------------------------------------------------------------------

    async def _delete_tracks(self) -> None:
        for _ in range(ATTEMPTS):
            names = await track_names(self.client)
            ours = [i for i, name in enumerate(names) if name.startswith(f"Unmixer {self.token} ")]
            if not ours:
                return
            for i in reversed(ours):
                await self.client.send(("/live/song/delete_track", (i,)))


async def track_names(client: Client) -> Sequence[str]:
    """Names of all tracks, asked for in chunks that stay far below the size a datagram may have."""
    (n,) = await client.query("/live/song/get/num_tracks")
    names: list[str] = []
    for start in range(0, n, TRACKS_AT_ONCE):
        names += await client.query("/live/song/get/track_names", extra=(start, min(n, start + TRACKS_AT_ONCE)))
    return names


async def probe(client: Client, endpoint: Endpoint) -> HostInfo:
    """Live's version and the companion's, which may answer through AbletonOSC's port or on its own."""
    version = await client.query("/live/application/get/version")
    for port in (None, endpoint.companion_port):
        client.companion_port = port
        try:
            (companion,) = await client.companion("/unmixer/get/version", tries=1)
            return HostInfo((int(version[0]), int(version[1])), str(companion))
        except (HostRefused, HostTimeout) as error:
            log.debug("no companion on port %s: %s", port or endpoint.port, error)
    return HostInfo((int(version[0]), int(version[1])), "")
