"""A tracking server for many machines.

MLflow over a PostgreSQL of its own (or one that is given), artifacts in a folder or S3.

    make tracking-server            # then, everywhere else: export MLFLOW_TRACKING_URI=http://this-machine:5000

The database lies in mlpostgres/, the artifacts in mlartifacts/ (UNMIXER_ARTIFACTS: another folder,
or s3://bucket/path). UNMIXER_DATABASE (postgresql://user@host/name) takes a PostgreSQL that runs
already. MLFLOW_HOST and MLFLOW_PORT say where the server listens; it is for a network that is
trusted, since it asks for no password. When PostgreSQL dies, the server stops with one sentence;
trainings go on and keep their journals (`tracking`), and a PostgreSQL that is started again
recovers by itself.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unmixer_core.errors import ConfigError, StageError, UnmixerError

ROLE, DATABASE = "unmixer", "mlflow"
SECONDS_TO_START = 60.0
SOCKET_PATH = 90  # characters of a folder that a Unix socket still fits in


def binaries() -> Path:
    """The folder of initdb and postgres: on the PATH, or where Debian puts them.

    Raises ConfigError.
    """
    found = [Path(path).resolve().parent for name in ("postgres",) if (path := shutil.which(name))]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in found:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise ConfigError(
        "PostgreSQL is not installed here; run `apt-get install postgresql`, or set "
        "UNMIXER_DATABASE."
    )


class Postgres:
    """A PostgreSQL of our own in a folder, heard on a Unix socket in it alone.

    Root runs it as user postgres.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.process: subprocess.Popen[bytes] | None = None
        if len(str(self.folder)) > SOCKET_PATH:
            raise ConfigError(
                f"the path {self.folder} is too long for a Unix socket; start from a shorter one."
            )

    @property
    def url(self) -> str:
        """As SQLAlchemy wants it."""
        return f"postgresql+psycopg2://{ROLE}@/{DATABASE}?host={self.folder}"

    def start(self) -> subprocess.Popen[bytes]:
        """Make the cluster if there is none, start it and wait until it answers.

        Raises ConfigError, StageError.
        """
        where = binaries()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        user, group = _owner() or (None, None)
        extra_groups = None if user is None else list[int]()
        if user is not None and group is not None:
            os.chown(self.folder, user, group)
        if not (self.folder / "PG_VERSION").exists():
            command = [
                str(where / "initdb"),
                "-D",
                str(self.folder),
                "-U",
                ROLE,
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
            ]
            made = subprocess.run(
                command,
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
                user=user,
                group=group,
                extra_groups=extra_groups,
            )
            if made.returncode:
                raise StageError(
                    f"PostgreSQL's initdb failed in {self.folder}: "
                    f"{made.stderr.strip().splitlines()[-1]}."
                )
        command = [
            str(where / "postgres"),
            "-D",
            str(self.folder),
            "-k",
            str(self.folder),
            "-c",
            "listen_addresses=",
        ]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd="/",
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=user,
                group=group,
                extra_groups=extra_groups,
            )
        self._wait(self.process)
        return self.process

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        """Until it answers and the database is there."""
        import psycopg2

        deadline = time.monotonic() + SECONDS_TO_START
        while True:
            try:
                connection = psycopg2.connect(host=str(self.folder), user=ROLE, dbname="postgres")
                break
            except psycopg2.OperationalError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise StageError(
                        f"PostgreSQL does not start in {self.folder} "
                        f"({str(error).splitlines()[0]}); see server.log there."
                    ) from None
                time.sleep(0.1)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
            if not cursor.fetchone():
                cursor.execute(f"CREATE DATABASE {DATABASE}")
        connection.close()

    def stop(self) -> None:
        """A fast, clean end."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)


def _owner() -> tuple[int, int] | None:
    """User and group that root runs PostgreSQL as, which refuses root; None for anybody else."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    raise ConfigError(
        "PostgreSQL does not run as root, and there is neither a user postgres nor nobody."
    )


@contextmanager
def mlflow_server(database: str, artifacts: str) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's server over a database, in a process group of its own (its workers outlive it
    otherwise).
    """
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database]
    command += ["--artifacts-destination", artifacts]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(command, env={**quiet, **os.environ}, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def serve(root: Path) -> None:
    """Run until interrupted.

    Raises ConfigError, StageError; StageError too when PostgreSQL or MLflow dies.
    """
    given = os.environ.get("UNMIXER_DATABASE")
    artifacts = os.environ.get("UNMIXER_ARTIFACTS") or str(root / "mlartifacts")
    postgres = None if given else Postgres(root / "mlpostgres")
    running = {"PostgreSQL": postgres.start()} if postgres else {}
    url = (
        given.replace("postgresql://", "postgresql+psycopg2://", 1)
        if given
        else postgres.url
        if postgres
        else ""
    )
    try:
        with mlflow_server(url, artifacts) as server:
            running["MLflow's server"] = server
            while all(process.poll() is None for process in running.values()):
                time.sleep(0.2)
            name, ended = next((n, p) for n, p in running.items() if p.poll() is not None)
            how = (
                f"by {signal.Signals(-ended.returncode).name}"
                if ended.returncode < 0
                else f"with {ended.returncode}"
            )
            raise StageError(
                f"{name} ended {how}; what was stored is safe and trainings keep journals: run "
                f"`make tracking-server` "
                "again, then `python -m unmixer_core.pipeline.tracking replay` where they ran."
            )
    finally:
        if postgres:
            postgres.stop()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        serve(Path.cwd())
    except UnmixerError as failure:
        sys.exit(f"error: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
