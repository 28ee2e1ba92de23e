"""A session with one host: what it is, N lanes that render in parallel, and leaving the user's set
as it was found.

Every track a session makes carries a token in its name; closing deletes the tracks with that token
and nothing else, and puts tempo, quantisation and the metronome back.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unmixer_core.errors import (
    HostError,
    HostRefused,
    HostTimeout,
    ReadbackMismatch,
    RecordingError,
)
from unmixer_core.live.osc import wire
from unmixer_core.live.osc.client import Client, Timing
from unmixer_core.live.osc.transport import Endpoint, Transport, connect
from unmixer_core.live.session.alignment import CLICK, EARLY_S, LATEST_S, onset_offset
from unmixer_core.live.session.note_clip import NoteClip
from unmixer_core.live.session.recorder import NO_QUANTIZATION, Recorder
from unmixer_core.live.session.recordings import PathMap, Recordings
from unmixer_core.live.session.setup import Drifted, companion_lanes, stock_lanes
from unmixer_core.live.session.take import TEMPO_BPM, Clip, Take
from unmixer_core.live.track.frozen import FrozenTrack, read_frozen
from unmixer_core.live.track.lane import Lane
from unmixer_core.live.track.placement import OneTrack
from unmixer_core.live.track.stock import build_lanes
from unmixer_core.live.track.tracks import (
    CAPTURE,
    MONITOR_OFF,
    POST_FX,
    Tracks,
    input_name,
    input_types,
    left_behind,
    track_names,
)
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK

log = logging.getLogger(__name__)

ATTEMPTS = 4
#: Hosts on this machine: their files are stamped by the same clock as ours.
LOCAL = ("127.0.0.1:", "localhost:")
#: Clip slots used in turn per capture track, if the set has as many scenes.
SCENES = 8
OLDEST, INSERTS_SINCE = (12, 0), (12, 3)
OLDEST_COMPANION = (1, 1)
#: A take that begins this much later than it was fired was counted in (a tick or two is usual).
COUNT_IN_S = 1.0
SETTINGS = {"tempo": TEMPO_BPM, "clip_trigger_quantization": NO_QUANTIZATION, "metronome": 0}


@dataclass(frozen=True)
class HostInfo:
    """Live's version (major, minor), and the companion's ("" when it does not answer)."""

    version: tuple[int, int]
    companion: str

    @property
    def inserts(self) -> bool:
        """Whether lanes can be built from nothing.

        Otherwise they are copies of the set's template.
        """
        return bool(self.companion) and self.version >= INSERTS_SINCE


@dataclass
class Session:
    """Use as `async with await Session.open(endpoint, take, lanes=…) as session`."""

    client: Client
    take: Take
    info: HostInfo
    lanes: list[Lane] = field(default_factory=list)
    recorders: list[Recorder] = field(default_factory=list)
    frozen: FrozenTrack | None = None
    _settings: dict[str, float] = field(default_factory=dict)
    _was_playing: bool = False

    def __post_init__(self) -> None:
        self.tracks = Tracks(self.client, secrets.token_hex(2))

    @classmethod
    async def open(
        cls,
        endpoint: Endpoint,
        take: Take,
        *,
        lanes: int,
        transport: Transport | None = None,
        timing: Timing | None = None,
        own_folder: Path | None = None,
        calibrate: bool = False,
        trace: Path | None = None,
        paths: PathMap | None = None,
    ) -> Session:
        """Connects, probes and builds the lanes.

        With the companion where it answers, of the set's template otherwise.

        `own_folder`: recordings in this folder are deleted after they were read (None: all stay);
        `calibrate` aligns the lanes by a click first; `paths` maps Live's folder to the same folder
        here (default: UNMIXER_LIVE_RECORDINGS). Raises a HostError that says what is missing.
        """
        client = Client(transport or connect(endpoint, trace), str(endpoint), timing)
        session = None
        try:
            session = cls(client, take, await probe(client, endpoint))
            await session.build(lanes, own_folder=own_folder, paths=paths)
            if calibrate:
                await session.calibrate()
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
        """One patch on one lane → float32 [2, samples].

        After an error the lane knows nothing and reads all anew.
        """
        recorder = self.recorders[lane]
        try:
            await self.lanes[lane].inspect()
            await asyncio.gather(
                self.lanes[lane].apply(patch),
                recorder.note.set(patch.note, patch.gate_s),
                recorder.next_slot(),
            )
            return await recorder.record()
        except BaseException:
            self.lanes[lane].forget()
            recorder.note.note = None
            raise

    async def close(self) -> None:
        """Deletes the session's own tracks, restores the settings and closes the socket.

        A dead host is left as it is.
        """
        try:
            await self.tracks.delete()
            await self._restore()
            if not self._was_playing:
                await self.client.send(("/live/song/stop_playing", ()))
        except HostError as error:
            log.warning("the session could not tidy up: %s", error)
        finally:
            self.client.close()

    def abandon(self) -> None:
        """Closes the socket without a word to the host (which is gone, or about to be stopped)."""
        self.client.close()

    async def calibrate(self) -> list[int]:
        """Measures how late each lane sounds, all at once, and takes it off from now on.

        Returns the samples per lane.
        """
        return await asyncio.gather(*(self._align(lane) for lane in range(len(self.lanes))))

    async def _align(self, lane: int) -> int:
        recorder = self.recorders[lane]
        recorder.offset_samples = 0
        offset = onset_offset(await self.render(lane, CLICK), self.take.sample_rate)
        if (
            offset is None
        ):  # it sounds before the start marker: look at what was recorded before that
            recorder.offset_samples = -round(EARLY_S * self.take.sample_rate)
            offset = onset_offset(await self.render(lane, CLICK), self.take.sample_rate)
            offset = None if offset is None else offset + recorder.offset_samples
        recorder.offset_samples = 0
        if offset is None or abs(offset) > LATEST_S * self.take.sample_rate:
            raise RecordingError(
                f"the calibration click of lane {lane + 1} comes "
                f"{'too early' if offset is None else f'{offset} samples off'}: "
                "set Live's Settings > Audio > Overall Latency to a plausible value, and Keep "
                "Latency off on the Unmixer tracks."
            )
        recorder.offset_samples = offset
        if recorder.started_s > COUNT_IN_S:
            log.warning(
                "a take began %.1f s after it was fired: set Live's Record > Count-In to None.",
                recorder.started_s,
            )
        return offset

    # -- building ------------------------------------------------------------------------------

    async def build(
        self,
        lanes: int,
        *,
        own_folder: Path | None = None,
        paths: PathMap | None = None,
        drifted: Drifted = None,
    ) -> None:
        """Makes and furnishes the lanes.

        `open` does this; a session that was made otherwise has none before.

        `drifted` collects the errors of effects whose parameters differ, and the lanes go without
        these.
        """
        await self._set_song()
        (scenes,) = await self.client.query("/live/song/get/num_scenes")
        self._warn_of_others(await track_names(self.client))
        self.lanes = await (self._companion_lanes if self.info.inserts else self._stock_lanes)(
            lanes, drifted
        )
        paths = paths or PathMap.from_environment()
        slots = min(SCENES, int(scenes))
        self.recorders = [self._recorder(lane, slots, paths, own_folder) for lane in self.lanes]
        await asyncio.gather(
            *(self._wire_capture(lane) for lane in self.lanes if isinstance(lane.place, OneTrack)),
            *(lane.prepare() for lane in self.lanes),
            *(recorder.note.prepare() for recorder in self.recorders),
        )

    def _recorder(
        self, lane: Lane, slots: int, paths: PathMap, own_folder: Path | None
    ) -> Recorder:
        _, capture_name = lane.names
        same_clock = self.client.where.startswith(LOCAL)
        files = Recordings(self.take, paths, capture_name, own_folder, same_clock)
        note = NoteClip(self.client, lane, self.take)
        return Recorder(self.client, lane, self.take, note, files, slots)

    async def _companion_lanes(self, lanes: int, drifted: Drifted) -> list[Lane]:
        names = [(self.tracks.name(i), self.tracks.name(i, CAPTURE)) for i in range(lanes)]
        tracks = (
            await self.tracks.adopt(names) if os.environ.get("UNMIXER_LIVE_ADOPT") == "1" else []
        )
        if new := names[len(tracks) :]:
            first = await self.tracks.make(
                [name for pair in new for name in pair], midi=[True, False] * len(new)
            )
            tracks += [first + 2 * i for i in range(len(new))]
        return await companion_lanes(self.client, tracks, names, drifted=drifted)

    async def _stock_lanes(self, lanes: int, drifted: Drifted) -> list[Lane]:
        places = await build_lanes(self.client, self.tracks, lanes)
        if not self.info.companion:
            self.frozen = await read_frozen(
                self.client, places[0].track, places[0].names[RACK.synth.name]
            )
            log.warning("%s", self.frozen.describe())
        return await stock_lanes(self.client, places, self.frozen, drifted)

    def _warn_of_others(self, names: Sequence[str]) -> None:
        if others := left_behind(names, self.tracks.token):
            log.warning(
                "the set holds %d tracks of another session (%s, …): end the other client if one "
                "is at work; if none is, "
                "UNMIXER_LIVE_ADOPT=1 takes them over, or delete them by hand.",
                len(others),
                others[0],
            )

    async def _set_song(self) -> None:
        keys = list(SETTINGS)
        values = await asyncio.gather(
            *(self.client.query(f"/live/song/get/{key}") for key in (*keys, "is_playing"))
        )
        self._was_playing = bool(values[-1][0])
        self._settings = {key: value for key, (value,) in zip(keys, values, strict=False)}
        for _ in range(ATTEMPTS):
            await self.client.send(
                *((f"/live/song/set/{key}", (value,)) for key, value in SETTINGS.items())
            )
            kept = await asyncio.gather(
                *(self.client.query(f"/live/song/get/{key}") for key in keys)
            )
            if all(
                wire.same(float(kept[i][0]), float(SETTINGS[key])) for i, key in enumerate(keys)
            ):
                return
        raise ReadbackMismatch(
            f"tempo {TEMPO_BPM:g}, no launch quantisation and no metronome were set, but Live "
            f"keeps {kept}."
        )

    async def _restore(self) -> None:
        """The song's settings are what they were, confirmed.

        Those that are not are named in a warning.
        """
        left = dict(self._settings)
        for _ in range(ATTEMPTS):
            if not left:
                return
            await self.client.send(
                *((f"/live/song/set/{key}", (value,)) for key, value in left.items())
            )
            kept = await asyncio.gather(
                *(self.client.query(f"/live/song/get/{key}") for key in left)
            )
            pairs = zip(list(left.items()), kept, strict=True)
            left = {
                key: value
                for (key, value), (now,) in pairs
                if not wire.same(float(now), float(value))
            }
        if left:
            names = ", ".join(f"{key} (to {float(value):g})" for key, value in left.items())
            log.warning(
                "these settings of the set could not be put back, please do it by hand: %s.", names
            )

    async def _wire_capture(self, lane: Lane) -> None:
        """The audio track records the lane's track behind its effects: armed, and not monitored."""
        types = await input_types(self.client, lane.capture)
        await self.tracks.set(lane.capture, "input_routing_type", input_name(types, lane.names[0]))
        await self.tracks.set(lane.capture, "input_routing_channel", POST_FX)
        await self.tracks.set(lane.capture, "current_monitoring_state", MONITOR_OFF)
        await self.tracks.set(lane.capture, "arm", 1)
        await self.tracks.set(lane.track, "arm", 0)


