"""Tracks and their clip slots.

Attribute names are those of the Live Object Model, because AbletonOSC exposes them by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from unmixer_core.headless.song.clips import SongClip
from unmixer_core.headless.song.devices import INSTRUMENT, SongDevice
from unmixer_core.headless.song.values import (
    OUT_OF_RANGE,
    OscValue,
    Rule,
    Settable,
    float32,
    to_float,
)
from unmixer_core.schema.devices import TABLES

#: Scenes of the set, and so clip slots of a track.
SCENES = 8
#: Live's monitoring state Auto: an armed track passes its input on.
AUTO = 1
#: Live's monitoring state Off: a track never passes its input on.
OFF = 2


@dataclass(frozen=True)
class RoutingType:
    """A routing choice, with Live's name for it."""

    display_name: str


class ClipSlot(Settable):
    """A place for a clip on a track."""

    rules: ClassVar[dict[str, Rule]] = {"has_stop_button": Rule(bool)}

    def __init__(self, track: Track) -> None:
        self.track = track
        self.clip: SongClip | None = None
        self.has_stop_button = True
        self.is_group_slot = False
        self.controls_other_clips = False

    @property
    def has_clip(self) -> bool:
        """Whether the slot holds a clip."""
        return self.clip is not None

    @property
    def is_recording(self) -> bool:
        """Whether the clip is being recorded."""
        return self.clip is not None and self.clip.is_recording

    @property
    def is_playing(self) -> bool:
        """Whether the clip is playing."""
        return self.clip is not None and self.clip.is_playing

    @property
    def is_triggered(self) -> bool:
        """Always False: this host launches clips at once."""
        return False

    @property
    def playing_status(self) -> int:
        """0: stopped, 1: playing, 2: recording."""
        if self.is_recording:
            return 2
        return int(self.is_playing)

    @property
    def will_record_on_start(self) -> bool:
        """Whether a launch would record: an empty slot of an armed track."""
        return self.clip is None and self.track.arm

    def create_clip(self, length: OscValue) -> None:
        """Create an empty MIDI clip of `length` beats. Raises RuntimeError when it cannot be."""
        if not self.track.is_midi:
            raise RuntimeError("Clips can only be created on MIDI tracks")
        if self.clip is not None:
            raise RuntimeError("The slot already contains a clip")
        # Live refuses a length of 0.
        beats = Rule(float, 1e-6).check("ClipSlot", length)
        self.clip = SongClip(to_float(beats), is_midi_clip=True)

    def delete_clip(self) -> None:
        """Remove the clip. Raises RuntimeError when there is none."""
        if self.clip is None:
            raise RuntimeError("Slot is empty")
        self.clip = None


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
        self.name = name
        self.is_midi = is_midi
        self.make = make
        self.devices: list[SongDevice] = []
        self.clip_slots = [ClipSlot(self) for _ in range(SCENES)]
        self._init_mixer()
        self._init_state()
        self.input_routing_type = RoutingType("All Ins" if is_midi else "Ext. In")
        self.input_routing_channel = RoutingType("All Channels" if is_midi else "1/2")
        self.output_routing_type = RoutingType("Master")
        self.output_routing_channel = RoutingType("")

    def _init_mixer(self) -> None:
        """Set the mixer's values to those of a new track."""
        self.arm = False
        self.mute = False
        self.solo = False
        #: 0.85 is 0 dB on Live's fader.
        self.volume = float32(0.85)
        self.panning = 0.0
        self.current_monitoring_state = AUTO if self.is_midi else OFF
        self.output_meter_level = 0.0
        self.output_meter_left = 0.0
        self.output_meter_right = 0.0

    def _init_state(self) -> None:
        """Set all other properties to those of a new track."""
        self.is_frozen = False
        self.is_foldable = False
        self.is_grouped = False
        self.is_visible = True
        self.can_be_armed = True
        self.has_audio_output = True
        self.has_audio_input = not self.is_midi
        self.has_midi_input = self.is_midi
        self.has_midi_output = False
        self.color = 0
        self.color_index = 0
        self.fired_slot_index = -1
        self.playing_slot_index = -1

    @property
    def fold_state(self) -> bool:
        """Raise Live's error: only group tracks can be folded."""
        raise RuntimeError("Only group tracks fold")

    @property
    def _has_instrument(self) -> bool:
        return bool(self.devices) and self.devices[0].type == INSTRUMENT

    def insert_device(self, name: str, position: int) -> int:
        """Insert a device, at the end for −1, and return its index.

        An effect is never inserted before the instrument, as in Live. Raises RuntimeError for an
        unknown device, and for an instrument on an audio track or beside another instrument.
        """
        if name not in TABLES:
            raise RuntimeError(f"Device {name} not found.")
        if name == "Wavetable":
            if not self.is_midi or self._has_instrument:
                raise RuntimeError(
                    "Couldn't insert device: an instrument needs a MIDI track without one."
                )
            index = 0
        elif position < 0:
            index = len(self.devices)
        else:
            index = self._effect_index(position)
        self.devices.insert(index, self.make(name))
        return index

    def move_device(self, source: int, target: int) -> int:
        """Move an effect, never before the instrument, and return its new index.

        Raises RuntimeError for the instrument.
        """
        if self.devices[source].type == INSTRUMENT:
            raise RuntimeError("Couldn't move device.")
        device = self.devices.pop(source)
        index = self._effect_index(target)
        self.devices.insert(index, device)
        return index

    def _effect_index(self, position: int) -> int:
        """The index nearest to `position` at which an effect may stand."""
        return min(max(position, int(self._has_instrument)), len(self.devices))
