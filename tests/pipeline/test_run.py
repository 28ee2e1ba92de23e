"""A stage's main is filled from argv and params.yaml.

What it returns, raises and leaves behind is kept in order.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unmixer_core import config
from unmixer_core.errors import ConfigError, TrainingError
from unmixer_core.pipeline import json_file, machine, run, state
from unmixer_core.pipeline import log as pipeline_log
from unmixer_core.pipeline.log import StageLog

REPO = Path(__file__).resolve().parents[2]
#: For a process to end, on a machine that is busy.
PATIENCE_S = 120


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> Path:
    """An empty project with the repository's params.yaml, and the working directory in it."""
    shutil.copy(REPO / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_main_gets_paths_from_argv_and_sections_from_params(project, params):
    def main(
        some_input: Path, loss: config.Loss, phase: config.TrainFx, log: StageLog
    ) -> dict[str, float]:
        assert (some_input, loss, phase) == (Path("data/x"), params.loss, params.train.fx)
        log.metrics({"loss": 1.0}, step=1)
        log.text("note.md", "nothing is tracked here")
        return {"b": 1 / 3, "a": 2, "nested": {"c": float("nan")}}

    written = run.execute(main, ["--some-input", "data/x", "--metrics", "metrics/toy.json"])
    text = (project / "metrics/toy.json").read_text(encoding="utf-8")
    assert json.loads(text) == written == {"a": 2, "b": 0.333333, "nested": {"c": None}}
    assert text.index('"a"') < text.index('"b"')
    assert (project / "data").is_dir() and not list(project.glob("metrics/*.tmp"))


@pytest.mark.parametrize("argv", [[], ["--patches", "x", "--renders", "y"]])
def test_a_missing_or_unknown_path_ends_with_usage(project, argv, capsys):
    def main(patches: Path) -> None: ...

    with pytest.raises(SystemExit) as ended:
        run.execute(main, argv)
    assert ended.value.code == 2 and "--patches" in capsys.readouterr().err


def test_a_parameter_that_nothing_can_fill_is_a_programming_error(project):
    def main(count: int) -> None: ...

    with pytest.raises(TypeError, match="count"):
        run.execute(main, [])


def test_params_are_checked_before_any_work(project):
    path = project / "params.yaml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("lambda_s: 0.1", "lambda_s: lots"),
        encoding="utf-8",
    )
    with pytest.raises(ConfigError, match=r"loss\.lambda_s = 'lots'"):
        run.execute(lambda: pytest.fail("main was called"), [])


TOY = """
from __future__ import annotations
import sys, time
from pathlib import Path
from unmixer_core import config
from unmixer_core.pipeline import run, state as states
from unmixer_core.pipeline.log import StageLog
from unmixer_core.errors import TrainingError

def main(out: Path, itf: config.Itf, log: StageLog) -> dict[str, float]:
    state = states.state_dir("toy", {"steps": itf.steps, "section": itf})
    mark = state / "done"
    start = int(mark.read_text()) if mark.is_file() else 0
    sys.stderr.write(f"starts at {start}\\n")
    for step in log.progress(range(start, 5)):
        mark.write_text(str(step + 1))
        if "fail" in sys.argv[0] or (start == 0 and step == 2 and out.name == "hang"):
            print("hanging", flush=True)
            time.sleep(60)
        if out.name == "full":
            Path("/dev/full").write_text("more")
        if out.name == "bad":
            raise TrainingError("the loss is not finite at step 0.")
    return {"start": start}

if __name__ == "__main__":
    run.run_stage(main)
"""


