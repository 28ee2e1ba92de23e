"""A small Live with AbletonOSC and the companion, inside the test's process, that loses, repeats,
delays and garbles on demand.

What it "records" is noise seeded by everything that should shape the sound, so a test can tell a
right render from a wrong one without a synthesizer: `expected(patch)` is what a host in the right
state would have recorded.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from unmixer_core.live.osc import wire
from unmixer_core.live.track.names import DEVICE_ON
from unmixer_core.live.track.targets import FIXED_PROPERTIES, baseline, targets
from unmixer_core.schema.devices import WAVETABLES
from unmixer_core.schema.rack import RACK

RATE, CLIP_S, VELOCITY = 8000, 0.5, 100
BY_NAME = {device.name: device for device in RACK.devices}


class LiveError(Exception):
    """What a handler raises; reported as /live/error, and it costs the rest of a bundle."""


@dataclass
class Faults:
    """Chances per datagram, each way.

    `error_every`: every so many-th set fails. `dead_after`: datagrams until silence.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    late: float = 0.0
    late_s: float = 0.05
    reorder: float = 0.0
    error_every: int = 0
    dead_after: int = 1 << 60
    wrong_rate: bool = False
    short_file: bool = False
    no_file: bool = False
    never_ends: bool = False
    seed: int = 0


@dataclass
class FakeDevice:
    name: str
    values: list[float]
    properties: dict[str, float] = field(default_factory=dict)
    amounts: dict[tuple[str, str], float] = field(default_factory=dict)

    @classmethod
    def make(cls, name: str, preset: float | None = None) -> FakeDevice:
        """`preset`: the first knob at another value, as a user's saved default preset would have
        it.
        """
        values = [wire.float32(p.default) for p in BY_NAME[name].table]
        if preset is not None:
            values[1] = preset
        return cls(name, values)


@dataclass
class FakeClip:
    audio: bool
    beats: float
    notes: list[tuple] = field(default_factory=list)
    looping: bool = True
    recording: bool = False
    path: str | None = None


@dataclass
class FakeTrack:
    name: str
    midi: bool
    devices: list[FakeDevice] = field(default_factory=list)
    clips: dict[int, FakeClip] = field(default_factory=dict)
    attributes: dict[str, object] = field(default_factory=dict)


