"""The MIDI clip that holds the one note of a take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unmixer_core.errors import ReadbackMismatch
from unmixer_core.live.osc import wire
from unmixer_core.live.osc.client import Client
from unmixer_core.live.session.take import BEATS_PER_S, Take
from unmixer_core.live.track.lane import Lane

NOTE_SLOT = 0
ATTEMPTS = 4
#: Beats by which the note clip is longer than the take.
SPARE_BEATS = 4.0
#: First pitch, number of pitches, first beat, number of beats: every note that a clip can hold.
ALL_NOTES = (0, 128, 0.0, 1000.0)
#: Pitch, start, duration, velocity, mute: AbletonOSC's values of one note.
VALUES_PER_NOTE = 5


@dataclass
class NoteClip:
    """One note in slot NOTE_SLOT of a lane's track.

    `note`: the confirmed (pitch, gate in seconds), None when it is unknown.
    """

    client: Client
    lane: Lane
    take: Take
    note: tuple[int, float] | None = None

    @property
    def slot(self) -> tuple[int, int]:
        return self.lane.track, NOTE_SLOT

    async def prepare(self) -> None:
        """Make an empty clip that plays once. Raises ReadbackMismatch when it is not there."""
        slot = self.slot
        beats = float(np.ceil(self.take.beats)) + SPARE_BEATS
        for _ in range(ATTEMPTS):
            (exists,) = await self.client.query("/live/clip_slot/get/has_clip", *slot)
            if exists:
                break
            await self.client.send(("/live/clip_slot/create_clip", (*slot, beats)))
        else:
            raise ReadbackMismatch(f"no note clip could be made on track {slot[0] + 1}.")
        for _ in range(ATTEMPTS):
            await self.client.send(("/live/clip/set/looping", (*slot, 0)))
            (looping,) = await self.client.query("/live/clip/get/looping", *slot)
            if not looping:
                return
        raise ReadbackMismatch(f"the note clip on track {slot[0] + 1} cannot be set to play once.")

    async def set(self, note: int, gate_s: float) -> None:
        """Make `note` (MIDI number, `gate_s` seconds) the only note of the clip.

        Raises ReadbackMismatch.
        """
        if self.note == (note, gate_s):
            return
        self.note = (note, gate_s)
        slot = self.slot
        for _ in range(ATTEMPTS):
            await self.client.send(
                ("/live/clip/remove/notes", (*slot, *ALL_NOTES)),
                ("/live/clip/add/notes", (*slot, *self._event, False)),
            )
            if await self._holds_note():
                return
        self.note = None
        raise ReadbackMismatch(
            f"the note clip of track {slot[0] + 1} does not keep note {note} for {gate_s:g} s."
        )

    async def verify(self) -> None:
        """Raise ReadbackMismatch when the clip holds other notes than the one that was set."""
        if not await self._holds_note():
            raise ReadbackMismatch(
                f"the note clip of track {self.lane.track + 1} was changed while it was recorded."
            )

    async def _holds_note(self) -> bool:
        read = await self.client.query("/live/clip/get/notes", *self.slot, extra=ALL_NOTES)
        if len(read) != VALUES_PER_NOTE:
            return False
        *values, muted = read
        return all(map(wire.same, values, self._event)) and not muted

    @property
    def _event(self) -> tuple[int, float, float, int]:
        """Pitch, start and duration in beats, velocity."""
        assert self.note is not None
        pitch, gate_s = self.note
        return pitch, 0.0, gate_s * BEATS_PER_S, self.take.velocity
