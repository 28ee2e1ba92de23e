"""Clips and their notes.

Attribute names are those of the Live Object Model, because AbletonOSC exposes them by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from unmixer_core.headless.song.values import Rule, Settable


@dataclass(frozen=True)
class Note:
    """A MIDI note. Times are in beats, the velocity is 0 to 127."""

    pitch: int
    start_time: float
    duration: float
    velocity: float
    mute: bool


class SongClip(Settable):
    """A MIDI clip with notes, or an audio clip with a recording (finished or in progress)."""

    live_class = "Clip"
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
        self.is_midi_clip = is_midi_clip
        self.is_audio_clip = not is_midi_clip
        self.name = ""
        self.notes: list[Note] = []
        self._init_times(float(length))
        self._init_state()
        self.recorded_path: str | None = None
        self.recorded_samples = 0
        self.recorded_rate = 0.0

    def _init_times(self, length: float) -> None:
        """Set all times to those of a new clip of `length` beats."""
        self.length = length
        self.looping = self.is_midi_clip
        self.loop_start = 0.0
        self.loop_end = length
        self.start_marker = 0.0
        self.end_marker = length
        self.start_time = 0.0
        self.end_time = length
        self.playing_position = 0.0

    def _init_state(self) -> None:
        """Set all other properties to those of a new clip."""
        self.is_recording = False
        self.is_playing = False
        self.is_triggered = False
        self.is_overdubbing = False
        self.will_record_on_start = False
        self.warping = False
        self.muted = False
        self.legato = False
        self.has_groove = False
        self.gain = 0.4
        self.launch_quantization = 0
        self.launch_mode = 0
        self.color_index = 0
        self.color = 0
        self.pitch_coarse = 0
        self.velocity_amount = 0.0

    @property
    def file_path(self) -> str | None:
        """Path of the recorded file. Raises RuntimeError for a MIDI clip."""
        self._require_audio()
        return self.recorded_path

    @property
    def sample_length(self) -> int:
        """Length of the recording in samples. Raises RuntimeError for a MIDI clip."""
        self._require_audio()
        return self.recorded_samples

    @property
    def sample_rate(self) -> float:
        """Sample rate of the recording in Hz. Raises RuntimeError for a MIDI clip."""
        self._require_audio()
        return self.recorded_rate

    def _require_audio(self) -> None:
        if self.is_midi_clip:
            raise RuntimeError("Only audio clips have a sample")

    def copy(self) -> SongClip:
        """Another clip with the same properties and notes."""
        twin = SongClip(self.length, self.is_midi_clip)
        twin.__dict__.update(self.__dict__, notes=list(self.notes))
        return twin

    def notes_between(self, pitch: int, span: int, start: float, length: float) -> list[Note]:
        """Notes in a range of pitches and start times, sorted by pitch, then time.

        Pitches lie in [pitch, pitch + span), start times in [start, start + length) beats.
        """
        chosen = []
        for note in self.notes:
            has_pitch = pitch <= note.pitch < pitch + span
            if has_pitch and start <= note.start_time < start + length:
                chosen.append(note)
        return sorted(chosen, key=lambda note: (note.pitch, note.start_time))
