"""Launching clips and recordings.

A MIDI clip and an empty slot of an armed audio track that records its lane make one render.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from unmixer_core.errors import HostError
from unmixer_core.headless.song.clips import Note, SongClip
from unmixer_core.headless.song.routing import signal_path
from unmixer_core.headless.song.song import Song
from unmixer_core.headless.song.tracks import ClipSlot, Track
from unmixer_core.headless.song.values import Args
from unmixer_core.headless.sound.job import SoundJob
from unmixer_core.headless.sound.pool import Takes

#: How long a recording waits for a MIDI clip that a later message launches; then it records
#: silence.
PATIENCE_S = 1.0


@dataclass
class HostTake:
    """A recording that was launched and waits for the MIDI clip of its lane."""

    clip: SongClip
    capture: Track
    beats: float
    deadline_s: float


class HostRecorder:
    """Launches clips and recordings. `complain(sentence)` reports a render that failed.

    `latency_samples`: delay of each note, as through an audio interface or a device's look-ahead.
    """

    latency_samples = 0

    def __init__(
        self,
        song: Song,
        pool: Takes,
        folder: Path,
        sample_rate: int,
        complain: Callable[[str], None],
    ) -> None:
        self.song = song
        self.pool = pool
        self.folder = folder
        self.sample_rate = sample_rate
        self.complain = complain
        self._numbers = itertools.count(1)
        self._waiting: list[HostTake] = []
        #: MIDI clips that were launched and not yet recorded, by `id` of their track.
        self._fired: dict[int, SongClip] = {}

    def fire(self, slot: ClipSlot, args: Args) -> None:
        """Play the clip of a slot, or record `args[0]` beats into an empty slot.

        An empty slot is recorded only on an armed audio track. Raises RuntimeError for a length
        with a clip, or a recording without one.
        """
        if slot.clip is not None:
            if args:
                raise RuntimeError("Cannot pass record_length to a non-empty slot")
            self._play(slot)
        elif slot.track.arm and not slot.track.is_midi:
            beats = cast("float", args[0]) if args else 0.0
            if beats <= 0:
                raise RuntimeError("The embedded host records only with a record_length in beats")
            self._record(slot, float(beats))

    def launch(self) -> None:
        """Start the renders whose MIDI clip was launched, and those that waited too long.

        The server calls it after each message or bundle, and while it is idle.
        """
        for take in list(self._waiting):
            lane = self.song.lane_of(take.capture)
            notes = self._fired.get(id(lane))
            if (lane is not None and notes is not None) or time.monotonic() > take.deadline_s:
                self._start(take, lane, notes)
        if not self._waiting:
            self._fired.clear()

    def _play(self, slot: ClipSlot) -> None:
        assert slot.clip is not None
        slot.clip.is_playing = True
        self.song.is_playing = True
        slot.track.playing_slot_index = slot.track.clip_slots.index(slot)
        if slot.clip.is_midi_clip:
            self._fired[id(slot.track)] = slot.clip

    def _record(self, slot: ClipSlot, beats: float) -> None:
        clip = SongClip(beats, is_midi_clip=False)
        clip.is_recording = True
        clip.is_playing = True
        slot.clip = clip
        self.song.is_playing = True
        deadline_s = time.monotonic() + PATIENCE_S
        self._waiting.append(HostTake(clip, slot.track, beats, deadline_s))

    def _start(self, take: HostTake, lane: Track | None, notes: SongClip | None) -> None:
        self._waiting.remove(take)
        try:
            job = self._job(take, lane, notes)
        except (RuntimeError, HostError) as problem:
            self._finish(take.clip, None, str(problem))
            return
        self.pool.submit(job, lambda error: self._finish(take.clip, job, error))

    def _job(self, take: HostTake, lane: Track | None, notes: SongClip | None) -> SoundJob:
        beat_s = 60.0 / self.song.tempo
        note = _unmuted_note(notes)
        _, path = signal_path(self.song, take.capture)
        devices = [device.voice_state.to_dict() for device in path]
        return SoundJob(
            devices=devices,
            note=note.pitch,
            velocity=note.velocity / 127.0,
            start_s=note.start_time * beat_s + self.latency_samples / self.sample_rate,
            gate_s=note.duration * beat_s,
            duration_s=take.beats * beat_s,
            tempo_bpm=self.song.tempo,
            sample_rate=self.sample_rate,
            path=str(self._new_path(take.capture)),
        )

    def _new_path(self, track: Track) -> Path:
        name = re.sub(r"[^\w .-]", "_", track.name)
        return self.folder / f"{name} {os.getpid()}-{next(self._numbers):06d}.wav"

    def _finish(self, clip: SongClip, job: SoundJob | None, error: str) -> None:
        if job is None or error:
            self.complain(f"Recording failed: {error}")
        else:
            clip.recorded_samples = round(job.duration_s * job.sample_rate)
            clip.recorded_rate = float(job.sample_rate)
            clip.recorded_path = job.path
        clip.is_recording = False


def _unmuted_note(clip: SongClip | None) -> Note:
    """The only note that is not muted; a note of velocity 0, which is silence, without one.

    Raises RuntimeError for two or more.
    """
    notes = [note for note in clip.notes if not note.mute] if clip else []
    if len(notes) > 1:
        raise RuntimeError(f"The embedded host plays one note a clip, not {len(notes)}")
    if not notes:
        return Note(60, 0.0, 0.0, 0.0, False)
    return notes[0]
