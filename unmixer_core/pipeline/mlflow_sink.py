"""Records of a run → MLflow calls.

The only module that speaks MLflow, imported late: it costs two seconds.

A record is a plain dict with `do` = open | metrics | artifact | close (made in `tracking`). Sending
the same records again changes nothing, because runs are found by their tags: so a journal can be
replayed at any time.
"""

from __future__ import annotations

import logging
import math
import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from filelock import FileLock

from unmixer_core import config
from unmixer_core.system.json_types import JsonView

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

EXPERIMENT = "neural-unmixer"
FLUSH_SECONDS, FLUSH_METRICS, BATCH_PARAMS = 10.0, 1000, 100


def numbers(values: JsonView) -> dict[str, float]:
    """The finite numbers of nested metrics, under dotted names that MLflow accepts."""
    flat = {safe_name(key): value for key, value in config.flatten(values).items()}
    return {
        key: float(value)
        for key, value in flat.items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    }


def safe_name(text: str) -> str:
    """The text with what MLflow does not allow in names replaced."""
    return re.sub(r"[^\w\-. :/]", "_", text)


def tracking_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI or the local database; a relative sqlite path counts from the root."""
    given = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    relative = re.fullmatch(r"sqlite:///(?![/A-Za-z]:?[/\\])(.+)", given)
    return f"sqlite:///{(root / relative[1]).as_posix()}" if relative else given


class Sink:
    """Turns records into MLflow calls.

    Any exception means that the store cannot be trusted any more.
    """

    def __init__(self, root: Path, artifacts: Path, *, live: bool = True) -> None:
        self.uri, self.artifacts, self.live = tracking_uri(root), artifacts, live
        _probe(self.uri)
        _quiet_mlflow()
        (root / ".unmixer").mkdir(exist_ok=True)
        with FileLock(
            str(root / ".unmixer" / "mlflow.lock")
        ):  # two processes must not create the database at once
            from mlflow.tracking import MlflowClient

            self.client = MlflowClient(self.uri)
            self.experiment = self._experiment(root)
        self.buffer: list[Metric] = []
        self.flushed = time.monotonic()
        self.parent = self.child = self.stage = ""

    def write(self, record: JsonView) -> None:
        getattr(self, f"_{record['do']}")(record)

    def _experiment(self, root: Path) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        if found := self.client.get_experiment_by_name(name):
            return found.experiment_id
        local = self.uri.startswith("sqlite:")
        return self.client.create_experiment(
            name, (root / "mlartifacts").resolve().as_uri() if local else None
        )

    def _open(self, record: JsonView) -> None:
        self.stage, tags = record["stage"], record["tags"]
        key = {"unmixer.key": record["key"]}
        self.parent = self._run(
            {**key, "unmixer.kind": "pipeline"}, tags, record, record["key"], record["all_params"]
        )
        mine = {"unmixer.journal": record["id"]}
        about = {
            **tags,
            **key,
            "unmixer.kind": "stage",
            "unmixer.stage": self.stage,
            "mlflow.parentRunId": self.parent,
        }
        if self.live:
            self._close_stale(record["key"])
            self.client.update_run(self.parent, status="RUNNING")
        self.child = self._run(mine, about, record, self.stage, record["params"])
        self._mark_cached(record)

    def _run(
        self,
        identity: dict[str, str],
        tags: dict[str, str],
        record: JsonView,
        name: str,
        params: JsonView,
    ) -> str:
        """The run with these identifying tags, made if there is none yet."""
        if found := self._search(identity):
            return found[0].info.run_id
        run_id = self.client.create_run(
            self.experiment, record["time_ms"], {**tags, **identity}, name
        ).info.run_id
        self._params(run_id, params)
        return run_id

    def _search(self, tags: Mapping[str, str]) -> list[Run]:
        query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        return list(self.client.search_runs([self.experiment], query))

    def _params(self, run_id: str, params: JsonView) -> None:
        from mlflow.entities import Param

        entries = [Param(safe_name(key), str(value)[:6000]) for key, value in params.items()]
        for start in range(0, len(entries), BATCH_PARAMS):
            self.client.log_batch(run_id, params=entries[start : start + BATCH_PARAMS])

    def _close_stale(self, key: str) -> None:
        """A killed process leaves its run RUNNING for ever.

        The next start of the same stage ends it.
        """
        for run in self._search({"unmixer.key": key, "unmixer.stage": self.stage}):
            if run.info.status == "RUNNING":
                self.client.set_terminated(run.info.run_id, "KILLED")

    def _mark_cached(self, record: JsonView) -> None:
        here = {
            run.data.tags.get("unmixer.stage")
            for run in self._search({"mlflow.parentRunId": self.parent})
        }
        for stage, values in record["before"].items():
            if stage not in here:
                self.client.set_tag(self.parent, f"cached.{stage}", "true")
                self._log(self.parent, values, 0, record["time_ms"], prefix=f"{stage}.")
        if f"cached.{self.stage}" in self.client.get_run(self.parent).data.tags:
            self.client.delete_tag(self.parent, f"cached.{self.stage}")

    def _metrics(self, record: JsonView) -> None:
        from mlflow.entities import Metric

        time_ms, step = record["time_ms"], record["step"] or 0
        self.buffer += [
            Metric(safe_name(name), value, time_ms, step)
            for name, value in record["values"].items()
        ]
        if len(self.buffer) >= FLUSH_METRICS or time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        for start in range(0, len(self.buffer), FLUSH_METRICS):
            self.client.log_batch(self.child, metrics=self.buffer[start : start + FLUSH_METRICS])
        self.buffer, self.flushed = [], time.monotonic()

    def _artifact(self, record: JsonView) -> None:
        path = self.artifacts / record["file"]
        if path.is_dir():
            self.client.log_artifacts(
                self.child, str(path), f"{record['folder']}/{path.name}".strip("/")
            )
        else:
            self.client.log_artifact(self.child, str(path), record["folder"] or None)

    def _close(self, record: JsonView) -> None:
        self.flush()
        values, status, end_ms = record["metrics"], record["status"], record["time_ms"]
        self._log(self.child, values, 0, end_ms)
        self._log(self.parent, values, 0, end_ms, prefix=f"{self.stage}.")
        self.client.set_terminated(self.child, status, end_ms)
        self.client.set_terminated(self.parent, status, end_ms)

    def _log(
        self, run_id: str, values: Mapping[str, float], step: int, time_ms: int, prefix: str = ""
    ) -> None:
        from mlflow.entities import Metric

        entries = [
            Metric(f"{prefix}{safe_name(key)}", value, time_ms, step)
            for key, value in values.items()
        ]
        for start in range(0, len(entries), FLUSH_METRICS):
            self.client.log_batch(run_id, metrics=entries[start : start + FLUSH_METRICS])


def _probe(uri: str) -> None:
    """Fail in two seconds, not in MLflow's four minutes, where a server is not there."""
    address = urlparse(uri)
    if address.scheme in ("http", "https") and address.hostname:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname, port), timeout=2.0).close()


def _quiet_mlflow() -> None:
    """No usage reports, no progress bars, few retries; the user's own settings win."""
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "DO_NOT_TRACK": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    for name in ("alembic", "mlflow", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
