"""The service's folder: claimed with a marker, never somebody else's, never cleared through links.

A folder without the marker is claimed when it is new or empty, or when it is that of an earlier
version: jobs.sqlite with our columns, and nothing else but what the service writes.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from unmixer_core.errors import ConfigError, UnmixerError
from unmixer_core.recording.sound_file import shown
from unmixer_core.system import files

MARKER = ".unmix-service"
#: What `secrets.token_hex(8)` makes.
JOB_ID = re.compile(r"[0-9a-f]{16}")
#: A stored id is used as a folder's name: no dot and no separator.
SAFE_ID = re.compile(r"[0-9A-Za-z]{1,64}")
#: Renders, and what a killed renderer left of one under a temporary name.
RENDER = re.compile(r"\.?[0-9a-f]{16}\.wav(\.tmp)?|\.{1,2}[0-9a-f]{16}\.[0-9a-f]{12}\..*tmp.*")
DATABASE = "jobs.sqlite"
FILES = (MARKER, "lock", DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal")
FOLDERS = ("jobs", "renders")
COLUMNS = {"number", "id", "name", "state", "options", "heard", "progress", "message"} | {
    "created_s",
    "started_s",
    "finished_s",
    "attempts",
    "bytes",
}


def claim(folder: Path) -> None:
    """Make `folder` the service's.

    Raises ConfigError, before anything is touched, when it is not; sqlite3.DatabaseError when
    its jobs.sqlite is damaged; PermissionError when it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(f"{shown(folder)} is not a folder; set UNMIXER_SERVE_FOLDER.") from None
    for name in FILES:
        path = folder / name
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise _foreign(path)
    for name in FOLDERS:
        path = folder / name
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise _foreign(path)
    if (folder / MARKER).exists():
        return
    there = _stranger(folder)
    if there is not None:
        raise _foreign(there)
    files.write_text(folder / MARKER, "The Neural Un-Mixer's service keeps its jobs here.\n")


def check_id(identity: str) -> None:
    """Raise UnmixerError when a stored job id is not a plain name."""
    if not SAFE_ID.fullmatch(identity):
        raise ConfigError(
            f"{DATABASE} holds a job id that is not ours ({identity!r:.80}); "
            f"move it away to start anew."
        )


def discard(root: Path, path: Path) -> None:
    """Delete the folder `path` below `root` as far as possible, never through a link."""
    below = path.relative_to(root)
    place = root
    for part in below.parts:
        place = place / part
        if part == ".." or os.path.islink(place):
            return
    shutil.rmtree(path, ignore_errors=True)


def _stranger(folder: Path) -> Path | None:
    """Something in a folder without marker that the service did not write, if there is."""
    names = set(os.listdir(folder))
    if names <= {"lock"}:
        return None
    for name in sorted(names - set(FILES) - set(FOLDERS)):
        return folder / name
    for name, ours in (("jobs", JOB_ID), ("renders", RENDER)):
        if name not in names:
            continue
        for path in sorted((folder / name).iterdir()):
            if path.is_symlink() or not ours.fullmatch(path.name):
                return path
    if DATABASE not in names or not _is_ours(folder / DATABASE):
        return folder / min(names)
    return None


def _is_ours(database: Path) -> bool:
    with closing(sqlite3.connect(database)) as opened:
        rows = opened.execute("PRAGMA table_info(jobs)").fetchall()
    return {row[1] for row in rows} == COLUMNS


def _foreign(path: Path) -> UnmixerError:
    return ConfigError(
        f"{shown(path)} is not the service's; set UNMIXER_SERVE_FOLDER to a new folder."
    )
