"""MLflow wiring: one parent run per experiment, one child per executed stage, and no run that a
dead server can lose.

Everything a stage reports is a *record*, written first to a journal
(`.unmixer/journal/<stage>-<id>/`) and then handed to the `Sink`, which speaks MLflow
(mlflow_sink.py). A sink that fails is dropped with one line and the stage goes on; the journal
stays and `python -m unmixer_core.pipeline.tracking replay` feeds the same records to a fresh sink
later. A clean finish deletes the journal.

Runs find each other by tags, not by environment variables (MLFLOW_RUN_ID hijacks nested runs,
mlflow#15713): `unmixer.key` is DVC's experiment name or `<commit>-<digest of the parameters>`.
Stages that DVC restored from its cache open no run: the next stage that does run tags the parent
`cached.<stage>` and copies their metrics to it.

Store: MLFLOW_TRACKING_URI, else `sqlite:///<root>/mlflow.db` with artifacts in
`<root>/mlartifacts`. `UNMIXER_TRACKING=off` turns everything off.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from unmixer_core import config
from unmixer_core.config.yaml12 import read_yaml
from unmixer_core.pipeline.mlflow_sink import Sink, numbers, safe_name, tracking_uri
from unmixer_core.system.journal import JsonLines
from unmixer_core.system.json_types import Json, JsonView

logger = logging.getLogger(__name__)


def project_root() -> Path:
    """DVC_ROOT (the original repository even in `dvc exp run --temp`), else the nearest folder
    with dvc.yaml.
    """
    if given := os.environ.get("DVC_ROOT"):
        return Path(given).resolve()
    here = Path.cwd()
    return next(
        (folder for folder in (here, *here.parents) if (folder / "dvc.yaml").is_file()), here
    )


# --- what a run is called and where it belongs ------------------------------------------------


def open_record(stage: str, params: config.Params, sections: list[str]) -> Json:
    """The first record of a stage's run: its names, tags, parameters and the stages before it.

    Args:
        sections: dotted keys of the sections the stage read; the child run shows these, the parent
        shows all.
    """
    everything = config.flatten(params.model_dump())
    read = {
        key: value
        for key, value in everything.items()
        if key.startswith(tuple(f"{name}." for name in sections))
    }
    commit, dirty = (
        _git("rev-parse", "HEAD"),
        bool(_git("status", "--porcelain", "--untracked-files=no")),
    )
    experiment = os.environ.get("DVC_EXP_NAME")
    tags = {
        "git.sha": commit or "none",
        "git.dirty": str(dirty).lower(),
        "params.hash": params.digest,
        "mlflow.user": _user(),
        "mlflow.source.name": f"stages/{stage}.py",
        "mlflow.source.git.commit": commit,
        "dvc.exp_name": experiment or "",
        "dvc.baseline": os.environ.get("DVC_EXP_BASELINE_REV", ""),
    }
    return {
        "do": "open",
        "id": uuid.uuid4().hex[:12],
        "stage": stage,
        "key": experiment or f"{commit[:8] or 'nocommit'}-{params.digest}",
        "tags": {name: value for name, value in tags.items() if value},
        "params": read,
        "all_params": everything,
        "before": {name: _read_metrics(path) for name, path in stages_before(stage).items()},
        "time_ms": _now_ms(),
    }


def stages_before(stage: str, pipeline: str | Path = "dvc.yaml") -> dict[str, Path | None]:
    """Every ancestor of a stage in dvc.yaml with its metrics file (None where it has none).

    {} outside a pipeline.
    """
    if not Path(pipeline).is_file():
        return {}
    stages = read_yaml(pipeline).get("stages", {})
    kinds = ("outs", "metrics", "plots")
    outs = {
        name: [_path(out) for kind in kinds for out in entry.get(kind, [])]
        for name, entry in stages.items()
    }
    found: list[str] = []
    waiting = [stage] if stage in stages else []
    while waiting:
        for dep in stages[waiting.pop()].get("deps", []):
            makers = [
                name
                for name, paths in outs.items()
                if any(_inside(_path(dep), path) for path in paths)
            ]
            fresh = [name for name in makers if name not in found]
            found, waiting = found + fresh, waiting + fresh
    metrics = {name: stages[name].get("metrics", []) for name in found}
    return {name: Path(_path(entries[0])) if entries else None for name, entries in metrics.items()}


def _path(entry: str | Json) -> str:
    return entry if isinstance(entry, str) else next(iter(entry))


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _read_metrics(path: Path | None) -> dict[str, float]:
    with suppress(OSError, ValueError, TypeError):
        return numbers(json.loads(path.read_text(encoding="utf-8"))) if path else {}
    return {}


def _git(*arguments: str) -> str:
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, timeout=10, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""
    return ""


def _user() -> str:
    with suppress(Exception):
        return getpass.getuser()
    return "unknown"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


# --- the journal ------------------------------------------------------------------------------


class Journal:
    """A folder with one JSON record a line and copies of the artifacts, locked while its process
    lives.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "artifacts").mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(str(folder / "lock"))
        self.lock.acquire(timeout=0)
        self.records = JsonLines(folder / "records.jsonl")

    def add_artifact(self, path: Path) -> str:
        """A copy of a file or folder (hard links where possible) under artifacts/.

        Its relative name.
        """
        target = self.folder / "artifacts" / path.name
        if path.resolve() != target.resolve():
            if path.is_dir():
                shutil.copytree(path, target, copy_function=_link, dirs_exist_ok=True)
            else:
                _link(path, target)
        return path.name

    def release(self) -> None:
        self.lock.release()

    def delete(self) -> None:
        self.release()
        shutil.rmtree(self.folder, ignore_errors=True)


