"""The Live set: its transport and its tracks.

Attribute names are those of the Live Object Model, because AbletonOSC exposes them by name. Errors
are raised as Live raises them; the server sends their words to the client.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from unmixer_core.headless.song import routing
from unmixer_core.headless.song.devices import SongDevice
from unmixer_core.headless.song.tracks import Track
from unmixer_core.headless.song.values import ArgumentError, OscValue, Rule, Settable, at

#: A track's routing attributes.
ROUTINGS = (
    "input_routing_type",
    "input_routing_channel",
    "output_routing_type",
    "output_routing_channel",
)


class Song(Settable):
    """The set: two MIDI and two audio tracks, as Live's default set."""

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
        self._init_transport()
        self._init_recording()
        self._init_editing()
        self.tracks: list[Track] = []
        for number, kind in enumerate(("MIDI", "MIDI", "Audio", "Audio"), 1):
            self.tracks.append(self.new_track(f"{number}-{kind}", kind == "MIDI"))

    def _init_transport(self) -> None:
        """Set tempo, position, loop and meter to those of Live's default set."""
        self.tempo = 120.0
        self.current_song_time = 0.0
        self.is_playing = False
        self.song_length = 64.0
        self.metronome = False
        self.loop = False
        self.loop_start = 8.0
        self.loop_length = 16.0
        self.signature_numerator = 4
        self.signature_denominator = 4
        self.nudge_down = False
        self.nudge_up = False
        self.is_ableton_link_enabled = False
        #: Live's quantization "1 bar".
        self.clip_trigger_quantization = 4

    def _init_recording(self) -> None:
        """Set what concerns recording to the values of Live's default set."""
        self.record_mode = False
        self.session_record = False
        self.session_record_status = 0
        self.arrangement_overdub = False
        self.back_to_arranger = False
        self.punch_in = False
        self.punch_out = False
        self.midi_recording_quantization = 0

    def _init_editing(self) -> None:
        """Set scale, groove and undo to the values of Live's default set."""
        self.can_undo = True
        self.can_redo = False
        self.groove_amount = 1.0
        self.root_note = 0
        self.scale_name = "Major"

    def new_track(self, name: str, is_midi: bool) -> Track:
        """A new track, which is not yet in the set."""
        return Track(name, is_midi, self.make)

    def track(self, index: int) -> Track:
        """The track at an index. Raises Live's IndexError when there is none."""
        return at(self.tracks, index)

    def create_track(self, is_midi: bool, index: OscValue = -1) -> None:
        """Insert a track at an index, or at the end for −1.

        Raises ArgumentError for an index that is no int, IndexError for one out of range.
        """
        if not isinstance(index, int):
            raise ArgumentError(
                "Python argument types in\n    Song.create_midi_track(Song, float)\ndid not match "
                "C++ signature"
            )
        place = len(self.tracks) if index == -1 else index
        if not 0 <= place <= len(self.tracks):
            raise IndexError("Index out of range")
        kind = "MIDI" if is_midi else "Audio"
        self.tracks.insert(place, self.new_track(f"{place + 1}-{kind}", is_midi))

    def delete_track(self, index: int) -> None:
        """Remove the track at an index."""
        self.tracks.remove(self.track(index))

    def duplicate_track(self, index: int) -> None:
        """Insert a copy of a track behind it, with its devices and without its clips."""
        original = self.track(index)
        twin = self.new_track(original.name, original.is_midi)
        twin.devices = [device.copy() for device in original.devices]
        for name in (*Track.rules, *ROUTINGS):
            setattr(twin, name, getattr(original, name))
        self.tracks.insert(index + 1, twin)

    def routing_types(self, track: Track, is_input: bool) -> list[str]:
        """Display names of the inputs or outputs that `track` may be routed to."""
        others = [other.name for other in self.tracks if other is not track]
        if not is_input:
            return ["Ext. Out", "Master", *others, "Sends Only"]
        # Live offers no input that would close a loop.
        downstream = routing.downstream(self, track)
        others = [name for name in others if name not in downstream]
        if track.is_midi:
            return ["All Ins", "Computer Keyboard", *others, "No Input"]
        return ["Ext. In", "Resampling", *others, "No Input"]

    def lane_of(self, capture: Track) -> Track | None:
        """The MIDI track whose sound an audio track records, directly or through other tracks."""
        return routing.signal_path(self, capture)[0]
