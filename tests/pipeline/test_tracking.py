"""Runs are grouped, cached stages are named, and no dead server or killed process loses what a
stage reported.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from matplotlib.figure import Figure

from unmixer_core import config
from unmixer_core.errors import TrainingError
from unmixer_core.pipeline import run as pipeline_run
from unmixer_core.pipeline import tracking
from unmixer_core.pipeline.log import StageLog
from unmixer_core.pipeline.mlflow_sink import numbers, tracking_uri

REPO = Path(__file__).resolve().parents[2]
EXPERIMENT = "tests"
PIPELINE = """
stages:
  first: {cmd: x, outs: [data/a], metrics: [metrics/first.json: {cache: false}]}
  second: {cmd: x, deps: [data/a/part], outs: [data/b], metrics: [metrics/second.json]}
  side: {cmd: x, outs: [data/side]}
  third: {cmd: x, deps: [data/b, stages/third.py], outs: [data/c]}
"""


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """A new, empty database, made by two processes at once as two first experiments would.

    Tests copy it.

    Made once for all of xdist's workers: it takes seconds.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "store"
    with FileLock(f"{folder}.lock"):
        if not (folder / "mlflow.db").is_file():
            folder.mkdir()
            code = (
                "from unmixer_core.pipeline.mlflow_sink import Sink; from pathlib import Path; "
                "Sink(Path('.'), Path('.'))"
            )
            command, environment = (
                [sys.executable, "-c", code],
                {**os.environ, "PYTHONPATH": str(REPO)},
            )
            both = [
                subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE)
                for _ in range(2)
            ]
            assert [
                (process.communicate(timeout=120)[1], process.returncode) for process in both
            ] == [(b"", 0)] * 2
    return folder / "mlflow.db"


