"""The object model behind the addresses.

A Live set of tracks, clip slots, clips and devices, as far as sessions need.

Attribute names are those of the Live Object Model, because AbletonOSC exposes them by name. Errors
are raised as Live raises them (RuntimeError, AttributeError, ArgumentError); the server turns them
into /live/error with the same words.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from unmixer_core.headless.song import auto_filter_2, routing
from unmixer_core.headless.sound.device_state import PROPERTIES, SILENT_SOURCES, DeviceState
from unmixer_core.headless.sound.voice import DESTINATIONS, SOURCES
from unmixer_core.schema.devices import CLASS_NAMES, TABLES, WAVETABLES, Parameter

OUT_OF_RANGE = "Invalid value. Check the parameters range with min/max"
SCENES = 8
INSTRUMENT, AUDIO_EFFECT = 1, 2
AUTO, OFF = 1, 2  # monitoring


class ArgumentError(Exception):
    """Boost.Python's complaint about an argument of the wrong type."""


def float32(value: float) -> float:
    """The value as Live keeps and sends it."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


@dataclass(frozen=True)
class Rule:
    """What a settable attribute accepts: `kind` float, int, bool or str, within low..high."""

    kind: type
    low: float = float("-inf")
    high: float = float("inf")
    complaint: str = "Invalid value"

    def check(self, owner: str, value: Any) -> Any:
        number = isinstance(value, (int, float))
        if (self.kind is str) != isinstance(value, str) or not (number or isinstance(value, str)):
            raise ArgumentError("Python argument types did not match C++ signature")
        if self.kind is int and isinstance(value, float):
            raise ArgumentError(
                f"Python argument types in\n    None.None({owner}, float)\ndid not match C++ "
                f"signature"
            )
        if number and not self.low <= value <= self.high:
            raise RuntimeError(self.complaint)
        return self.kind(value)


class Settable:
    """An object whose attributes in `rules` may be set over the wire."""

    rules: ClassVar[dict[str, Rule]] = {}

    def assign(self, name: str, value: Any) -> None:
        setattr(self, name, self.rules[name].check(type(self).__name__, value))


@dataclass(frozen=True)
class RoutingType:
    display_name: str


@dataclass(frozen=True)
class Note:
    """A MIDI note; times in beats."""

    pitch: int
    start_time: float
    duration: float
    velocity: float
    mute: bool


class SongClip(Settable):
    """A MIDI clip with notes, or an audio clip that is being or was recorded."""

    rules: ClassVar[dict[str, Rule]] = {
        "name": Rule(str),
        "looping": Rule(bool),
        "loop_start": Rule(float),
        "loop_end": Rule(float),
        "start_marker": Rule(float),
        "end_marker": Rule(float),
        "warping": Rule(bool),
        "muted": Rule(bool),
        "gain": Rule(float, 0.0, 1.0),
        "launch_quantization": Rule(int, 0, 14),
        "launch_mode": Rule(int, 0, 3),
        "legato": Rule(bool),
        "color": Rule(int),
        "color_index": Rule(int, 0, 69),
        "pitch_coarse": Rule(int, -48, 48),
        "velocity_amount": Rule(float, 0.0, 1.0),
    }

    def __init__(self, length: float, is_midi_clip: bool) -> None:
        self.length = self.loop_end = self.end_marker = float(length)
        self.is_midi_clip, self.is_audio_clip = is_midi_clip, not is_midi_clip
        self.looping, self.name, self.notes = is_midi_clip, "", list[Note]()
        self.loop_start = self.start_marker = self.start_time = 0.0
        self.end_time = float(length)
        self.is_recording = self.is_playing = self.is_triggered = self.is_overdubbing = (
            self.will_record_on_start
        ) = False
        self.warping = self.muted = self.legato = self.has_groove = False
        self.gain, self.launch_quantization, self.launch_mode, self.color_index, self.color = (
            0.4,
            0,
            0,
            0,
            0,
        )
        self.pitch_coarse, self.velocity_amount, self.playing_position = 0, 0.0, 0.0
        self.recorded_path: str | None = None
        self.recorded_samples, self.recorded_rate = 0, 0.0

    @property
    def file_path(self) -> str | None:
        return self._audio(self.recorded_path)

    @property
    def sample_length(self) -> int:
        return self._audio(self.recorded_samples)

    @property
    def sample_rate(self) -> float:
        return self._audio(self.recorded_rate)

    def _audio(self, value: Any) -> Any:
        if self.is_midi_clip:
            raise RuntimeError("Only audio clips have a sample")
        return value

    def notes_between(self, pitch: int, span: int, start: float, length: float) -> list[Note]:
        """Notes with pitch in [pitch, pitch + span) that start in [start, start + length), by
        pitch, then time.
        """
        chosen = [
            n
            for n in self.notes
            if pitch <= n.pitch < pitch + span and start <= n.start_time < start + length
        ]
        return sorted(chosen, key=lambda n: (n.pitch, n.start_time))


class ClipSlot(Settable):
    """A place for a clip on a track."""

    rules: ClassVar[dict[str, Rule]] = {"has_stop_button": Rule(bool)}

    def __init__(self, track: Track) -> None:
        self.track, self.clip = track, None
        self.has_stop_button, self.is_group_slot, self.controls_other_clips = True, False, False

    clip: SongClip | None

    @property
    def has_clip(self) -> bool:
        return self.clip is not None

    @property
    def is_recording(self) -> bool:
        return self.clip is not None and self.clip.is_recording

    @property
    def is_playing(self) -> bool:
        return self.clip is not None and self.clip.is_playing

    @property
    def is_triggered(self) -> bool:
        return False

    @property
    def playing_status(self) -> int:
        return 2 * self.is_recording or int(self.is_playing)

    @property
    def will_record_on_start(self) -> bool:
        return self.clip is None and self.track.arm

    def create_clip(self, length: float) -> None:
        if not self.track.is_midi:
            raise RuntimeError("Clips can only be created on MIDI tracks")
        if self.clip is not None:
            raise RuntimeError("The slot already contains a clip")
        self.clip = SongClip(Rule(float, 1e-6).check("ClipSlot", length), is_midi_clip=True)

    def delete_clip(self) -> None:
        if self.clip is None:
            raise RuntimeError("Slot is empty")
        self.clip = None


class SongDevice:
    """A device: its name, class and parameters in Live's order, over the plain `DeviceState`
    that the voice reads.
    """

    def __init__(self, name: str, table: tuple[Parameter, ...] = ()) -> None:
        self.parameters = table or TABLES[name]
        self.state = DeviceState(name, {p.name: float32(p.default) for p in self.parameters})

    @property
    def name(self) -> str:
        return self.state.name

    @property
    def class_name(self) -> str:
        return CLASS_NAMES[self.name]

    @property
    def type(self) -> int:
        return INSTRUMENT if self.name == "Wavetable" else AUDIO_EFFECT

    @property
    def is_active(self) -> bool:
        return self.state.values["Device On"] > 0.5

    @property
    def latency_in_samples(self) -> int:
        return 0

    @property
    def can_have_chains(self) -> bool:
        return False

    def __getattr__(self, name: str) -> int:
        """Wavetable's properties are plain attributes, which `track_data` reads though no
        address sets them.
        """
        if name in PROPERTIES and self.type == INSTRUMENT:
            return int(self.get_property(name)[0])
        raise AttributeError(f"'Device' object has no attribute '{name}'")

    @property
    def sounding(self) -> DeviceState:
        """The state as the voice reads it."""
        return self.state

    def copy(self) -> SongDevice:
        twin = type(self)(self.name)
        twin.state = DeviceState.from_dict(self.state.to_dict())
        return twin

    def value(self, parameter: Parameter) -> float:
        return self.state.values[parameter.name]

    def set_value(self, parameter: Parameter, value: Any) -> None:
        rule = Rule(
            float,
            float32(parameter.minimum) - 1e-6,
            float32(parameter.maximum) + 1e-6,
            OUT_OF_RANGE,
        )
        number = rule.check("DeviceParameter", value)
        self.state.values[parameter.name] = float32(
            round(number) if parameter.quantized else number
        )

    def text(self, parameter: Parameter) -> str:
        return (
            f"{self.value(parameter):.0f}"
            if parameter.quantized
            else f"{self.value(parameter):.2f}"
        )

    # What only the companion script reaches.

    def get_property(self, name: str) -> list[Any]:
        if name == "oscillator_wavetable_categories":
            return ["Unmixer"]
        if name.endswith(("_wavetables", "_target_names")) and self.type == INSTRUMENT:
            return list(DESTINATIONS if name == "visible_modulation_target_names" else WAVETABLES)
        self._know(name)
        return [self.state.properties.get(name, PROPERTIES[name][0])]

    def set_property(self, name: str, value: Any) -> int:
        self._know(name)
        _, low, high = PROPERTIES[name]
        number = int(value)
        if not low <= number <= high:
            raise RuntimeError(f"{name} takes {low} to {high}, not {value}.")
        self.state.properties[name] = number
        return number

    def _know(self, name: str) -> None:
        if self.type != INSTRUMENT or name not in PROPERTIES:
            raise RuntimeError(f"{self.name} has no property {name}.")

    def modulation(self, target: str, source: str) -> float:
        if source not in SILENT_SOURCES:
            self._know_modulation(target, source)
        return self.state.modulation.get(target, {}).get(source, 0.0)

    def set_modulation(self, target: str, source: str, amount: Any) -> float:
        self._know_modulation(target, source)
        value = Rule(float, -1.0, 1.0, f"A modulation amount lies in -1..1, not {amount}.").check(
            "WavetableDevice", amount
        )
        self.state.modulation.setdefault(target, {})[source] = float32(value)
        return float32(value)

    def _know_modulation(self, target: str, source: str) -> None:
        if self.type != INSTRUMENT or target not in DESTINATIONS or source not in SOURCES:
            raise RuntimeError(
                f"The embedded host cannot modulate {target} of {self.name} by {source}."
            )


class AutoFilter2(SongDevice):
    """Auto Filter as Live 12.2 and later inserts it."""

    def __init__(self, name: str) -> None:
        super().__init__(name, auto_filter_2.TABLE)

    @property
    def class_name(self) -> str:
        return auto_filter_2.CLASS_NAME

    @property
    def sounding(self) -> DeviceState:
        return auto_filter_2.as_old(self.state)


def make_device(name: str, newer: bool = False) -> SongDevice:
    """`newer`: as Live 12.2 and later makes it."""
    return AutoFilter2(name) if newer and name == auto_filter_2.NAME else SongDevice(name)


class Track(Settable):
    """A MIDI or audio track with eight clip slots and devices."""

    rules: ClassVar[dict[str, Rule]] = {
        "name": Rule(str),
        "arm": Rule(bool),
        "mute": Rule(bool),
        "solo": Rule(bool),
        "color": Rule(int),
        "color_index": Rule(int, 0, 69),
        "current_monitoring_state": Rule(int, 0, 2),
        "volume": Rule(float, 0.0, 1.0, OUT_OF_RANGE),
        "panning": Rule(float, -1.0, 1.0, OUT_OF_RANGE),
    }

    def __init__(
        self, name: str, is_midi: bool, make: Callable[[str], SongDevice] = SongDevice
    ) -> None:
        self.name, self.is_midi, self.devices, self.make = name, is_midi, list[SongDevice](), make
        self.clip_slots = [ClipSlot(self) for _ in range(SCENES)]
        self.arm = self.mute = self.solo = self.is_frozen = self.is_foldable = self.is_grouped = (
            False
        )
        self.is_visible = self.can_be_armed = self.has_audio_output = True
        self.has_audio_input, self.has_midi_input, self.has_midi_output = (
            not is_midi,
            is_midi,
            False,
        )
        self.color, self.color_index, self.volume, self.panning = 0, 0, float32(0.85), 0.0
        self.current_monitoring_state = AUTO if is_midi else OFF
        self.fired_slot_index, self.playing_slot_index = -1, -1
        self.output_meter_level = self.output_meter_left = self.output_meter_right = 0.0
        self.input_routing_type = RoutingType("All Ins" if is_midi else "Ext. In")
        self.input_routing_channel = RoutingType("All Channels" if is_midi else "1/2")
        self.output_routing_type, self.output_routing_channel = (
            RoutingType("Master"),
            RoutingType(""),
        )

    @property
    def fold_state(self) -> bool:
        raise RuntimeError("Only group tracks fold")

    def insert_device(self, name: str, position: int) -> int:
        """Adds a device, −1 at the end, and returns its index.

        An effect never lands before the instrument, as in Live.
        """
        if name not in TABLES:
            raise RuntimeError(f"Device {name} not found.")
        has_instrument = bool(self.devices) and self.devices[0].type == INSTRUMENT
        if name == "Wavetable":
            if not self.is_midi or has_instrument:
                raise RuntimeError(
                    "Couldn't insert device: an instrument needs a MIDI track without one."
                )
            index = 0
        else:
            index = (
                len(self.devices)
                if position < 0
                else min(max(position, int(has_instrument)), len(self.devices))
            )
        self.devices.insert(index, self.make(name))
        return index

    def move_device(self, source: int, target: int) -> int:
        if self.devices[source].type == INSTRUMENT:
            raise RuntimeError("Couldn't move device.")
        device = self.devices.pop(source)
        has_instrument = bool(self.devices) and self.devices[0].type == INSTRUMENT
        index = min(max(target, int(has_instrument)), len(self.devices))
        self.devices.insert(index, device)
        return index


class Song(Settable):
    """The set: two MIDI and two audio tracks, as Live's blank default."""

    rules: ClassVar[dict[str, Rule]] = {
        "tempo": Rule(float, 20.0, 999.0),
        "current_song_time": Rule(float, 0.0),
        "metronome": Rule(bool),
        "clip_trigger_quantization": Rule(int, 0, 13),
        "midi_recording_quantization": Rule(int, 0, 8),
        "record_mode": Rule(bool),
        "session_record": Rule(bool),
        "arrangement_overdub": Rule(bool),
        "back_to_arranger": Rule(bool),
        "groove_amount": Rule(float, 0.0, 1.3),
        "is_ableton_link_enabled": Rule(bool),
        "loop": Rule(bool),
        "loop_length": Rule(float, 0.0),
        "loop_start": Rule(float, 0.0),
        "nudge_down": Rule(bool),
        "nudge_up": Rule(bool),
        "punch_in": Rule(bool),
        "punch_out": Rule(bool),
        "root_note": Rule(int, 0, 11),
        "scale_name": Rule(str),
        "signature_denominator": Rule(int, 1, 16),
        "signature_numerator": Rule(int, 1, 99),
    }

    def __init__(self, make: Callable[[str], SongDevice] = SongDevice) -> None:
        self.make = make
        self.tempo, self.current_song_time, self.is_playing = 120.0, 0.0, False
        self.can_undo, self.can_redo, self.song_length, self.session_record_status = (
            True,
            False,
            64.0,
            0,
        )
        self.metronome = self.loop = self.record_mode = self.session_record = (
            self.arrangement_overdub
        ) = False
        self.back_to_arranger = self.is_ableton_link_enabled = self.nudge_down = self.nudge_up = (
            False
        )
        self.punch_in = self.punch_out = False
        self.clip_trigger_quantization, self.midi_recording_quantization, self.groove_amount = (
            4,
            0,
            1.0,
        )
        self.loop_start, self.loop_length, self.root_note, self.scale_name = 8.0, 16.0, 0, "Major"
        self.signature_numerator = self.signature_denominator = 4
        self.tracks = [
            self.new_track(f"{i}-{kind}", kind == "MIDI")
            for i, kind in enumerate(("MIDI", "MIDI", "Audio", "Audio"), 1)
        ]

    def new_track(self, name: str, is_midi: bool) -> Track:
        """A track that is not in the set yet."""
        return Track(name, is_midi, self.make)

    def track(self, index: int) -> Track:
        return at(self.tracks, index)

    def create_track(self, is_midi: bool, index: Any = -1) -> None:
        if not isinstance(index, int):
            raise ArgumentError(
                "Python argument types in\n    Song.create_midi_track(Song, float)\ndid not match "
                "C++ signature"
            )
        place = len(self.tracks) if index == -1 else index
        if not 0 <= place <= len(self.tracks):
            raise IndexError("Index out of range")
        self.tracks.insert(
            place, self.new_track(f"{place + 1}-{'MIDI' if is_midi else 'Audio'}", is_midi)
        )

    def delete_track(self, index: int) -> None:
        self.tracks.remove(self.track(index))

    def duplicate_track(self, index: int) -> None:
        original = self.track(index)
        twin = self.new_track(original.name, original.is_midi)
        twin.devices = [device.copy() for device in original.devices]
        for name in (
            *Track.rules,
            "input_routing_type",
            "input_routing_channel",
            "output_routing_type",
            "output_routing_channel",
        ):
            setattr(twin, name, getattr(original, name))
        self.tracks.insert(index + 1, twin)

    def routing_types(self, track: Track, is_input: bool) -> list[str]:
        """Display names of what may be routed into or out of `track`."""
        others = [other.name for other in self.tracks if other is not track]
        if not is_input:
            return ["Ext. Out", "Master", *others, "Sends Only"]
        others = [name for name in others if name not in routing.downstream(self, track)]
        return (
            ["All Ins", "Computer Keyboard", *others, "No Input"]
            if track.is_midi
            else ["Ext. In", "Resampling", *others, "No Input"]
        )

    def lane_of(self, capture: Track) -> Track | None:
        """The MIDI track whose notes an audio track records, by its input routing, however many
        tracks lie between.
        """
        return routing.sound_into(self, capture)[0]


def at(items: list[Any] | tuple[Any, ...], index: int) -> Any:
    """items[index] with Live's words for an index beyond the end."""
    if not 0 <= index < len(items):
        raise IndexError("Index out of range")
    return items[index]
