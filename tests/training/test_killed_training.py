"""A real `kill -9` of a real training stage.

The run that goes on ends with the same bytes as one that was left alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.model import tiny
from unmixer_core import config, sampling
from unmixer_core.features.store import FeatureTable, FeatureWriter
from unmixer_core.schema.patch import PHASES, Patches

REPO = Path(__file__).resolve().parents[2]
SMALL = """
model:
  {width: 4, embedding: 24, harmonics: 8, components: 2, knob_hidden: 16, ball_dim: 4,
   chain_hidden: 16}
loss: {lambda_s: 0.0}
train:
  fx: {epochs: 2, proxy_epochs: 1, batch: 8, replay: 0.5}
"""
KILLED = """
import os, signal, sys
from unmixer_core.pipeline import run
from unmixer_core.training import phase as training
from stages import train

step, steps = training.Stepper.step, 0

def dying(*given):
    global steps
    steps += 1
    if steps > int(os.environ["DIE_AFTER"]):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*given)

training.Stepper.step = dying
run.run_stage(train.train_fx)
"""


def store(folder: Path, features: FeatureTable) -> None:
    writer = FeatureWriter(folder, features.spec)
    writer.write(0, np.asarray(features.shards[0]))
    writer.finish(features.patches)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Frames of host and proxy for the second phase, and a model of the first to start from."""
    shutil.copy(REPO / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    (tmp_path / "small.yaml").write_text(SMALL, encoding="utf-8")
    config.apply_profile(tmp_path / "small.yaml", tmp_path / "params.yaml")
    store(tmp_path / "features", tiny.features(tiny.patches()))
    rehearsed = Patches.concat(
        [sampling.sample(20, name, "train", 77, tiny.PRIOR) for name in PHASES]
    )
    store(tmp_path / "proxy_frames", tiny.features(rehearsed, seed=3))
    for name in ("renders", "proxy"):  # read by the spectral term alone, which is off
        (tmp_path / name).mkdir()
    from unmixer_core.model import checkpoint

    params = config.load(tmp_path / "params.yaml")
    first = tiny.new_model(tiny.data("dry"), params.model, 7)
    checkpoint.save(tmp_path / "dry", first, params.model, {})
    return tmp_path


def train(
    project: Path, out: str, die_after: int | None = None
) -> subprocess.CompletedProcess[str]:
    """The stage in a process of its own.

    With `die_after`, killed by signal 9 in the middle of that step's successor.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPO),
        "UNMIXER_TRACKING": "off",
        "UNMIXER_THREADS": "1",
    }
    program = ["-m", "stages.train", "--phase", "fx"] if die_after is None else ["-c", KILLED]
    paths = {
        "features": "features",
        "proxy-frames": "proxy_frames",
        "renders": "renders",
        "proxy": "proxy",
        "initial": "dry",
    }
    given = [
        word for name, value in {**paths, "model": out}.items() for word in (f"--{name}", value)
    ]
    return subprocess.run(
        [sys.executable, *program, *given, "--metrics", f"{out}.json"],
        cwd=project,
        env={**environment, "DIE_AFTER": str(die_after or 0)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_stage_killed_in_the_middle_of_an_epoch_ends_with_the_same_bytes(project: Path) -> None:
    whole = train(project, "whole")
    assert whole.returncode == 0, whole.stderr
    killed = train(project, "again", die_after=6)  # 4 steps an epoch: in the second
    assert (
        killed.returncode == -9
        and not (project / "again").exists()
        and not (project / "again.json").exists()
    )
    (left,) = (project / ".unmixer").glob("*/epoch.pt")
    resumed = train(project, "again", die_after=9)  # the two epochs that are left: 8 steps
    assert resumed.returncode == 0, resumed.stderr
    for name in ("model.safetensors", "model.json"):
        assert (project / "whole" / name).read_bytes() == (project / "again" / name).read_bytes(), (
            name
        )
    reports = [
        json.loads((project / f"{out}.json").read_text(encoding="utf-8"))
        for out in ("whole", "again")
    ]
    assert reports[0] == reports[1] and {"gained", "forgotten.dry"} <= set(reports[0])
    assert not left.exists()
    about = json.loads((project / "again" / "model.json").read_text(encoding="utf-8"))["about"]
    assert about["trained"]["phase"]["epochs"] == 2 and about["trained"]["loss"]["lambda_s"] == 0.0