@pytest.fixture
def project(tmp_path: Path, monkeypatch, empty_store: Path) -> Path:
    """A small project with a pipeline, parameters, git history and a store; tracking is on."""
    shutil.copy(REPO / "params.yaml", tmp_path / "params.yaml")
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    (tmp_path / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/first.json").write_text(
        '{"loss": 0.5, "deep": {"er": 2}, "text": "x"}', encoding="utf-8"
    )
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", str(tmp_path)]
    for arguments in (["init", "-q"], ["add", "dvc.yaml"], ["commit", "-q", "-m", "start"]):
        subprocess.run([*git, *arguments], check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNMIXER_TRACKING", "on")
    return tmp_path


@pytest.fixture
def client(project: Path):
    """Looks into the project's store."""
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{project / 'mlflow.db'}")


def runs(client, **tags: str) -> list:
    """Runs with these tags (`__` stands for a dot), oldest first."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    wanted = {name.replace("__", "."): value for name, value in tags.items()}
    found = (
        client.search_runs([experiment.experiment_id], order_by=["attribute.start_time ASC"])
        if experiment
        else []
    )
    return [run for run in found if wanted.items() <= run.data.tags.items()]


def nothing() -> None:
    """A stage that reports nothing."""


def run_stage(monkeypatch, name: str, main) -> dict:
    monkeypatch.setenv("DVC_STAGE", name)
    return pipeline_run.execute(main, [])


def test_a_run_keeps_params_curves_artifacts_and_its_place(project, client, params, monkeypatch):
    def main(loss: config.Loss, dry: config.TrainDry, log: StageLog) -> dict[str, float]:
        for step in range(3):
            log.metrics({"loss": 1.0 / (step + 1)}, step=step)
        log.figure("curve", Figure())
        log.audio("target", np.zeros((2, 100), np.float32), 44100)
        log.text("note.md", "# hello")
        (project / "model").mkdir()
        (project / "model/weights").write_bytes(b"123")
        log.artifact(project / "model")
        (project / "model/weights").unlink()
        return {"final": 0.25, "by_phase": {"dry": 1.5}}

    run_stage(monkeypatch, "train_dry", main)
    (parent,), (child,) = (
        runs(client, unmixer__kind="pipeline"),
        runs(client, unmixer__stage="train_dry"),
    )
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.info.status == parent.info.status == "FINISHED"
    assert child.data.params["train.dry.epochs"] == str(params.train.dry.epochs)
    assert not any(key.startswith("itf.") for key in child.data.params)
    assert parent.data.params["itf.steps"] == str(params.itf.steps)
    assert (
        parent.data.tags["git.sha"] == child.data.tags["mlflow.source.git.commit"]
        and len(parent.data.tags["git.sha"]) == 40
    )
    assert [(m.step, m.value) for m in client.get_metric_history(child.info.run_id, "loss")] == [
        (0, 1.0),
        (1, 0.5),
        (2, 1 / 3),
    ]
    assert (child.data.metrics["final"], child.data.metrics["by_phase.dry"]) == (0.25, 1.5)
    assert parent.data.metrics["train_dry.final"] == 0.25 and child.data.metrics["run.seconds"] >= 0
    kept = {
        item.path
        for folder in (None, "plots", "audio", "model")
        for item in client.list_artifacts(child.info.run_id, folder)
    }
    assert {"plots/curve.png", "audio/target.wav", "note.md", "model/weights"} <= kept
    assert str(project / "mlartifacts") in child.info.artifact_uri
    assert not any((project / ".unmixer/journal").iterdir())


def test_stages_share_a_parent_and_cached_ones_are_tagged(project, client, monkeypatch):
    for name in ("third", "second"):
        run_stage(monkeypatch, name, lambda: {"loss": 1.0})
    (parent,) = runs(client, unmixer__kind="pipeline")
    assert {run.data.tags["unmixer.stage"] for run in runs(client, unmixer__kind="stage")} == {
        "third",
        "second",
    }
    cached = {name for name in parent.data.tags if name.startswith("cached.")}
    assert cached == {"cached.first"}, "second was cached at first, but has run since"
    assert parent.data.metrics["first.loss"] == 0.5 and parent.data.metrics["first.deep.er"] == 2.0


def test_other_parameters_or_another_experiment_get_another_parent(project, client, monkeypatch):
    run_stage(monkeypatch, "first", nothing)
    text = (project / "params.yaml").read_text(encoding="utf-8")
    (project / "params.yaml").write_text(
        text.replace("lambda_s: 0.1", "lambda_s: 0.2"), encoding="utf-8"
    )
    run_stage(monkeypatch, "first", nothing)
    monkeypatch.setenv("DVC_EXP_NAME", "bold-lynx")
    run_stage(monkeypatch, "first", nothing)
    parents = runs(client, unmixer__kind="pipeline")
    assert len({run.data.tags["unmixer.key"] for run in parents}) == 3
    assert parents[-1].info.run_name == "bold-lynx"
    assert len({run.data.tags["git.sha"] for run in parents}) == 1


def test_ancestors_are_read_from_the_pipeline(project):
    assert tracking.stages_before("third") == {
        "second": Path("metrics/second.json"),
        "first": Path("metrics/first.json"),
    }
    assert tracking.stages_before("first") == tracking.stages_before("unknown") == {}


@pytest.mark.parametrize(
    ("error", "status"),
    [(TrainingError("nan"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (OSError(), "FAILED")],
)
def test_a_stage_that_ends_badly_says_so(project, client, monkeypatch, error, status):
    def main() -> None:
        raise error

    with pytest.raises(type(error)):
        run_stage(monkeypatch, "first", main)
    assert [
        run.info.status
        for run in runs(client, unmixer__key=runs(client)[0].data.tags["unmixer.key"])
    ] == [status] * 2


def test_a_killed_process_leaves_a_run_that_the_next_start_closes(
    project, client, params, monkeypatch
):
    monkeypatch.setenv("DVC_STAGE", "first")
    dead = tracking.Tracker(tracking.open_record("first", params, []))
    dead.metrics({"loss": 3.0}, 1)
    dead.journal.release()
    run_stage(monkeypatch, "first", nothing)
    assert sorted(run.info.status for run in runs(client, unmixer__stage="first")) == [
        "FINISHED",
        "KILLED",
    ]
    sent, left = tracking.replay()
    assert (len(sent), left) == (1, [])
    statuses = {
        run.info.status: run.data.metrics.get("loss")
        for run in runs(client, unmixer__stage="first")
    }
    assert statuses == {"FINISHED": None, "KILLED": 3.0}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_server_that_is_not_there_loses_nothing(project, client, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")

    def main(log: StageLog) -> dict[str, float]:
        log.metrics({"loss": 1.0}, step=4)
        log.text("note.md", "kept")
        return {"final": 7.0}

    assert run_stage(monkeypatch, "second", main) == {"final": 7.0}
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "is not available" in said[0] and "tracking replay" in said[0]
    assert tracking.replay()[1] != [], "still not there: the journal stays"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    done = subprocess.run(
        [sys.executable, "-m", "unmixer_core.pipeline.tracking", "replay"],
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1 runs sent, 0 kept.\n"
    (child,) = runs(client, unmixer__stage="second")
    assert (child.info.status, child.data.metrics["final"], child.data.metrics["loss"]) == (
        "FINISHED",
        7.0,
        1.0,
    )
    assert [item.path for item in client.list_artifacts(child.info.run_id)] == ["note.md"]
    assert tracking.replay() == ([], [])


def test_a_server_that_dies_in_the_middle_is_dropped_with_one_line(
    project, client, monkeypatch, capsys
):
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            run = {
                "info": {
                    "run_id": "r",
                    "experiment_id": "1",
                    "status": "RUNNING",
                    "artifact_uri": "x",
                },
                "data": {},
            }
            bodies = {
                "get-by-name": {"experiment": {"experiment_id": "1", "name": EXPERIMENT}},
                "runs/search": {},
            }
            body = next(
                (value for part, value in bodies.items() if part in self.path),
                {"run": run, "run_info": run["info"]},
            )
            text = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = answer

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("unmixer_core.pipeline.mlflow_sink.FLUSH_SECONDS", 0.0)

    def main(log: StageLog) -> dict[str, float]:
        for step in range(10):
            if step == 5:
                assert capsys.readouterr().err == "", "the server answered so far"
                server.shutdown()
                server.server_close()
            log.metrics({"loss": float(step)}, step=step)
        return {"final": 1.0}

    assert run_stage(monkeypatch, "first", main) == {"final": 1.0}
    assert capsys.readouterr().err.count("is not available") == 1
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    tracking.replay()
    (child,) = runs(client, unmixer__stage="first")
    assert [m.value for m in client.get_metric_history(child.info.run_id, "loss")] == [
        float(step) for step in range(10)
    ]


def test_replaying_twice_changes_nothing(project, client, params):
    journal = tracking.Journal(project / ".unmixer/journal/first-x")
    journal.records.append(tracking.open_record("first", params, ["loss"]))
    journal.records.append({"do": "metrics", "values": {"loss": 1.0}, "step": 1, "time_ms": 1})
    with (journal.folder / "records.jsonl").open("a", encoding="utf-8") as handle:
        handle.write('{"do": "metrics", "val')  # cut short by a crash
    for _ in range(2):
        tracking._replay_one(journal, project)
    (child,) = runs(client, unmixer__stage="first")
    assert child.info.status == "KILLED"
    assert len(client.get_metric_history(child.info.run_id, "loss")) == 1


def test_a_journal_in_use_is_left_alone(project, params):
    living = tracking.Journal(project / ".unmixer/journal/first-living")
    living.records.append(tracking.open_record("first", params, []))
    code = (
        f"from unmixer_core.pipeline import tracking; from pathlib import Path; "
        f"print(tracking.replay(Path({str(project)!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "([], [])\n" and living.folder.is_dir()


@pytest.mark.parametrize(("name", "value"), [("UNMIXER_TRACKING", "off"), ("RANK", "1")])
def test_tracking_can_be_off(project, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    run_stage(monkeypatch, "first", nothing)
    assert not (project / ".unmixer").exists()


@pytest.mark.parametrize(
    ("given", "used"),
    [
        (None, "sqlite:////root/mlflow.db"),
        ("sqlite:///mine.db", "sqlite:////root/mine.db"),
        ("sqlite:////abs/x.db", "sqlite:////abs/x.db"),
        ("http://host:5000", "http://host:5000"),
    ],
)
def test_the_store_is_absolute_or_the_users(monkeypatch, given, used):
    if given:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    assert tracking_uri(Path("/root")) == used


def test_numbers_are_flat_finite_and_named_as_mlflow_allows():
    values = {
        "a@b": 1,
        "nested": {"x": 2.5, "text": "no", "flag": True},
        "bad": float("nan"),
        "list": [1],
    }
    assert numbers(values) == {"a_b": 1.0, "nested.x": 2.5, "nested.flag": 1.0}