def start(project: Path, out: str) -> subprocess.Popen:
    (project / "stages").mkdir(exist_ok=True)
    (project / "stages" / "toy.py").write_text(TOY, encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPO),
        "UNMIXER_TRACKING": "off",
        "PYTHONUNBUFFERED": "1",
    }
    command = [
        sys.executable,
        "stages/toy.py",
        "--out",
        f"out/{out}",
        "--metrics",
        "metrics/toy.json",
    ]
    return subprocess.Popen(
        command,
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_expected_error_is_one_sentence_and_status_1(project):
    process = start(project, "bad")
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "error: the loss is not finite at step 0."
    assert "Traceback" not in errors and not (project / "metrics/toy.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_sentence_and_what_was_finished_is_kept(project):
    process = start(project, "full")
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1 and "Traceback" not in errors
    assert re.match(
        r"error: the disk is full \(.+\); make room and run `dvc repro` again: .+ kept\.$",
        errors.splitlines()[-1],
    )
    assert [mark.read_text() for mark in (project / ".unmixer").glob("toy-*/done")] == ["1"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EDQUOT, "over the quota"),
        sqlite3.OperationalError("database or disk is full"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_full_disk_is_known_however_a_library_says_it(error):
    later = ValueError("the file is not complete")
    later.__cause__ = error
    assert run._disk_is_full(error) and run._disk_is_full(later)
    assert not run._disk_is_full(ValueError("the file is not complete")) and not run._disk_is_full(
        FileNotFoundError(2, "no")
    )


@pytest.mark.parametrize(
    "sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda sign: sign.name
)
def test_a_stage_ended_in_the_middle_goes_on_where_it_stopped(project, sign):
    process = start(project, "hang")
    assert process.stdout.readline() == "hanging\n"
    process.send_signal(sign)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert (
        process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[sign]
    ), errors
    assert not (project / "metrics/toy.json").exists()
    again = start(project, "hang")
    _, errors = again.communicate(timeout=PATIENCE_S)
    assert "starts at 3" in errors and again.returncode == 0
    assert json.loads((project / "metrics/toy.json").read_text(encoding="utf-8")) == {"start": 3}
    assert not list((project / ".unmixer").glob("toy-*/"))


def test_a_second_process_waits_for_the_first_ones_state(project):
    first = start(project, "hang")
    assert first.stdout.readline() == "hanging\n"
    second = start(project, "hang")
    assert "waiting for another process" in second.stderr.readline()
    first.kill()
    first.communicate(timeout=PATIENCE_S)
    _, errors = second.communicate(timeout=PATIENCE_S)
    assert "starts at 3" in errors and second.returncode == 0


def test_state_is_named_by_its_key_and_kept_after_a_failure(project, params):
    seen: list[Path] = []

    def main(itf: config.Itf) -> None:
        seen.append(state.state_dir("toy", {"itf": itf}))
        raise TrainingError("stop.")

    for _ in range(2):
        with pytest.raises(TrainingError):
            run.execute(main, [])
    assert seen[0] == seen[1] and seen[0].is_dir()
    other = state.state_dir("toy", {"itf": params.itf, "seed": 1}, keep=True)
    state._release_states(remove=True)
    assert other.is_dir() and other != seen[0]


def test_a_stage_is_named_by_dvc_or_by_its_module(monkeypatch):
    assert run.stage_name(test_a_stage_is_named_by_dvc_or_by_its_module) == "test_run"
    assert run.stage_name(test_a_stage_is_named_by_dvc_or_by_its_module, "fx") == "test_run_fx"
    monkeypatch.setenv("DVC_STAGE", "train_dry")
    assert run.stage_name(test_a_stage_is_named_by_dvc_or_by_its_module) == "train_dry"


def test_threads_and_device_come_from_the_environment(monkeypatch):
    import torch

    before = torch.get_num_threads()
    monkeypatch.setenv("UNMIXER_THREADS", "3")
    monkeypatch.setenv("UNMIXER_DEVICE", "cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert (
        machine.device() == torch.device("cpu")
        and torch.get_num_threads() == 3 == machine.threads()
    )
    torch.set_num_threads(before)
    for name, value in (("UNMIXER_THREADS", "many"), ("UNMIXER_DEVICE", "toaster")):
        monkeypatch.setenv(name, value)
        with pytest.raises(ConfigError, match=f"{name} (=|is) '{value}'"):
            machine.device()
        monkeypatch.delenv(name)


def test_progress_yields_everything_in_order_and_speaks_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(pipeline_log, "QUIET_SECONDS", 0.01)
    items = StageLog().progress(range(4), desc="render")
    assert [item for item in items if time.sleep(0.02) is None] == [0, 1, 2, 3]
    lines = capsys.readouterr().err.splitlines()
    assert (
        lines[0].startswith("render 1/4 · ")
        and lines[0].endswith("left")
        and lines[-1].endswith("taken")
    )


def test_short_work_says_nothing_without_a_terminal(capsys):
    assert list(StageLog().progress(iter("abc"))) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("done", "total", "seconds", "line"),
    [
        (120, 600, 30.0, "render 120/600 · 4/s · 2:00 left"),
        (600, 600, 3700.0, "render 600/600 · 0.162/s · 1:01:40 taken"),
        (7, None, 2.0, "render 7 · 3.5/s · 0:02 taken"),
    ],
)
def test_a_progress_line_has_rate_and_time_left(done, total, seconds, line):
    assert pipeline_log.progress_line("render", done, total, seconds) == line


def test_numbers_are_rounded_to_six_digits_and_json_can_hold_them():
    values = {
        "z": [1e-9 / 3, 2.0],
        "a": {"y": float("inf"), "x": True, "n": 10**9, "s": "text", "none": None},
    }
    assert json_file.rounded(values) == {
        "a": {"n": 10**9, "none": None, "s": "text", "x": True, "y": None},
        "z": [3.33333e-10, 2.0],
    }


def test_only_the_first_rank_writes_speaks_and_holds_the_state(project, monkeypatch, capsys):
    def main(out: Path, log: StageLog) -> dict[str, float]:
        assert list(log.progress(range(3), desc="steps")) == [0, 1, 2]
        return {"folder": float(state.state_dir("toy", {"a": 1}).exists())}

    monkeypatch.setattr(pipeline_log, "QUIET_SECONDS", 0.0)
    arguments = ["--out", "out/x", "--metrics", "metrics/toy.json"]
    monkeypatch.setenv("RANK", "1")
    assert run.execute(main, arguments) == {"folder": 0.0}
    assert capsys.readouterr().err == "" and not list(project.glob("metrics/*"))
    monkeypatch.setenv("RANK", "0")
    held = run.execute(main, arguments)
    assert held == {"folder": 1.0} and (project / "metrics/toy.json").exists()
    assert "steps 3/3" in capsys.readouterr().err


def test_ranks_of_one_machine_share_its_cores(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = machine.threads()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert machine.threads() == max(1, alone // 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    machine.threads()


def test_a_fingerprint_is_that_of_the_whole_files_whatever_their_size(tmp_path):
    import hashlib

    (tmp_path / "a.json").write_bytes(b"x" * (2**20 + 17))
    (tmp_path / "b.parquet").write_bytes(b"y")
    (tmp_path / "c.npy").write_bytes(b"not counted")
    expected = hashlib.sha256(b"a.json" + b"x" * (2**20 + 17) + b"b.parquet" + b"y").hexdigest()
    assert state.fingerprint(tmp_path) == expected