def _link(source: str | Path, target: str | Path) -> None:
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


# --- what a stage holds -----------------------------------------------------------------------


class Tracker:
    """One stage's run: `metrics` and `artifact` while it lasts, `close` at its end.

    Never raises for a store's sake.
    """

    def __init__(self, first: JsonView, root: Path | None = None) -> None:
        self.root = root or project_root()
        self.journal = Journal(
            self.root / ".unmixer" / "journal" / f"{first['stage']}-{first['id']}"
        )
        self.guard = threading.Lock()
        self.sink: Sink | None = None
        self.journal.records.append(first)
        try:
            self.sink = Sink(self.root, self.journal.folder / "artifacts")
            self.sink.write(first)
        except Exception as error:
            self._drop(error)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Curves: the same names again with a growing step.

        Non-finite values are kept in the journal and in MLflow.
        """
        clean = {key: float(value) for key, value in values.items()}
        self._send({"do": "metrics", "values": clean, "step": step, "time_ms": _now_ms()})

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file or folder, shown under `folder` in MLflow.

        Later changes of the original do not matter.
        """
        self._send({"do": "artifact", "file": self.journal.add_artifact(path), "folder": folder})

    def new_file(self, name: str) -> Path:
        """Where to write an artifact that exists for the run alone.

        Hand it to `artifact` afterwards.
        """
        return self.journal.folder / "artifacts" / safe_name(name).replace("/", "-")

    def close(self, status: str, metrics: JsonView | None = None) -> None:
        """End the run ("FINISHED", "FAILED" or "KILLED") with its final numbers."""
        self._send(
            {
                "do": "close",
                "status": status,
                "metrics": numbers(metrics or {}),
                "time_ms": _now_ms(),
            }
        )
        self.journal.delete() if self.sink else self.journal.release()

    def _send(self, record: JsonView) -> None:
        with self.guard:
            try:
                self.journal.records.append(record)
                if self.sink:
                    self.sink.write(record)
            except Exception as error:
                self._drop(error)

    def _drop(self, error: Exception) -> None:
        self.sink = None
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        logger.debug("tracking off", exc_info=error)
        sys.stderr.write(
            f"MLflow at {tracking_uri(self.root)} is not available ({reason[:200]}): the run is "
            f"kept in"
            f" {self.journal.folder}; send it later with `python -m "
            f"unmixer_core.pipeline.tracking replay`.\n"
        )


def enabled() -> bool:
    """False with UNMIXER_TRACKING=off (also 0, no, false) and on every rank but the first of a
    distributed run.
    """
    wanted = os.environ.get("UNMIXER_TRACKING", "on").lower() not in {"off", "0", "no", "false"}
    return wanted and os.environ.get("RANK", "0") == "0"


def replay(root: Path | None = None) -> tuple[list[str], list[str]]:
    """Send every journal that no living process holds; (sent, left) run names.

    Sending twice changes nothing.
    """
    root = root or project_root()
    sent: list[str] = []
    left: list[str] = []
    for folder in sorted((root / ".unmixer" / "journal").glob("*/")):
        with suppress(Timeout):
            journal = Journal(folder)
            try:
                _replay_one(journal, root)
                journal.delete()
                sent.append(folder.name)
            except Exception as error:
                journal.release()
                left.append(folder.name)
                sys.stderr.write(
                    f"{folder.name} could not be sent to {tracking_uri(root)}: {error}\n"
                )
    return sent, left


def _replay_one(journal: Journal, root: Path) -> None:
    records = list(journal.records.read())
    if not records or records[0]["do"] != "open":
        return
    if records[-1]["do"] != "close":
        last_ms = max(record.get("time_ms", 0) for record in records)
        records.append({"do": "close", "status": "KILLED", "metrics": {}, "time_ms": last_ms})
    sink = Sink(root, journal.folder / "artifacts", live=False)
    for record in records:
        sink.write(record)


if __name__ == "__main__":
    if sys.argv[1:] != ["replay"]:
        sys.exit("usage: python -m unmixer_core.pipeline.tracking replay")
    done, kept = replay()
    sys.stdout.write(f"{len(done)} runs sent, {len(kept)} kept.\n")
    sys.exit(1 if kept else 0)
