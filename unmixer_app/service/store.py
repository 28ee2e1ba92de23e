"""The jobs, in one SQLite file.

A bounded queue that outlives the process, and what became of each job.

One process writes (the file lock in `Store.open` sees to it); with a write-ahead log a killed
process loses nothing that was accepted. Times are seconds since 1970.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

from filelock import FileLock, Timeout

from unmixer_app.service import folder as service_folder
from unmixer_core.errors import ConfigError, UnmixerError
from unmixer_core.system.json_types import Json

#: Values that SQLite stores.
SqlValue = str | int | float | None
State = Literal["queued", "running", "done", "failed", "cancelled"]
WAITING: Final = "queued"
RUNNING: Final = "running"
DONE: Final = "done"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
STATES = get_args(State)
ENDED = (DONE, FAILED, CANCELLED)
#: Starts of one job, after which a job that takes its process down with it is given up.
ATTEMPTS = 3
TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL,
  name TEXT NOT NULL, state TEXT NOT NULL,
  options TEXT NOT NULL, heard TEXT NOT NULL, progress TEXT NOT NULL, message TEXT NOT NULL,
  created_s REAL NOT NULL, started_s REAL, finished_s REAL,
  attempts INTEGER NOT NULL, bytes INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_state ON jobs (state, number);
"""


class QueueFull(UnmixerError):
    """As many jobs wait as may."""


@dataclass(frozen=True)
class QueuedJob:
    """`heard`: what was noticed when the sound was read; `progress`: step, seconds, renders, best.

    `message`: why it failed; `bytes`: what its folder takes on disk.
    """

    id: str
    name: str
    options: Json
    heard: Json
    state: State = WAITING
    progress: Json = field(default_factory=dict)
    message: str = ""
    created_s: float = field(default_factory=time.time)
    started_s: float | None = None
    finished_s: float | None = None
    attempts: int = 0
    bytes: int = 0

    @property
    def ended(self) -> bool:
        return self.state in ENDED


COLUMNS = tuple(QueuedJob.__dataclass_fields__)
DOCUMENTS = ("options", "heard", "progress")


