"""Firing clips: a note clip and an empty slot of an armed audio track that listens to its lane
make one render.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unmixer_core.errors import HostError
from unmixer_core.headless.song.routing import sound_into
from unmixer_core.headless.song.song import ClipSlot, Note, Song, SongClip, Track
from unmixer_core.headless.sound.job import SoundJob
from unmixer_core.headless.sound.pool import Takes

#: How long a recording waits for a note clip that is fired in a later message; then it records
#: silence.
PATIENCE_S = 1.0


@dataclass
class HostTake:
    """A recording that was fired and waits for its lane's note clip."""

    clip: SongClip
    capture: Track
    beats: float
    deadline_s: float


class HostRecorder:
    """Launches what is fired. `complain(sentence)` reports a render that failed.

    `latency_samples`: how much later than asked notes sound, as through an audio interface or a
    device's look-ahead.
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
        self.song, self.pool, self.folder, self.sample_rate, self.complain = (
            song,
            pool,
            folder,
            sample_rate,
            complain,
        )
        self._numbers = itertools.count(1)
        self._waiting: list[HostTake] = []
        self._fired: dict[
            int, SongClip
        ] = {}  # by id of the lane's track: the note clip that started and was not recorded yet

    def fire(self, slot: ClipSlot, args: Sequence[Any]) -> None:
        """Plays the slot's clip, or records `args[0]` beats into an empty slot of an armed audio
        track.
        """
        if slot.clip is not None:
            if args:
                raise RuntimeError("Cannot pass record_length to a non-empty slot")
            self._play(slot)
        elif slot.track.arm and not slot.track.is_midi:
            if not args or args[0] <= 0:
                raise RuntimeError("The embedded host records only with a record_length in beats")
            self._record(slot, float(args[0]))

    def launch(self) -> None:
        """Starts the renders whose note clip is playing, and those that waited too long.

        Called after each message or bundle and while nothing comes.
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
        slot.clip.is_playing = self.song.is_playing = True
        slot.track.playing_slot_index = slot.track.clip_slots.index(slot)
        if slot.clip.is_midi_clip:
            self._fired[id(slot.track)] = slot.clip

    def _record(self, slot: ClipSlot, beats: float) -> None:
        clip = slot.clip = SongClip(beats, is_midi_clip=False)
        clip.is_recording = clip.is_playing = self.song.is_playing = True
        self._waiting.append(HostTake(clip, slot.track, beats, time.monotonic() + PATIENCE_S))

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
        sounding = [note for note in notes.notes if not note.mute] if notes else []
        if len(sounding) > 1:
            raise RuntimeError(f"The embedded host plays one note a clip, not {len(sounding)}")
        note = sounding[0] if sounding else Note(60, 0.0, 0.0, 0.0, False)
        return SoundJob(
            devices=[
                device.sounding.to_dict() for device in sound_into(self.song, take.capture)[1]
            ],
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
            clip.recorded_samples, clip.recorded_rate = (
                round(job.duration_s * job.sample_rate),
                float(job.sample_rate),
            )
            clip.recorded_path = job.path
        clip.is_recording = False
