"""Recorded files: their names come from the host, so no name is trusted.

Any process that can send to the reply port can name any file. A recording is therefore deleted only
when it was read as this take, lies in the session's own folder after all links are resolved, and
carries the name of the session's capture track.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from unmixer_core.errors import ConfigError, RecordingError
from unmixer_core.live.session.take import Clip, FileNotReady, Take, read_take

log = logging.getLogger(__name__)

#: How long a host may still be writing the file after the take has ended.
FILE_WITHIN_S = 3.0
POLL_S = 0.02
#: The session's names of capture tracks: Live names a recording after its track.
CAPTURE_NAME = re.compile(r"Unmixer [0-9a-f]{4} \d+ capture")
#: CLOCK_REALTIME_COARSE, which stamps files on Linux.
LINUX_FILE_CLOCK = 5
#: Elsewhere the clock that stamps files may run this much behind.
FILE_CLOCK_SLACK_S = 0.02


@dataclass(frozen=True)
class PathMap:
    """Live's folder → the same folder on this machine.

    Set by UNMIXER_LIVE_RECORDINGS="/there=/here". Without folders a path stays as it is.
    """

    there: str = ""
    here: str = ""

    @classmethod
    def from_environment(cls) -> PathMap:
        return cls.parse(os.environ.get("UNMIXER_LIVE_RECORDINGS", ""), "UNMIXER_LIVE_RECORDINGS")

    @classmethod
    def parse(cls, text: str, where: str = "recordings") -> PathMap:
        """Parse "/there=/here" or "". Raises ConfigError, which names the setting `where`."""
        if text and "=" not in text:
            raise ConfigError(
                f"{where} is {text!r}, but '<folder on Live's machine>=<the same folder here>' is "
                f"expected."
            )
        there, _, here = text.partition("=")
        return cls(there, here)

    @property
    def one_machine(self) -> bool:
        """Whether Live's paths are this machine's paths."""
        return not self.there or self.there == self.here

    def local(self, path: str) -> Path:
        """The host's path on this machine.

        Raises RecordingError for a path with `..` and for one outside the mapped folder.
        """
        if ".." in PureWindowsPath(path).parts:
            raise RecordingError(f"the host names {path} for a recording, which has '..' in it.")
        if not self.there:
            return Path(path)
        folder = self.there.rstrip("/\\")
        rest = path[len(folder) :]
        inside = path.startswith(folder) and rest[:1] in ("", "/", "\\")
        # PureWindowsPath splits at both kinds of slashes.
        local = Path(self.here, *PureWindowsPath(rest.lstrip("/\\")).parts)
        if not inside or not local.resolve().is_relative_to(Path(self.here).resolve()):
            raise RecordingError(
                f"the host names {path} for a recording, which is outside {self.there}, the "
                f"folder that UNMIXER_LIVE_RECORDINGS maps."
            )
        return local


@dataclass
class Recordings:
    """The files that one capture track records.

    `capture_name`: the capture track's name; `own_folder`: the only folder in which files are
    deleted after they were read (None: all files stay); `same_clock`: host and client stamp files
    by one clock.
    """

    take: Take
    paths: PathMap
    capture_name: str
    own_folder: Path | None = None
    same_clock: bool = False
    _names: deque[str] = field(default_factory=lambda: deque(maxlen=64))

    def remember(self, path: str) -> None:
        """Refuse this path for later takes."""
        self._names.append(path)

    def accept(self, path: str) -> Path:
        """The file that the host names for a new take.

        Raises RecordingError when an earlier take or another capture track recorded it, and when
        it is outside the mapped folder.
        """
        if path in self._names:
            raise RecordingError(
                f"the host names {path} for this take, which an earlier one recorded."
            )
        owner = CAPTURE_NAME.search(PureWindowsPath(path).name)
        if owner and owner[0] != self.capture_name:
            raise RecordingError(
                f"the host names {path} for this take, which {owner[0]!r} recorded."
            )
        self.remember(path)
        return self.paths.local(path)

    async def read(
        self, file: Path, start_marker_s: float, offset_samples: int, fired_at_s: float
    ) -> Clip:
        """Read the take, then delete its file if it is the session's own.

        `fired_at_s`: when the take began, by `file_clock_s`. Raises RecordingError.
        """
        clip = await self._read(file, start_marker_s, offset_samples)
        self._check_fresh(file, fired_at_s)
        self._delete(file)
        return clip

    async def _read(self, file: Path, start_marker_s: float, offset_samples: int) -> Clip:
        """Wait a little for a host that is still writing the file."""
        give_up_s = time.monotonic() + FILE_WITHIN_S
        while True:
            try:
                return read_take(file, self.take, start_marker_s, offset_samples)
            except FileNotReady as error:
                if time.monotonic() > give_up_s:
                    raise RecordingError(
                        f"{error}; if Live runs on another machine, set UNMIXER_LIVE_RECORDINGS."
                    ) from error
            await asyncio.sleep(POLL_S)

    def _check_fresh(self, file: Path, fired_at_s: float) -> None:
        """Raise RecordingError when the file was written before the take began."""
        try:
            age_s = fired_at_s - file.stat().st_mtime
        except OSError as error:
            raise RecordingError(f"{file} was taken away while it was read ({error}).") from error
        if age_s > 0.0 and self.same_clock and self.paths.one_machine:
            raise RecordingError(
                f"{file} was written {age_s:.3g} s before this take began: it is another recording."
            )

    def _delete(self, file: Path) -> None:
        if self.own_folder is None:
            return
        try:
            resolved = file.resolve(strict=True)
            own = resolved.is_relative_to(self.own_folder.resolve(strict=True))
            if own and self.capture_name in resolved.name and resolved.is_file():
                resolved.unlink()
            else:
                log.warning("%s is not a recording in %s: it stays", file, self.own_folder)
        except OSError as error:
            log.debug("%s could not be deleted: %s", file, error)


def file_clock_s() -> float:
    """Now, by the clock that stamps files; Linux's runs a few milliseconds behind."""
    if sys.platform == "linux":
        return time.clock_gettime(LINUX_FILE_CLOCK)
    return time.time() - FILE_CLOCK_SLACK_S
