"""The tracking server with a real PostgreSQL.

Runs arrive, and its kill -9 in the middle of a training loses nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.mlflow_server import Postgres, binaries
from unmixer_core.errors import ConfigError
from unmixer_core.pipeline import run as pipeline_run
from unmixer_core.pipeline import tracking
from unmixer_core.pipeline.log import StageLog

REPO = Path(__file__).resolve().parents[2]
MINUTE = 60.0


def installed() -> bool:
    try:
        binaries()
    except ConfigError:
        return False
    return True


needs_postgres = pytest.mark.skipif(
    not installed(), reason="PostgreSQL is not installed (apt-get install postgresql)"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that user postgres may enter; pytest's own are closed to it."""
    path = Path(tempfile.mkdtemp(prefix="unmixer-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


class Server:
    """`make tracking-server` in a folder."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder, self.url = folder, f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(REPO), "MLFLOW_PORT": str(self.port)}
        environment.pop("MLFLOW_TRACKING_URI", None)
        self.log = (self.folder / "stderr.txt").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tools.mlflow_server"],
            cwd=self.folder,
            env=environment,
            stdout=self.log,
            stderr=self.log,
        )
        deadline = time.monotonic() + 2 * MINUTE
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=2).close()
                return
            except OSError:
                time.sleep(0.2)
        pytest.fail(f"the server did not start: {self.said()}")

    def said(self) -> str:
        return (self.folder / "stderr.txt").read_text(encoding="utf-8")

    def kill_postgres(self) -> None:
        os.kill(
            int((self.folder / "mlpostgres" / "postmaster.pid").read_text().split()[0]),
            signal.SIGKILL,
        )

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(MINUTE)
        self.log.close()


@needs_postgres
def test_kill_9_of_postgresql_in_the_middle_loses_nothing(
    folder: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    shutil.copy(REPO / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    server = Server(folder)
    server.start()
    for name, value in {
        "TRACKING_URI": server.url,
        "EXPERIMENT_NAME": "tests",
        "HTTP_REQUEST_MAX_RETRIES": "1",
    }.items():
        monkeypatch.setenv(f"MLFLOW_{name}", value)
    monkeypatch.setenv("UNMIXER_TRACKING", "on")
    monkeypatch.setenv("DVC_STAGE", "train_toy")
    monkeypatch.setattr("unmixer_core.pipeline.mlflow_sink.FLUSH_SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)

    def main(log: StageLog) -> dict[str, float]:
        for step in range(6):
            if step == 3:
                assert capsys.readouterr().err == "", "everything arrived so far"
                server.kill_postgres()
                assert server.process.wait(MINUTE) == 1
            log.metrics({"loss": float(step)}, step=step)
        log.text("note.md", "kept")
        return {"final": 1.0}

    assert pipeline_run.execute(main, []) == {"final": 1.0}, "the training goes on"
    said = capsys.readouterr().err
    assert (
        said.count("is not available") == 1
        and "python -m unmixer_core.pipeline.tracking replay" in said
    )
    assert (
        "PostgreSQL ended by SIGKILL" in server.said() and "make tracking-server" in server.said()
    )
    assert tracking.replay()[1] != [], "the journal waits for the server"

    server.start()
    assert tracking.replay()[1] == [] and tracking.replay() == ([], [])
    from mlflow.tracking import MlflowClient

    client = MlflowClient(server.url)
    experiment = client.get_experiment_by_name("tests")
    (run,) = client.search_runs([experiment.experiment_id], "tags.`unmixer.stage` = 'train_toy'")
    assert [m.value for m in client.get_metric_history(run.info.run_id, "loss")] == [
        float(step) for step in range(6)
    ]
    assert (run.info.status, run.data.metrics["final"]) == ("FINISHED", 1.0)
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["note.md"]
    assert (folder / "mlartifacts").is_dir()
    server.stop()
    assert not list((folder / "mlpostgres").glob("postmaster.pid")), "stopped cleanly"


@needs_postgres
def test_a_database_outlives_its_server(folder: Path) -> None:
    import psycopg2

    def query(words: str) -> None:
        with psycopg2.connect(
            host=str(folder / "db"), user="unmixer", dbname="mlflow"
        ) as connection:
            connection.cursor().execute(words)

    first = Postgres(folder / "db")
    first.start()
    query("CREATE TABLE kept (x int)")
    assert first.process is not None
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait(MINUTE)
    again = Postgres(folder / "db")
    again.start()
    query("INSERT INTO kept VALUES (1)")
    again.stop()


def test_without_postgresql_one_sentence_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))
    with pytest.raises(ConfigError, match="apt-get install postgresql"):
        binaries()


def test_a_path_that_no_socket_fits_in_is_refused() -> None:
    with pytest.raises(ConfigError, match="too long"):
        Postgres(Path("/") / ("x" * 100))