class FakeHost:
    """Implements Transport.

    `said` and `heard` list all messages in order; `ticks_s` answers in ticks, as Live does.
    """

    def __init__(
        self,
        folder: Path,
        faults: Faults | None = None,
        *,
        companion: bool = True,
        tick_s: float = 0.0,
    ) -> None:
        self.folder, self.faults, self.companion, self.tick_s = (
            folder,
            faults or Faults(),
            companion,
            tick_s,
        )
        self.tracks = [FakeTrack("1-MIDI", True), FakeTrack("2-Audio", False)]
        self.song = {
            "tempo": 96.0,
            "clip_trigger_quantization": 4,
            "metronome": True,
            "is_playing": False,
        }
        self.heard: list[wire.Message] = []
        self.said: list[wire.Message] = []
        self.queued: list[bytes] = []
        self.answered: dict[int, tuple] = {}
        self.takes = self.sets = self.datagrams = 0
        self.random = random.Random(self.faults.seed)

    # -- Transport -----------------------------------------------------------------------------

    def open(self, receiver) -> None:
        self.receiver, self.loop = receiver, asyncio.get_running_loop()

    def close(self) -> None:
        self.receiver = lambda _: None

    def send(self, datagram: bytes, port: int | None = None) -> None:
        assert len(datagram) < 8192
        if port is None:  # nobody listens elsewhere
            self._carry(datagram, self._handle)

    def _carry(self, datagram: bytes, deliver) -> None:
        chance = self.random.random
        if chance() < self.faults.loss:
            return
        for _ in range(2 if chance() < self.faults.duplicate else 1):
            delay_s = self.faults.late_s * (1 + chance()) if chance() < self.faults.late else 0.0
            delay_s += 0.004 * chance() if chance() < self.faults.reorder else 0.0
            if self.tick_s and deliver == self._handle:
                self._queue(datagram)
            elif delay_s:
                self.loop.call_later(delay_s, deliver, datagram)
            else:
                self.loop.call_soon(deliver, datagram)

    def _queue(self, datagram: bytes) -> None:
        if not self.queued:
            self.loop.call_later(self.tick_s, self._tick)
        self.queued.append(datagram)

    def _tick(self) -> None:
        queued, self.queued = self.queued, []
        for datagram in queued:
            self._handle(datagram)

    def _say(self, address: str, *arguments) -> None:
        self.said.append((address, arguments))
        self._carry(wire.encode(address, arguments), lambda data: self.receiver(data))

    def _handle(self, datagram: bytes) -> None:
        self.datagrams += 1
        if self.datagrams > self.faults.dead_after:
            return
        for address, arguments in wire.decode(datagram):
            self.heard.append((address, arguments))
            try:
                self._dispatch(address, list(arguments))
            except LiveError as error:
                self._say("/live/error", f"Error handling OSC message: {error}")
                return

    def _dispatch(self, address: str, arguments: list) -> None:
        if (
            address.startswith("/unmixer/")
            and self.companion
            and not address.startswith("/unmixer/fence")
        ):
            request, *rest = arguments
            if (
                request not in self.answered
            ):  # the companion repeats its answer to a repeated request, and does nothing
                try:
                    self.answered[request] = (address, request, *self._companion(address, rest))
                except LiveError as error:
                    self.answered[request] = ("/unmixer/error", request, address, str(error))
            self._say(*self.answered[request])
            return
        name = address.removeprefix("/live/").replace("/", "_")
        handler = getattr(self, f"on_{name}", None)
        if handler is not None:
            reply = handler(*arguments)
        elif name.startswith("song_get_"):
            reply = (self.song[name[9:]],)
        elif name.startswith("song_set_"):
            reply = self.song.__setitem__(name[9:], arguments[0])
        elif name.startswith("track_get_") and name[10:] in self.track(arguments[0]).attributes:
            reply = (arguments[0], self.track(arguments[0]).attributes[name[10:]])
        elif name.startswith("track_set_"):
            reply = self.track(arguments[0]).attributes.__setitem__(name[10:], arguments[1])
        else:
            self._say("/live/error", f"Unknown OSC address: {address}")
            return
        if reply is not None:
            self._say(address, *reply)

    # -- the set -------------------------------------------------------------------------------

    def track(self, index: int) -> FakeTrack:
        if not 0 <= index < len(self.tracks):
            raise LiveError("Index out of range")
        return self.tracks[index]

    def device(self, track: int, index: int) -> FakeDevice:
        if not 0 <= index < len(self.track(track).devices):
            raise LiveError("Index out of range")
        return self.tracks[track].devices[index]

    def clip(self, track: int, slot: int) -> FakeClip:
        if slot not in self.track(track).clips:
            raise LiveError("'NoneType' object has no attribute 'x'")
        return self.tracks[track].clips[slot]

    def on_test(self):
        return ("ok",)

    def on_application_get_version(self):
        return (12, 3)

    def on_song_get_num_tracks(self):
        return (len(self.tracks),)

    def on_song_get_num_scenes(self):
        return (8,)

    def on_song_get_track_names(self, first, last):
        return tuple(self.track(i).name for i in range(first, last))

    def on_song_create_midi_track(self, _):
        self.tracks.append(FakeTrack("new", True))

    def on_song_create_audio_track(self, _):
        self.tracks.append(FakeTrack("new", False))

    def on_song_delete_track(self, index):
        self.tracks.remove(self.track(index))

    def on_song_stop_playing(self):
        self.song["is_playing"] = False

    def on_song_get_track_data(self, first, last, *properties):
        assert properties == ("track.name", "device.class_name", "device.is_active")
        result = []
        for track in (self.track(i) for i in range(first, last)):
            classes = [BY_NAME[d.name].class_name for d in track.devices]
            result += [track.name, *classes, *(d.values[0] != 0.0 for d in track.devices)]
        return tuple(result)

    def on_track_set_name(self, index, name):
        self.track(index).name = name

    def on_track_get_name(self, index):
        return (index, self.track(index).name)

    def on_track_get_available_input_routing_types(self, index):
        return (
            index,
            "Ext. In",
            *(f"{i + 1}-{t.name}" for i, t in enumerate(self.tracks)),
            "No Input",
        )

    def on_track_get_devices_class_name(self, index):
        return (index, *(BY_NAME[d.name].class_name for d in self.track(index).devices))

    def on_track_stop_all_clips(self, index):
        self.track(index)

    def on_device_get_parameters_name(self, track, device):
        return (track, device, *(p.name for p in BY_NAME[self.device(track, device).name].table))

    def on_device_get_parameters_min(self, track, device):
        return (
            track,
            device,
            *(float(p.minimum) for p in BY_NAME[self.device(track, device).name].table),
        )

    def on_device_get_parameters_max(self, track, device):
        return (
            track,
            device,
            *(float(p.maximum) for p in BY_NAME[self.device(track, device).name].table),
        )

    def on_device_get_parameters_value(self, track, device):
        return (track, device, *self.device(track, device).values)

    def on_device_get_parameter_value(self, track, device, index):
        return (track, device, index, self.device(track, device).values[index])

    def on_device_set_parameter_value(self, track, device, index, value):
        self.sets += 1
        if self.faults.error_every and self.sets % self.faults.error_every == 0:
            raise LiveError("Internal error")
        parameter = BY_NAME[self.device(track, device).name].table[index]
        if not wire.float32(parameter.minimum) <= value <= wire.float32(parameter.maximum):
            raise LiveError("Invalid value. Check the parameters range with min/max")
        self.device(track, device).values[index] = value

    def on_device_set_parameters_value(self, track, device, *values):
        for index, value in enumerate(values):
            self.on_device_set_parameter_value(track, device, index, value)

    # -- clips ---------------------------------------------------------------------------------

    def on_clip_slot_get_has_clip(self, track, slot):
        return (track, slot, slot in self.track(track).clips)

    def on_clip_slot_create_clip(self, track, slot, beats):
        if slot in self.track(track).clips:
            raise LiveError("The slot already contains a clip")
        self.tracks[track].clips[slot] = FakeClip(False, beats)

    def on_clip_slot_delete_clip(self, track, slot):
        self.clip(track, slot)
        del self.tracks[track].clips[slot]

    def on_clip_set_looping(self, track, slot, value):
        self.clip(track, slot).looping = bool(value)

    def on_clip_get_looping(self, track, slot):
        return (track, slot, self.clip(track, slot).looping)

    def on_clip_remove_notes(self, track, slot, *_):
        self.clip(track, slot).notes.clear()

    def on_clip_add_notes(self, track, slot, *note):
        assert isinstance(note[0], int) and len(note) == 5
        self.clip(track, slot).notes.append(note)

    def on_clip_get_notes(self, track, slot, *_):
        notes = self.clip(track, slot).notes
        return (track, slot, *(v for n in notes for v in (n[0], n[1], n[2], float(n[3]), n[4])))

    def on_clip_slot_fire(self, track, slot, beats=None, quantization=None):
        if beats is None:
            self.clip(track, slot)
            return
        if slot in self.track(track).clips:
            raise LiveError("Cannot pass record_length to a non-empty slot")
        clip = self.tracks[track].clips[slot] = FakeClip(True, beats, recording=True)
        self.takes += 1
        self.loop.call_later(0.01, self._end, track - 1, clip, self.takes)

    def _end(self, lane: int, clip: FakeClip, number: int) -> None:
        capture = self.tracks[lane + 1].name if lane + 1 < len(self.tracks) else "take"
        path = self.folder / f"{capture} {number}.wav"
        preroll = round(0.01 * RATE)
        if lane < len(self.tracks) and not self.faults.no_file:
            track = self.tracks[lane]
            sound = (
                noise(lane_state(track), track.clips[0].notes[0])
                if track.clips.get(0)
                else np.zeros((2, 4000))
            )
            samples = np.concatenate([np.full((2, preroll), 0.5, np.float32), sound], axis=1)
            keep = len(samples[0]) // 2 if self.faults.short_file else None
            soundfile.write(
                path,
                samples.T[:keep],
                2 * RATE if self.faults.wrong_rate else RATE,
                subtype="FLOAT",
            )
        clip.path, clip.recording = str(path), self.faults.never_ends

    def on_clip_get_is_recording(self, track, slot):
        return (track, slot, self.clip(track, slot).recording)

    def on_clip_get_file_path(self, track, slot):
        return (track, slot, self.clip(track, slot).path)

    def on_clip_get_start_marker(self, track, slot):
        return (track, slot, 0.01)

    def on_clip_get_warping(self, track, slot):
        return (track, slot, False)

    # -- companion -----------------------------------------------------------------------------

    def _companion(self, address: str, arguments: list) -> tuple:
        match address.removeprefix("/unmixer/"), arguments:
            case "get/version", []:
                return ("1.1",)
            case "track/insert_device", [track, name, position]:
                if name not in BY_NAME:
                    raise LiveError(f"Device {name} not found.")
                self.track(track).devices.insert(position, FakeDevice.make(name, preset=0.25))
                return (track, position)
            case "track/move_device", [track, start, end]:
                moved = self.track(track).devices.pop(start)
                self.track(track).devices.insert(end, moved)
                return (track, end)
            case "track/delete_device", [track, index]:
                self.track(track).devices.remove(self.device(track, index))
                return (track, index)
            case "device/set", [track, index, key, value]:
                self.device(track, index).properties[key] = value
                return (track, index, key, value)
            case "device/get", [track, index, "oscillator_wavetable_categories"]:
                return (track, index, "oscillator_wavetable_categories", "Factory", "Unmixer")
            case "device/get", [track, index, "oscillator_1_wavetables"]:
                chosen = self.device(track, index).properties.get(
                    "oscillator_1_wavetable_category", 0
                )
                return (
                    track,
                    index,
                    "oscillator_1_wavetables",
                    *(WAVETABLES if chosen else ("Noise", "Bell 2")),
                )
            case "device/get", [track, index, "visible_modulation_target_names"]:
                return (track, index, "visible_modulation_target_names", "Osc 1 Pos")
            case "device/get_all", [track, index, count, *keys]:
                device, cells = (
                    self.device(track, index),
                    zip(keys[count::2], keys[count + 1 :: 2], strict=True),
                )
                properties = (device.properties[key] for key in keys[:count])
                return (
                    track,
                    index,
                    *properties,
                    *(device.amounts.get(cell, 0.0) for cell in cells),
                )
            case "device/get_modulation", [track, index, target, source]:
                return (
                    track,
                    index,
                    target,
                    source,
                    self.device(track, index).amounts.get((target, source), 0.0),
                )
            case "device/set_modulation", [track, index, target, source, amount]:
                self.device(track, index).amounts[target, source] = amount
                return (track, index, target, source, amount)
        raise LiveError(f"no such call: {address} {arguments}")