async def probe(client: Client, endpoint: Endpoint) -> HostInfo:
    """Live's version and the companion's, which may answer through AbletonOSC's port or on its own.

    Raises HostRefused for a Live or a companion that is too old.
    """
    version = await client.query("/live/application/get/version")
    if tuple(version) < OLDEST:
        raise HostRefused(
            f"Live {'.'.join(map(str, version))} answers at {client.where}, but the devices and "
            f"parameters we set are those "
            "of Live 12 Suite: update Live (12.3 or later to let the companion insert devices)."
        )
    for port, tries in (
        (None, None),
        (endpoint.companion_port, 1),
    ):  # AbletonOSC refuses what it does not know, so silence is loss
        client.companion_port = port
        try:
            (companion,) = await client.companion("/unmixer/get/version", tries=tries)
        except (HostRefused, HostTimeout) as error:
            log.debug("no companion on port %s: %s", port or endpoint.port, error)
            continue
        _require_companion(str(companion))
        return HostInfo((int(version[0]), int(version[1])), str(companion))
    return HostInfo((int(version[0]), int(version[1])), "")


def _require_companion(version: str) -> None:
    if tuple(int(part) for part in re.findall(r"\d+", version)) < OLDEST_COMPANION:
        raise HostRefused(
            f"companion script {version} answers, but {'.'.join(map(str, OLDEST_COMPANION))} is "
            f"needed: copy "
            "remote_script/UnmixerCompanion beside AbletonOSC again and restart Live."
        )