class Store:
    """All methods are short and belong to one thread."""

    def __init__(self, path: Path, limit: int) -> None:
        self.limit = limit
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(TABLE)

    @classmethod
    @contextmanager
    def open(cls, folder: Path, limit: int) -> Iterator[Store]:
        """The store of a folder, `limit` waiting jobs at most.

        Raises ConfigError when it is in use, damaged or not writable.
        """
        try:
            service_folder.claim(folder)
            with FileLock(folder / "lock", timeout=0):
                store = cls(folder / "jobs.sqlite", limit)
                try:
                    for identity in store.ids():
                        service_folder.check_id(identity)
                    yield store
                finally:
                    store.close()
        except Timeout:
            raise ConfigError(
                f"another service uses {folder}; stop it, or set UNMIXER_SERVE_FOLDER."
            ) from None
        except sqlite3.DatabaseError as error:
            raise ConfigError(
                f"{folder / 'jobs.sqlite'} cannot be used ({error}); move it away to start anew."
            ) from None
        except PermissionError:
            raise ConfigError(f"{folder} cannot be written; set UNMIXER_SERVE_FOLDER.") from None

    def close(self) -> None:
        self._db.close()

    def check_room(self) -> None:
        """Raises QueueFull."""
        if self.counts()[WAITING] >= self.limit:
            raise QueueFull(f"{self.limit} sounds are waiting already; try again in a minute.")

    def add(self, job: QueuedJob) -> None:
        """Accept a job. Raises QueueFull."""
        self.check_room()
        marks = ", ".join("?" * len(COLUMNS))
        self._db.execute(f"INSERT INTO jobs ({', '.join(COLUMNS)}) VALUES ({marks})", _row(job))

    def claim(self) -> QueuedJob | None:
        """The job that has waited longest, now running; None when none waits."""
        found = self._db.execute(
            "SELECT id FROM jobs WHERE state = ? ORDER BY number LIMIT 1", (WAITING,)
        ).fetchone()
        if found is None:
            return None
        self._db.execute(
            "UPDATE jobs SET state = ?, started_s = ?, attempts = attempts + 1, progress = '{}' "
            "WHERE id = ?",
            (RUNNING, time.time(), found[0]),
        )
        return self.get(found[0])

    def progress(self, identity: str, progress: Json) -> None:
        self._db.execute(
            "UPDATE jobs SET progress = ? WHERE id = ?", (json.dumps(progress), identity)
        )

    def put_back(self, identity: str, counted: bool = True) -> None:
        """A running job waits again, at its old place.

        `counted`: the start counts as one of its attempts.
        """
        self._db.execute(
            "UPDATE jobs SET state = ?, started_s = NULL, progress = '{}', attempts = attempts - "
            "? WHERE id = ?",
            (WAITING, 0 if counted else 1, identity),
        )

    def end(self, identity: str, state: str, message: str = "", size: int = 0) -> None:
        self._db.execute(
            "UPDATE jobs SET state = ?, message = ?, finished_s = ?, bytes = ? WHERE id = ?",
            (state, message, time.time(), size, identity),
        )

    def weigh(self, identity: str, size: int) -> None:
        """What a job's folder takes on disk now."""
        self._db.execute("UPDATE jobs SET bytes = ? WHERE id = ?", (size, identity))

    def total_bytes(self) -> int:
        """Of all jobs."""
        return int(self._db.execute("SELECT COALESCE(SUM(bytes), 0) FROM jobs").fetchone()[0])

    def recover(self) -> list[QueuedJob]:
        """After a start: what ran when the last process ended waits again, or is given up.

        Returns those jobs as they are now.
        """
        running = [job.id for job in self._select("state = ?", RUNNING)]
        for identity in running:
            if self._one(identity).attempts >= ATTEMPTS:
                self.end(
                    identity,
                    FAILED,
                    f"the service ended {ATTEMPTS} times while it worked on this sound.",
                )
            else:
                self.put_back(identity)
        return [self._one(identity) for identity in running]

    def get(self, identity: str) -> QueuedJob | None:
        found = list(self._select("id = ?", identity))
        return found[0] if found else None

    def recent(self, n: int) -> list[QueuedJob]:
        """The newest n, newest first."""
        return list(self._select("1 = 1 ORDER BY number DESC LIMIT ?", n))

    def position(self, identity: str) -> int:
        """How many jobs are claimed before a waiting one."""
        sentence = (
            "SELECT COUNT(*) FROM jobs WHERE state = ? AND number < (SELECT number FROM "
            "jobs WHERE id = ?)"
        )
        return int(self._db.execute(sentence, (WAITING, identity)).fetchone()[0])

    def counts(self) -> dict[str, int]:
        """State → number of jobs."""
        found = dict(self._db.execute("SELECT state, COUNT(*) FROM jobs GROUP BY state").fetchall())
        return {state: int(found.get(state, 0)) for state in STATES}

    def overdue(self, keep_s: float, keep_bytes: int) -> list[QueuedJob]:
        """Ended jobs older than `keep_s`, and the oldest of the rest as far as all together take
        more than `keep_bytes`.
        """
        total, leaving = 0, []
        for job in self._select(
            "finished_s IS NOT NULL AND state != ? ORDER BY finished_s DESC, number DESC", RUNNING
        ):
            total += job.bytes
            if time.time() - (job.finished_s or 0.0) > keep_s or total > keep_bytes:
                leaving.append(job)
        return leaving

    def remove(self, identity: str) -> None:
        self._db.execute("DELETE FROM jobs WHERE id = ?", (identity,))

    def ids(self) -> set[str]:
        return {row[0] for row in self._db.execute("SELECT id FROM jobs")}

    def _one(self, identity: str) -> QueuedJob:
        found = self.get(identity)
        assert found is not None
        return found

    def _select(self, where: str, *values: SqlValue) -> Iterator[QueuedJob]:
        for row in self._db.execute(
            f"SELECT {', '.join(COLUMNS)} FROM jobs WHERE {where}", values
        ).fetchall():
            entry = dict(zip(COLUMNS, row, strict=True))
            yield QueuedJob(
                **{
                    key: json.loads(value) if key in DOCUMENTS else value
                    for key, value in entry.items()
                }
            )


def _row(job: QueuedJob) -> list[SqlValue]:
    return [
        json.dumps(getattr(job, key)) if key in DOCUMENTS else getattr(job, key) for key in COLUMNS
    ]
