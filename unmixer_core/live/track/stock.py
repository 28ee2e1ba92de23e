"""Stock AbletonOSC, without the companion.

One effect per track, and the order of effects by the tracks' input routing.

Stock AbletonOSC can neither insert nor move a device, but it can duplicate and delete. So the user
prepares template tracks once, named "Unmixer …": Wavetable on a MIDI track, each effect on an audio
track (or all on one). A lane is made of copies of them with one device each; the template itself is
never changed. To change the order, every track whose input changes first lets go of the old one
("No Input"), because Live refuses an input that closes a loop, even for a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from unmixer_core.errors import DeviceMissing, HostError, HostRefused, ReadbackMismatch
from unmixer_core.live.osc.client import Client
from unmixer_core.live.osc.wire import Message
from unmixer_core.live.track.names import SINCE, UNLISTED, device_names
from unmixer_core.live.track.placement import check_names
from unmixer_core.live.track.tracks import (
    CAPTURE,
    MONITOR_IN,
    MONITOR_OFF,
    NO_INPUT,
    OURS,
    POST_FX,
    PREFIX,
    Tracks,
    input_name,
    input_types,
    track_names,
)
from unmixer_core.schema.rack import RACK

ATTEMPTS = 4
SYNTH = RACK.synth.name
DEVICES = tuple(device.name for device in RACK.devices)
GUIDE = "see docs/live.md, 'Without the companion'"
INSTALL = (
    "copy remote_script/UnmixerCompanion beside AbletonOSC and choose it as a control surface "
    "(remote_script/README.md), or "
    "prepare the template set of docs/live.md"
)
TYPE, CHANNEL = "input_routing_type", "input_routing_channel"
#: (type, channel) of a track's input routing.
Input = tuple[str, str]
LOOSE: Input = (NO_INPUT, "")


@dataclass(frozen=True)
class Original:
    """A template track: its index, its name and its devices by the schema's names ("" for
    others).
    """

    index: int
    name: str
    devices: tuple[str, ...]


@dataclass
class RoutingLane:
    """`tracks` and `names`: device (or "capture") → index and name of its track; `inputs`.

    As the host confirmed them.
    """

    client: Client
    tracks: Mapping[str, int]
    names: Mapping[str, str]
    #: (listener, source) → what Live calls the source in the listener's list of inputs.
    sources: Mapping[tuple[str, str], str] = field(default_factory=dict)
    inputs: dict[str, Input] = field(default_factory=dict)

    @property
    def track(self) -> int:
        return self.tracks[SYNTH]

    @property
    def capture(self) -> int:
        return self.tracks[CAPTURE]

    @property
    def track_names(self) -> tuple[str, str]:
        return self.names[SYNTH], self.names[CAPTURE]

    @property
    def order(self) -> tuple[Any, ...]:
        return tuple(sorted(self.inputs.items()))

    @property
    def listeners(self) -> list[str]:
        return [name for name in self.tracks if name != SYNTH]

    def where(self, name: str) -> tuple[int, int]:
        return self.tracks[name], 0

    async def arrange(self, chain: Sequence[str]) -> None:
        """Routes Wavetable through `chain` into the capture track.

        Raises ReadbackMismatch when Live keeps otherwise.
        """
        goal = self._goal(chain)
        for _ in range(ATTEMPTS):
            wrong = [name for name in self.listeners if self.inputs[name] != goal[name]]
            if not wrong:
                return
            await self._let_go([name for name in wrong if self.inputs[name] != LOOSE])
            if any(self.inputs[name] != LOOSE for name in wrong):
                continue
            await self.client.send(*(m for name in wrong for m in self._connect(name, goal[name])))
            self.inputs |= {
                name: goal[name] for name in wrong
            }  # to be asked for; what comes back is what counts
            await self.read_inputs()
        wrong = [name for name in self.listeners if self.inputs[name] != goal[name]]
        if wrong:
            track = self.tracks[wrong[0]]
            raise ReadbackMismatch(
                f"track {track + 1} should listen to {' '.join(goal[wrong[0]])}, but Live keeps "
                f"{' '.join(self.inputs[wrong[0]])}; {GUIDE}."
            )

    async def inspect(self, names: Sequence[str]) -> dict[str, bool]:
        """Looks at every track of the lane in one tick.

        Name, monitoring, its one device, its input.
        """
        parts = (*names, CAPTURE)
        try:
            found, _ = await asyncio.gather(
                asyncio.gather(*(self._inspect(name) for name in parts)), self.read_inputs()
            )
        except HostError:
            await check_names(
                self.client, [self.tracks[p] for p in parts], [self.names[p] for p in parts]
            )
            raise
        return dict(zip(names, found, strict=False))

    async def read_inputs(self) -> None:
        """Asks where each track takes its sound from, in one tick when nothing moved.

        The channel is asked for only where there is an input: whether Live has one without is
        unknown.
        """
        heard = [name for name in self.listeners if self.inputs.get(name, LOOSE) != LOOSE]
        kinds, channels = await asyncio.gather(
            asyncio.gather(
                *(
                    self.client.query(f"/live/track/get/{TYPE}", self.tracks[n])
                    for n in self.listeners
                )
            ),
            asyncio.gather(*(self._channel(name) for name in heard)),
        )
        known = dict(zip(heard, channels, strict=True))
        for name, (kind,) in zip(self.listeners, kinds, strict=True):
            if kind == NO_INPUT:
                self.inputs[name] = LOOSE
            else:
                self.inputs[name] = (
                    str(kind),
                    known[name] if name in known else await self._channel(name),
                )

    async def _channel(self, name: str) -> str:
        try:
            (channel,) = await self.client.query(f"/live/track/get/{CHANNEL}", self.tracks[name])
        except HostRefused:
            return ""
        return str(channel)

    def _goal(self, chain: Sequence[str]) -> dict[str, Input]:
        goal: dict[str, Input] = dict.fromkeys(self.listeners, (NO_INPUT, ""))
        for source, listener in pairwise([SYNTH, *chain, CAPTURE]):
            goal[listener] = (self.sources[listener, source], POST_FX)
        return goal

    async def _let_go(self, names: Sequence[str]) -> None:
        if names:
            await self.client.send(
                *((f"/live/track/set/{TYPE}", (self.tracks[name], NO_INPUT)) for name in names)
            )
            self.inputs |= dict.fromkeys(names, LOOSE)
            await self.read_inputs()

    def _connect(self, name: str, goal: Input) -> list[Message]:
        if goal == LOOSE:
            return []
        kind, channel = goal
        track = self.tracks[name]
        return [
            (f"/live/track/set/{TYPE}", (track, kind)),
            (f"/live/track/set/{CHANNEL}", (track, channel)),
        ]

    async def _inspect(self, name: str) -> bool:
        """Is the device on? Raises HostError when the track is not as we made it."""
        track, called = self.tracks[name], self.names[name]
        device = () if name == CAPTURE else ("device.class_name", "device.is_active")
        asked = (track, track + 1, "track.name", "track.current_monitoring_state", *device)
        state, *held = await self.client.query("/live/song/get/track_data", called, asked=asked)
        monitored = name == SYNTH or state == (MONITOR_OFF if name == CAPTURE else MONITOR_IN)
        if not monitored or (
            device and (len(held) != 2 or device_names([str(held[0])]) != (name,))
        ):
            raise HostError(
                f"track {called!r} should hold {name} alone, monitored, but Live describes it as "
                f"{(state, *held)}: "
                "leave the tracks named Unmixer alone while a render runs."
            )
        return bool(device) and bool(held[1])


# -- building ----------------------------------------------------------------------------------


async def find_template(client: Client) -> dict[str, Original]:
    """Device → the template track that holds it.

    Raises HostRefused when the set has no template at all, DeviceMissing that names what a template
    lacks.
    """
    found: dict[str, Original] = {}
    for index, name in enumerate(await track_names(client)):
        if name.startswith(f"{PREFIX} ") and not OURS.match(name):
            classes = await client.query("/live/track/get/devices/class_name", index)
            original = Original(index, name, device_names([str(c) for c in classes]))
            for device in original.devices:
                found.setdefault(device, original)
    if not found:
        raise HostRefused(
            f"Live answers, but not its companion script, which inserts and orders devices: "
            f"{INSTALL}."
        )
    missing = [device for device in DEVICES if device not in found]
    if missing:
        needed = ", ".join(f"{device} ({SINCE.get(device, UNLISTED)})" for device in missing)
        raise DeviceMissing(
            f"the set has no template track named 'Unmixer …' with {needed}; {GUIDE}."
        )
    return {device: found[device] for device in DEVICES}


async def build_lanes(
    client: Client, tracks: Tracks, lanes: int, devices: Sequence[str] = DEVICES
) -> list[RoutingLane]:
    """Copies the template `lanes` times, one device a track, with a capture track each, and
    learns what may be routed.
    """
    template = await find_template(client)
    for original in sorted(
        {template[device] for device in devices}, key=lambda original: -original.index
    ):
        for lane in range(lanes):
            for device in devices:
                if template[device] == original:
                    await tracks.duplicate(original.index, original.name, tracks.name(lane, device))
    await tracks.make([tracks.name(lane, CAPTURE) for lane in range(lanes)], midi=[False] * lanes)
    return [await _lane(client, tracks, lane, devices) for lane in range(lanes)]


async def _lane(client: Client, tracks: Tracks, lane: int, devices: Sequence[str]) -> RoutingLane:
    found = await tracks.find()
    names = {part: tracks.name(lane, part) for part in (*devices, CAPTURE)}
    built = RoutingLane(client, {part: found[name] for part, name in names.items()}, names)
    await asyncio.gather(*(_only(client, built.tracks[device], device) for device in devices))
    await asyncio.gather(*(_set_up(tracks, built, name) for name in built.tracks))
    await built.read_inputs()
    types = await asyncio.gather(
        *(input_types(client, built.tracks[name]) for name in built.listeners)
    )
    built.sources = {
        (listener, source): input_name(offered, names[source])
        for listener, offered in zip(built.listeners, types, strict=True)
        for source in devices
        if source != listener
    }
    return built


async def _set_up(tracks: Tracks, lane: RoutingLane, name: str) -> None:
    """Wavetable's track plays its clip only, effects are monitored, the capture track records.

    No copied clip is left.
    """
    track = lane.tracks[name]
    await tracks.set(track, "arm", int(name == CAPTURE))
    if name != SYNTH:
        await tracks.set(track, TYPE, NO_INPUT)
        await tracks.set(
            track, "current_monitoring_state", MONITOR_OFF if name == CAPTURE else MONITOR_IN
        )
    if name != CAPTURE:
        await _clear_clips(lane.client, track, lane.names[name])


async def _only(client: Client, track: int, device: str) -> None:
    """Deletes every device of one of our copies but `device`.

    Raises ReadbackMismatch when another state stays.
    """
    for _ in range(ATTEMPTS):
        present = device_names(await client.query("/live/track/get/devices/class_name", track))
        if present == (device,):
            return
        if device not in present:
            break
        kept = present.index(device)
        for i in reversed(range(len(present))):
            if i != kept:
                await client.send(("/live/track/delete_device", (track, i)))
    raise ReadbackMismatch(
        f"track {track + 1}, a copy of the template, should hold {device} alone, but holds "
        f"{present}."
    )


async def _clear_clips(client: Client, track: int, name: str) -> None:
    """The copy of a template track has copies of its clips; they are ours to delete."""
    asked = (track, track + 1, "track.name", "clip_slot.has_clip")
    for _ in range(ATTEMPTS):
        filled = [
            i
            for i, full in enumerate(
                await client.query("/live/song/get/track_data", name, asked=asked)
            )
            if full
        ]
        if not filled:
            return
        await client.send(*(("/live/clip_slot/delete_clip", (track, slot)) for slot in filled))
    raise ReadbackMismatch(
        f"the clips of track {track + 1}, a copy of the template, cannot be deleted."
    )