def lane_state(track: FakeTrack) -> list:
    """Everything that shapes a lane's sound, devices that are off left out."""
    return [
        [d.name, _round(d.values), _sorted(d.properties), _sorted(_moving(d.amounts))]
        for d in track.devices
        if d.values[0] != 0.0
    ]


def expected(patch) -> np.ndarray:
    """What a host records when everything of `patch` has arrived."""
    state = []
    for name, target in targets(patch).items():
        values = baseline(name) | {DEVICE_ON: 1.0} | dict(target.parameters)
        properties = dict(target.properties) | (FIXED_PROPERTIES if name == RACK.synth.name else {})
        for oscillator, table in target.tables.items():
            properties |= {
                f"oscillator_{oscillator}_wavetable_category": 1,
                f"oscillator_{oscillator}_wavetable_index": WAVETABLES.index(table),
            }
        ordered = [wire.float32(values[p.name]) for p in BY_NAME[name].table]
        amounts = {key: wire.float32(amount) for key, amount in target.modulations.items()}
        state.append([name, _round(ordered), _sorted(properties), _sorted(_moving(amounts))])
    return noise(state, (patch.note, 0.0, wire.float32(2.0 * patch.gate_s), VELOCITY, False))


def noise(state: list, note: tuple) -> np.ndarray:
    """float32 [2, samples], another one for every state."""
    text = json.dumps([state, [note[0], round(note[2], 4), int(note[3])]])
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return (
        np.random.default_rng(seed).uniform(-0.5, 0.5, (2, round(CLIP_S * RATE))).astype(np.float32)
    )


def _moving(amounts: dict) -> dict:
    return {cell: amount for cell, amount in amounts.items() if amount}


def _round(values: list[float]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def _sorted(values: dict) -> list:
    return sorted([str(key), float(f"{value:.5g}")] for key, value in values.items())
