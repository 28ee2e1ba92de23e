"""Faults of recordings: of the file, of the process, and of the set while a take is recorded."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from unmixer_core.headless.song.devices import SongDevice
from unmixer_core.headless.song.song import Song
from unmixer_core.headless.song.tracks import Track
from unmixer_core.headless.song.values import Args
from unmixer_core.headless.sound.job import SoundJob
from unmixer_core.headless.sound.pool import Done, Takes

Setting = Mapping[str, float | str]
#: Which takes a fault affects: the number (0: all), the note (0: all), and the file of `once`.
EVERY: dict[str, float | str] = {"take": 0.0, "note": 0.0, "once": ""}
#: Settings of each fault of takes, with their defaults.
TAKE_FAULTS: dict[str, dict[str, float | str]] = {
    # the process
    "crash": EVERY,  # it is killed during the recording
    "stuck": EVERY,  # the recording never ends
    "realtime": EVERY,  # no fault: a take needs the time that it plays, as in Live
    # the file
    "full_disk": EVERY,  # nothing is written
    "missing": EVERY,  # the file that the reply names does not exist
    "locked": EVERY | {"s": 0.0},  # it cannot be opened for `s` seconds; 0: for ever
    "short": EVERY,  # half the requested length
    "long": EVERY,  # twice the requested length
    "cut": EVERY,  # its header gives more samples than the file has
    "rate": EVERY | {"hz": 48000.0},  # another sample rate
    "earlier": EVERY,  # the reply names the file of the take before
    "stale": EVERY,  # the reply names a recording of yesterday
    # the set, changed during the recording as by a user of Live
    "delete_track": EVERY | {"track": 4.0},
    "rename_track": EVERY | {"track": 4.0},
    "delete_device": EVERY | {"track": 4.0, "device": 1.0},
    "knob": EVERY | {"track": 4.0, "device": 0.0, "parameter": 1.0, "value": 0.0},
    "property": EVERY | {"track": 4.0, "device": 0.0, "name": "unison_mode", "value": 1.0},
    "modulation": EVERY
    | {"track": 4.0, "device": 0.0, "target": "Osc 1 Pos", "source": "LFO 1", "amount": 0.75},
    "tempo": EVERY | {"bpm": 60.0},
}
#: Size of the header of the WAV files that the workers write.
FILE_HEADER_BYTES = 58


class FaultyTakes:
    """A render pool with faults, in place of the recorder's own."""

    def __init__(self, pool: Takes, song: Song, faults: Mapping[str, Setting]) -> None:
        self._pool = pool
        self._song = song
        self._faults = faults
        self._takes = 0
        #: Path of a take → the path that replies name instead.
        self._named: dict[str, str] = {}
        #: Path of the last take.
        self._before = ""

    def submit(self, job: SoundJob, done: Done) -> None:
        """Render a take with the faults that are due for it."""
        self._takes += 1
        due: dict[str, Setting] = {}
        for name, settings in self._faults.items():
            if self._is_due(settings, job):
                due[name] = settings
        for name, settings in due.items():
            if name in _IN_THE_SET:
                _IN_THE_SET[name](self._song, settings)
        if "crash" in due:
            os.kill(os.getpid(), signal.SIGKILL)
        if "stuck" in due:
            return
        if "full_disk" in due:
            done(f"OSError: [Errno 28] No space left on device: {job.path!r}")
            return
        self._name(job.path, due)
        ends_s = time.monotonic() + job.duration_s if "realtime" in due else 0.0
        self._pool.submit(
            job, lambda error: self._finished(job, due, lambda: done(error), error, ends_s)
        )

    def named(self, reply: Args) -> Args:
        """The reply to file_path, with the path that a fault puts there."""
        path = reply[-1]
        if isinstance(path, str):
            path = self._named.get(path, path)
        return (*reply[:-1], path)

    def _is_due(self, settings: Setting, job: SoundJob) -> bool:
        if settings["take"] not in (0.0, float(self._takes)):
            return False
        if settings["note"] not in (0.0, float(job.note)):
            return False
        once = Path(str(settings["once"]))
        if not settings["once"]:
            return True
        if once.exists():
            return False
        once.touch()
        return True

    def _name(self, path: str, due: Mapping[str, Setting]) -> None:
        if "earlier" in due and self._before:
            self._named[path] = self._before
        if "stale" in due:
            self._named[path] = str(Path(path).with_name("Yesterday.wav"))
        self._before = path

    def _finished(
        self,
        job: SoundJob,
        due: Mapping[str, Setting],
        done: Callable[[], None],
        error: str,
        ends_s: float,
    ) -> None:
        """Apply the faults of the file, and call `done` at `ends_s` (monotonic clock) or at once.

        Called after the render, in a thread of the pool.
        """
        path = Path(job.path)
        for name in due:
            if name in _IN_THE_FILE and not error:
                _IN_THE_FILE[name](path, due[name])
        later = threading.Timer(max(0.0, ends_s - time.monotonic()), done)
        later.daemon = True
        later.start()


