"""Recording one note on one lane.

Fire the note and a fixed-length capture in one datagram, wait, read the file.

Live records in real time and with some pre-roll, which `start_marker` tells; the embedded host is
done as soon as it has rendered. Slots are used in turn, so that an answer about one take can never
be taken for an answer about the next.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

import numpy as np
import soundfile
from numpy.typing import NDArray

from unmixer_core.errors import ConfigError, HostRefused, ReadbackMismatch, RecordingError
from unmixer_core.live.osc import wire
from unmixer_core.live.osc.client import Client
from unmixer_core.live.osc.wire import Message
from unmixer_core.live.track.lane import Lane

TEMPO_BPM = 120.0
BEATS_PER_S = TEMPO_BPM / 60.0
NOTE_SLOT = 0
NO_QUANTIZATION = 0
#: A capture that has not begun after this long will not begin (count-in, a stopped audio engine).
START_WITHIN_S = 3.0
FILE_WITHIN_S = 3.0
#: How much longer than real time a take may last (an embedded host on a busy machine is slow, not
#: stuck).
SLACK_S = 30.0
FIRST_POLL_S, LAST_POLL_S = 0.002, 0.1
ATTEMPTS = 4
ALL_NOTES = (0, 128, 0.0, 1000.0)
#: What a take's length and start hang on.
SONG = {"tempo": TEMPO_BPM, "clip_trigger_quantization": NO_QUANTIZATION}
#: The session's names of capture tracks: Live names a recording after its track.
CAPTURE_NAME = re.compile(r"Unmixer [0-9a-f]{4} \d+ capture")
#: CLOCK_REALTIME_COARSE.
LINUX_FILE_CLOCK = 5
LOCAL = ("127.0.0.1:", "localhost:")

Clip = NDArray[np.float32]


@dataclass(frozen=True)
class Take:
    """What to record: `sample_rate` in Hz expected of the file, `clip_s` seconds kept,
    `velocity` of the note.
    """

    sample_rate: int
    clip_s: float
    velocity: int = 100

    @property
    def samples(self) -> int:
        return round(self.clip_s * self.sample_rate)

    @property
    def beats(self) -> float:
        return self.clip_s * BEATS_PER_S


@dataclass(frozen=True)
class PathMap:
    """Live's folder → the same folder as this machine sees it, from
    UNMIXER_LIVE_RECORDINGS="/there=/here".
    """

    there: str = ""
    here: str = ""

    @classmethod
    def from_environment(cls) -> PathMap:
        return cls.parse(os.environ.get("UNMIXER_LIVE_RECORDINGS", ""), "UNMIXER_LIVE_RECORDINGS")

    @classmethod
    def parse(cls, text: str, where: str = "recordings") -> PathMap:
        """ "/there=/here" or "". Raises ConfigError that names `where` it stands."""
        if text and "=" not in text:
            raise ConfigError(
                f"{where} is {text!r}, but '<folder on Live's machine>=<the same folder here>' is "
                f"expected."
            )
        there, _, here = text.partition("=")
        return cls(there, here)

    def local(self, path: str) -> Path:
        folder = self.there.rstrip("/\\")
        rest = path[len(folder) :]
        if not self.there or not path.startswith(folder) or rest[:1] not in ("", "/", "\\"):
            return Path(path)
        return Path(self.here, *PureWindowsPath(rest.lstrip("/\\")).parts)


@dataclass
class Recorder:
    """Records takes on one lane.

    `expected_s`: how long the last takes lasted, which spares questions while waiting;
    `offset_samples`: how much later than its start marker a take really begins (see alignment.py);
    `started_s`: how long the last one took to start. `_given_up`: slot of a take that ended before
    the name of its file was known.
    """

    client: Client
    lane: Lane
    take: Take
    paths: PathMap
    scenes: int
    expected_s: float = 0.0
    offset_samples: int = 0
    started_s: float = 0.0
    delete_files: bool = False
    note: tuple[int, float] | None = None
    _slot: int = -1
    _given_up: int | None = None
    _seen: deque[str] = field(default_factory=lambda: deque(maxlen=64))

    async def prepare(self) -> None:
        """An empty note clip that plays once. Raises ReadbackMismatch when it is not there."""
        slot, beats = (self.lane.track, NOTE_SLOT), self._note_clip_beats
        for _ in range(ATTEMPTS):
            (there,) = await self.client.query("/live/clip_slot/get/has_clip", *slot)
            if there:
                break
            await self.client.send(("/live/clip_slot/create_clip", (*slot, beats)))
        else:
            raise ReadbackMismatch(f"no note clip could be made on track {self.lane.track + 1}.")
        for _ in range(ATTEMPTS):
            await self.client.send(("/live/clip/set/looping", (*slot, 0)))
            (looping,) = await self.client.query("/live/clip/get/looping", *slot)
            if not looping:
                return
        raise ReadbackMismatch(
            f"the note clip on track {self.lane.track + 1} cannot be set to play once."
        )

    @property
    def _note_clip_beats(self) -> float:
        return float(np.ceil(self.take.beats)) + 4.0

    @property
    def _record_beats(self) -> float:
        """What is asked for: the clip, and what comes late."""
        return self.take.beats + max(self.offset_samples, 0) / self.take.sample_rate * BEATS_PER_S

    async def record(self) -> Clip:
        """Plays and records: float32 [2, samples] from the note's start on.

        Raises RecordingError when the take does not start, does not end, or its file is not what
        was asked for.
        """
        try:
            return await self._record()
        except HostRefused:
            await self.lane.inspect()  # says so when the tracks are no longer ours
            raise

    async def _record(self) -> Clip:
        slot, mark, fired_at_s = (self.lane.capture, self._slot), self.client.mark, _file_time_s()
        repairs = self.client.repairs
        self._given_up = self._slot
        await self.capture(slot)
        (path,), (marker,), (warped,), _, _, _ = await asyncio.gather(
            self.client.query("/live/clip/get/file_path", *slot),
            self.client.query("/live/clip/get/start_marker", *slot),
            self.client.query("/live/clip/get/warping", *slot),
            self.lane.verify(),
            self._verify_note(),
            self._verify_song(repairs),
        )
        await self.client.send(*self.clear())
        self._check_new(path, mark)
        start_marker_s = float(marker) / (BEATS_PER_S if warped else 1.0)
        file = self.paths.local(path)
        try:
            clip = await self._read(file, start_marker_s)
            self._check_fresh(file, fired_at_s)
            return clip
        finally:
            if self.delete_files:
                with suppress(OSError, RecordingError):
                    self._check_fresh(
                        file, fired_at_s
                    )  # what is another recording is somebody else's to delete
                    file.unlink()

    async def capture(self, slot: tuple[int, int]) -> None:
        """Fires note and capture slot, and waits until the take has ended."""
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
        """Messages that stop both tracks, drop the captured clip and switch the devices off
        (which flushes tails).
        """
        return [
            ("/live/track/stop_all_clips", (self.lane.track,)),
            ("/live/track/stop_all_clips", (self.lane.capture,)),
            ("/live/clip_slot/delete_clip", (self.lane.capture, self._slot)),
            *self.lane.silence(),
        ]

    # -- before --------------------------------------------------------------------------------

    async def set_note(self, note: int, gate_s: float) -> None:
        """The note clip holds this one note, confirmed."""
        if self.note == (note, gate_s):
            return
        self.note = (note, gate_s)
        slot = (self.lane.track, NOTE_SLOT)
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

    async def _verify_note(self) -> None:
        if not await self._holds_note():
            raise ReadbackMismatch(
                f"the note clip of track {self.lane.track + 1} was changed while it was recorded."
            )

    async def _verify_song(self, repairs: int) -> None:
        """Tempo and quantisation are the session's, and were all the time since `repairs` was
        noted. If they are not they are put right for the next try; that spoils what other lanes
        have under way, which the count of repairs tells them.
        """
        kept = await asyncio.gather(*(self.client.query(f"/live/song/get/{key}") for key in SONG))
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

    async def _holds_note(self) -> bool:
        kept = await self.client.query(
            "/live/clip/get/notes", self.lane.track, NOTE_SLOT, extra=ALL_NOTES
        )
        return len(kept) == 5 and all(map(wire.same, kept[:4], self._event)) and not kept[4]

    @property
    def _event(self) -> tuple[int, float, float, int]:
        """Pitch, start and duration in beats, velocity."""
        assert self.note is not None
        return self.note[0], 0.0, self.note[1] * BEATS_PER_S, self.take.velocity

    async def next_slot(self) -> None:
        """Goes on to the next capture slot, which is empty, confirmed."""
        if self._given_up is not None:
            await self._leave(self._given_up)
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

    async def _leave(self, number: int) -> None:
        """A take that was given up may still be recorded.

        Its file would be as new as the next one's. Learns its name.

        Raises RecordingError while the host is still at it.
        """
        slot = (self.lane.capture, number)
        await self.client.send(("/live/track/stop_all_clips", slot[:1]))
        for _ in range(ATTEMPTS):
            (there,) = await self.client.query("/live/clip_slot/get/has_clip", *slot)
            path, recording = None, False
            if there:
                (path,), (recording,) = await asyncio.gather(
                    self.client.query("/live/clip/get/file_path", *slot),
                    self.client.query("/live/clip/get/is_recording", *slot),
                )
            if path or not recording:
                self._seen += [str(path)] if path else []
                self._given_up = None
                return
            await asyncio.sleep(LAST_POLL_S)
        raise RecordingError(
            f"the recording in slot {number + 1} of track {slot[0] + 1}, which was given up, did "
            f"not end since; "
            "is Live's transport running?"
        )

    # -- during --------------------------------------------------------------------------------

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
        """Asks when the take is due, by what the last one took, and then every twentieth of
        that.
        """
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

    # -- after ---------------------------------------------------------------------------------

    def _check_new(self, path: object, mark: int) -> None:
        """The file's name: there is one, no earlier take had it, and it is not another lane's."""
        if not isinstance(path, str) or not path:
            errors = self.client.errors_since(mark)
            because = f": it said {errors[-1].rstrip('.')!r}" if errors else ""
            raise RecordingError(
                f"the host names no file for the recorded clip{because}; look at the disk that "
                f"Live records to."
            )
        self._given_up = None
        if path in self._seen:
            raise RecordingError(
                f"the host names {path} for this take, which an earlier one recorded."
            )
        owner = CAPTURE_NAME.search(PureWindowsPath(path).name)
        if owner and owner[0] != self.lane.names[1]:
            raise RecordingError(
                f"the host names {path} for this take, which {owner[0]!r} recorded."
            )
        self._seen.append(path)

    def _check_fresh(self, file: Path, fired_at_s: float) -> None:
        """The file was written after the take began; only where host and client go by one clock."""
        try:
            age_s = fired_at_s - file.stat().st_mtime
        except OSError as error:
            raise RecordingError(f"{file} was taken away while it was read ({error}).") from error
        if age_s > 0.0 and self.client.where.startswith(LOCAL) and not self.paths.there:
            raise RecordingError(
                f"{file} was written {age_s:.3g} s before this take began: it is another recording."
            )

    async def _read(self, file: Path, start_marker_s: float) -> Clip:
        """The file's samples from the start marker on.

        Waits a little for a host that is still writing it.
        """
        give_up_s = time.monotonic() + FILE_WITHIN_S
        while True:
            try:
                return read_take(file, self.take, start_marker_s, self.offset_samples)
            except FileNotReady as error:
                if time.monotonic() > give_up_s:
                    raise RecordingError(
                        f"{error}; if Live runs on another machine, set UNMIXER_LIVE_RECORDINGS."
                    ) from error
            await asyncio.sleep(0.02)


def _file_time_s() -> float:
    """Now, by the clock that stamps files: Linux's runs a few milliseconds behind.

    Elsewhere some slack does as well.
    """
    return time.clock_gettime(LINUX_FILE_CLOCK) if sys.platform == "linux" else time.time() - 0.02


class FileNotReady(RecordingError):
    """The file is missing, locked or shorter than it will be: worth another look."""


def read_take(file: Path, take: Take, start_marker_s: float, offset_samples: int = 0) -> Clip:
    """Sound file → float32 [2, take.samples] from the marker and offset on, mono doubled.

    Raises FileNotReady, RecordingError (rate, channels).
    """
    try:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise FileNotReady(f"the recording {file} cannot be read ({error})") from error
    if rate != take.sample_rate:
        raise RecordingError(
            f"{file} has {rate} Hz, but {take.sample_rate} Hz is wanted: set it in Live's "
            f"Settings > Audio, or audio.sample_rate."
        )
    start = round(start_marker_s * rate) + offset_samples
    if start < 0 or len(samples) < start + take.samples:
        raise FileNotReady(
            f"{file} has {len(samples)} samples, but {take.samples} are wanted after a pre-roll "
            f"of {start}"
        )
    if samples.shape[1] not in (1, 2):
        raise RecordingError(
            f"{file} has {samples.shape[1]} channels, but a stereo recording is expected."
        )
    stereo = samples if samples.shape[1] == 2 else np.repeat(samples, 2, axis=1)
    return np.ascontiguousarray(stereo[start : start + take.samples].T)
