"""Recording one note on one lane.

The note and a capture of fixed length are fired in one datagram. Then the recorder waits until the
take has ended and reads its file.

Live records in real time and with some pre-roll, which `start_marker` gives; the embedded host is
done as soon as it has rendered. Capture slots are used in turn, so that a late answer about one
take never passes for an answer about the next.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from unmixer_core.errors import HostRefused, RecordingError
from unmixer_core.live.osc import wire
from unmixer_core.live.osc.client import Client
from unmixer_core.live.osc.wire import Message
from unmixer_core.live.session.note_clip import NOTE_SLOT, NoteClip
from unmixer_core.live.session.recordings import Recordings, file_clock_s
from unmixer_core.live.session.take import BEATS_PER_S, TEMPO_BPM, Clip, Take
from unmixer_core.live.track.lane import Lane

NO_QUANTIZATION = 0
#: A capture that has not begun after this long will not begin (count-in, a stopped audio engine).
START_WITHIN_S = 3.0
#: How much longer than real time a take may last: an embedded host on a busy machine is slow.
SLACK_S = 30.0
#: The pause between two questions grows from the first to the last of these.
FIRST_POLL_S = 0.002
LAST_POLL_S = 0.1
ATTEMPTS = 4
#: Song settings on which a take's length and start depend.
SONG = {"tempo": TEMPO_BPM, "clip_trigger_quantization": NO_QUANTIZATION}


@dataclass
class Recorder:
    """Records takes on one lane.

    `scenes`: number of capture slots; `expected_s`: duration of the last take, which saves
    questions while waiting; `offset_samples`: how much later than its start marker a take begins
    (see alignment.py); `started_s`: how long the last take took to start.
    """

    client: Client
    lane: Lane
    take: Take
    note: NoteClip
    files: Recordings
    scenes: int
    expected_s: float = 0.0
    offset_samples: int = 0
    started_s: float = 0.0
    _slot: int = -1
    #: Slot of a take that ended before the name of its file was known.
    _given_up: int | None = None

    @property
    def _record_beats(self) -> float:
        """Length of the capture: the clip, and the samples by which it comes late."""
        return self.take.beats + max(self.offset_samples, 0) / self.take.sample_rate * BEATS_PER_S

    async def record(self) -> Clip:
        """Play and record: float32 [2, samples] from the note's start on.

        Raises RecordingError when the take does not start, does not end, or its file is not the
        expected one.
        """
        try:
            return await self._record()
        except HostRefused:
            # Raises the better error when the tracks are no longer ours.
            await self.lane.inspect()
            raise

    async def _record(self) -> Clip:
        slot = (self.lane.capture, self._slot)
        mark = self.client.mark
        fired_at_s = file_clock_s()
        repairs = self.client.repairs
        self._given_up = self._slot
        await self.capture(slot)
        (path,), (marker,), (warped,), _, _, _ = await asyncio.gather(
            self.client.query("/live/clip/get/file_path", *slot),
            self.client.query("/live/clip/get/start_marker", *slot),
            self.client.query("/live/clip/get/warping", *slot),
            self.lane.verify(),
            self.note.verify(),
            self._verify_song(repairs),
        )
        await self.client.send(*self.clear())
        name = self._named(path, mark)
        self._given_up = None
        file = self.files.accept(name)
        # A warped clip has its marker in beats.
        start_marker_s = float(marker) / (BEATS_PER_S if warped else 1.0)
        return await self.files.read(file, start_marker_s, self.offset_samples, fired_at_s)

    async def capture(self, slot: tuple[int, int]) -> None:
        """Fire note and capture slot, and wait until the take has ended."""
        start_s = time.monotonic()
        await self.client.send(
            ("/live/clip_slot/fire", (self.lane.track, NOTE_SLOT)),
            ("/live/clip_slot/fire", (*slot, self._record_beats, NO_QUANTIZATION)),
            alone=True,
        )
        await self._started(slot, start_s)
        await self._ended(slot, start_s)
        self.expected_s = time.monotonic() - start_s

    def clear(self) -> list[Message]:
        """Messages that stop both tracks, delete the captured clip and switch the devices off.

        Switching a device off flushes its tail.
        """
        return [
            ("/live/track/stop_all_clips", (self.lane.track,)),
            ("/live/track/stop_all_clips", (self.lane.capture,)),
            ("/live/clip_slot/delete_clip", (self.lane.capture, self._slot)),
            *self.lane.silence(),
        ]

    async def _verify_song(self, repairs: int) -> None:
        """Raise RecordingError when tempo or quantisation changed since `repairs` was counted.

        A changed setting is repaired for the next try. The repair spoils the takes of other lanes,
        which notice it by the count of repairs.
        """
        questions = [self.client.query(f"/live/song/get/{key}") for key in SONG]
        kept = await asyncio.gather(*questions)
        for (key, wanted), (value,) in zip(SONG.items(), kept, strict=True):
            if not wire.same(float(value), float(wanted)):
                self.client.repairs += 1
                await self.client.send((f"/live/song/set/{key}", (wanted,)))
                raise RecordingError(
                    f"the set's {key} was changed from {wanted:g} to {value:g}: leave it alone "
                    f"while a render runs."
                )
        if self.client.repairs != repairs:
            raise RecordingError(
                "the set's tempo or quantisation was changed while a take was recorded."
            )

    async def next_slot(self) -> None:
        """Go on to the next capture slot and make sure that it is empty."""
        if self._given_up is not None:
            await self._abandon_take(self._given_up)
        self._slot = (self._slot + 1) % self.scenes
        slot = (self.lane.capture, self._slot)
        for _ in range(ATTEMPTS):
            (full,) = await self.client.query("/live/clip_slot/get/has_clip", *slot)
            if not full:
                return
            await self.client.send(
                ("/live/track/stop_all_clips", slot[:1]), ("/live/clip_slot/delete_clip", slot)
            )
        raise RecordingError(
            f"slot {self._slot + 1} of capture track {slot[0] + 1} cannot be emptied."
        )

    async def _abandon_take(self, number: int) -> None:
        """Learn the file name of a take that was given up.

        It may still be recorded, and its file would be as new as the next one's. Raises
        RecordingError while the host still records it.
        """
        slot = (self.lane.capture, number)
        await self.client.send(("/live/track/stop_all_clips", slot[:1]))
        for _ in range(ATTEMPTS):
            (there,) = await self.client.query("/live/clip_slot/get/has_clip", *slot)
            path, recording = None, False
            if there:
                replies = await asyncio.gather(
                    self.client.query("/live/clip/get/file_path", *slot),
                    self.client.query("/live/clip/get/is_recording", *slot),
                )
                path = replies[0][0]
                recording = bool(replies[1][0])
            if path or not recording:
                if path:
                    self.files.remember(str(path))
                self._given_up = None
                return
            await asyncio.sleep(LAST_POLL_S)
        raise RecordingError(
            f"the recording in slot {number + 1} of track {slot[0] + 1}, which was given up, did "
            f"not end since; "
            "is Live's transport running?"
        )

    async def _started(self, slot: tuple[int, int], start_s: float) -> None:
        wait_s = FIRST_POLL_S
        while True:
            (there,) = await self.client.query("/live/clip_slot/get/has_clip", *slot)
            if there:
                self.started_s = time.monotonic() - start_s
                return
            if time.monotonic() - start_s > START_WITHIN_S:
                raise RecordingError(
                    f"the recording did not start within {START_WITHIN_S:g} s: set Record > "
                    f"Count-In to None, "
                    "check that Live's audio engine is on and that Start Recording needs no other "
                    "track."
                )
            await asyncio.sleep(wait_s)
            wait_s = min(2.0 * wait_s, LAST_POLL_S)

    async def _ended(self, slot: tuple[int, int], start_s: float) -> None:
        """Ask first at 0.8 of the last take's duration, then after each twentieth of it."""
        await asyncio.sleep(max(0.0, 0.8 * self.expected_s - (time.monotonic() - start_s)))
        patience_s = self.take.clip_s + SLACK_S + 4.0 * self.expected_s
        wait_s = max(0.05 * self.expected_s, FIRST_POLL_S)
        while True:
            try:
                (recording,) = await self.client.query("/live/clip/get/is_recording", *slot)
            except HostRefused as error:
                raise RecordingError(
                    f"the clip that was being recorded is gone ({error})."
                ) from error
            if not recording:
                return
            if time.monotonic() - start_s > patience_s:
                raise RecordingError(
                    f"the recording did not end within {patience_s:.0f} s; is Live's transport "
                    f"running?"
                )
            await asyncio.sleep(wait_s)
            wait_s = min(1.3 * wait_s, LAST_POLL_S)

    def _named(self, path: object, mark: int) -> str:
        """The file's name. Raises RecordingError when the host gives none."""
        if isinstance(path, str) and path:
            return path
        errors = self.client.errors_since(mark)
        because = f": it said {errors[-1].rstrip('.')!r}" if errors else ""
        raise RecordingError(
            f"the host names no file for the recorded clip{because}; look at the disk that "
            f"Live records to."
        )
