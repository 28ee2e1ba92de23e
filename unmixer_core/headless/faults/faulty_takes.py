"""Faults of recordings: what becomes of the file, of the process, and of the set while a take is
under way.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unmixer_core.headless.song.song import Song, SongDevice, Track
from unmixer_core.headless.sound.job import SoundJob
from unmixer_core.headless.sound.pool import Done, Takes

Setting = Mapping[str, float | str]
EVERY: dict[str, float | str] = {"take": 0.0, "note": 0.0, "once": ""}
TAKE_FAULTS: dict[str, dict[str, float | str]] = {
    # the process
    "crash": EVERY,  # it ends as if killed, the recording begun
    "stuck": EVERY,  # the recording never ends
    "realtime": EVERY,  # no fault: a take lasts as long as it sounds, as in Live
    # the file
    "full_disk": EVERY,  # nothing is written
    "missing": EVERY,  # the file that is named is not there
    "locked": EVERY | {"s": 0.0},  # it cannot be opened: for so long, 0 for good
    "short": EVERY,  # half as long as was asked for
    "long": EVERY,  # twice as long
    "cut": EVERY,  # its header promises more than there is
    "rate": EVERY | {"hz": 48000.0},  # of another rate
    "earlier": EVERY,  # the file that is named is the take's before this one
    "stale": EVERY,  # ... is a recording of yesterday
    # the set, while the take is recorded, as somebody at Live would change it
    "delete_track": EVERY | {"track": 4.0},
    "rename_track": EVERY | {"track": 4.0},
    "delete_device": EVERY | {"track": 4.0, "device": 1.0},
    "knob": EVERY | {"track": 4.0, "device": 0.0, "parameter": 1.0, "value": 0.0},
    "property": EVERY | {"track": 4.0, "device": 0.0, "name": "unison_mode", "value": 1.0},
    "modulation": EVERY
    | {"track": 4.0, "device": 0.0, "target": "Osc 1 Pos", "source": "LFO 1", "amount": 0.75},
    "tempo": EVERY | {"bpm": 60.0},
}
FILE_HEADER_BYTES = 58


class FaultyTakes:
    """Stands where the recorder expects the render pool."""

    def __init__(self, pool: Takes, song: Song, faults: Mapping[str, Setting]) -> None:
        self._pool, self._song, self._faults = pool, song, faults
        self._takes = 0
        self._named: dict[str, str] = {}  # path of a take → the path that is named instead
        self._before = ""

    def submit(self, job: SoundJob, done: Done) -> None:
        """Render a take with the faults that are due for it."""
        self._takes += 1
        due = {
            name: settings for name, settings in self._faults.items() if self._is_due(settings, job)
        }
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

    def named(self, reply: Sequence[Any]) -> tuple[Any, ...]:
        """The reply to file_path, with the path that the fault names."""
        return (*reply[:-1], self._named.get(reply[-1], reply[-1]))

    def _is_due(self, settings: Setting, job: SoundJob) -> bool:
        if settings["take"] not in (0.0, float(self._takes)) or settings["note"] not in (
            0.0,
            float(job.note),
        ):
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
        """After the render, in a thread of the pool.

        Spoils the file, and says that it is written, at `ends_s` or at once.
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
    """A link to itself, which even root cannot open."""
    hidden = path.with_name(f".{path.name}")
    os.replace(path, hidden)
    path.symlink_to(path)
    if settings["s"]:
        threading.Timer(float(settings["s"]), os.replace, (hidden, path)).start()


def _resized(path: Path, factor: float) -> None:
    """The same file with `factor` times the samples (the sound, then silence), its header true."""
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
    """A file of yesterday beside the take: its sound, softly backwards."""
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


_IN_THE_SET: dict[str, Callable[[Song, Setting], Any]] = {
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