# the file


def _missing(path: Path, _: Setting) -> None:
    path.unlink()


def _locked(path: Path, settings: Setting) -> None:
    """Replace the file by a symbolic link to itself, which even root cannot open."""
    hidden = path.with_name(f".{path.name}")
    os.replace(path, hidden)
    path.symlink_to(path)
    if settings["s"]:
        threading.Timer(float(settings["s"]), os.replace, (hidden, path)).start()


def _resized(path: Path, factor: float) -> None:
    """Change the length by `factor`: cut the sound, or append silence. The header stays valid."""
    data = path.read_bytes()
    header, sound = data[:FILE_HEADER_BYTES], data[FILE_HEADER_BYTES:]
    size = int(len(sound) // 8 * factor) * 8
    riff = (FILE_HEADER_BYTES - 8 + size).to_bytes(4, "little")
    header = header[:4] + riff + header[8:-4] + size.to_bytes(4, "little")
    path.write_bytes(header + sound[:size].ljust(size, b"\0"))


def _cut(path: Path, _: Setting) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def _rate(path: Path, settings: Setting) -> None:
    with path.open("r+b") as file:
        file.seek(24)
        file.write(int(float(settings["hz"])).to_bytes(4, "little"))


def _stale(path: Path, _: Setting) -> None:
    """Write a file of yesterday beside the take, with the bytes of its sound reversed."""
    yesterday = path.with_name("Yesterday.wav")
    data = path.read_bytes()
    yesterday.write_bytes(data[:FILE_HEADER_BYTES] + data[FILE_HEADER_BYTES:][::-1])
    then_s = path.stat().st_mtime - 86400.0
    os.utime(yesterday, (then_s, then_s))


_IN_THE_FILE: dict[str, Callable[[Path, Setting], None]] = {
    "missing": _missing,
    "locked": _locked,
    "short": lambda path, _: _resized(path, 0.5),
    "long": lambda path, _: _resized(path, 2.0),
    "cut": _cut,
    "rate": _rate,
    "stale": _stale,
}


# the set


def _track(song: Song, at: Setting) -> Track:
    return song.track(int(at["track"]))


def _device(song: Song, at: Setting) -> SongDevice:
    return _track(song, at).devices[int(at["device"])]


def _knob(song: Song, at: Setting) -> None:
    device = _device(song, at)
    device.set_value(device.parameters[int(at["parameter"])], float(at["value"]))


_IN_THE_SET: dict[str, Callable[[Song, Setting], object]] = {
    "delete_track": lambda song, at: song.delete_track(int(at["track"])),
    "rename_track": lambda song, at: _track(song, at).assign("name", "My drums"),
    "delete_device": lambda song, at: _track(song, at).devices.remove(_device(song, at)),
    "knob": _knob,
    "property": lambda song, at: _device(song, at).set_property(str(at["name"]), int(at["value"])),
    "modulation": lambda song, at: _device(song, at).set_modulation(
        str(at["target"]), str(at["source"]), at["amount"]
    ),
    "tempo": lambda song, at: song.assign("tempo", float(at["bpm"])),
}
