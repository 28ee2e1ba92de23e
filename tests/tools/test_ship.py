"""What is shipped gives the answers of the model that it was made from."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.model import tiny
from tools import run_profile as profile_run
from tools import ship
from unmixer_core.model import checkpoint
from unmixer_core.proxy.proxy import RackProxy

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture()
def run(tmp_path: Path) -> Path:
    """A finished run with a model that has seen some data."""
    model = tiny.model()
    features, targets = tiny.batch(16)
    model.train()(features, targets.note, targets.gate_s)
    checkpoint.save(tmp_path / "models" / "full", model, tiny.section(tiny.MODEL), {})
    RackProxy(22050, 0.5).save(tmp_path / "models" / "proxy")
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "evaluate.json").write_text(json.dumps({"full.prediction.mss_db": 4.5}))
    (tmp_path / "params.yaml").write_text((REPO / "params.yaml").read_text())
    return tmp_path


def test_halved_weights_give_the_same_beliefs(run: Path, tmp_path: Path) -> None:
    ship.ship(run, tmp_path / "out")
    whole, half = (
        checkpoint.load(folder).model for folder in (run / "models" / "full", tmp_path / "out")
    )
    features, targets = tiny.batch(8, seed=9)
    with torch.no_grad():
        a, b = (model(features, targets.note, targets.gate_s) for model in (whole, half))
    assert (torch.sigmoid(a.classes.present) - torch.sigmoid(b.classes.present)).abs().max() < 0.01
    sizes = [
        (folder / "model.safetensors").stat().st_size
        for folder in (run / "models" / "full", tmp_path / "out")
    ]
    assert sizes[1] < 0.65 * sizes[0]
    assert RackProxy.load(tmp_path / "out" / "proxy").sample_rate == 22050


def test_the_card_quotes_the_runs_numbers_and_data(run: Path, tmp_path: Path) -> None:
    ship.ship(run, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "4.500" in text and "GPL-3.0" in text and "full-chain" in text
    with pytest.raises(FileNotFoundError):
        ship.ship(tmp_path / "nothing", tmp_path / "other")


def test_the_card_names_the_commit_of_the_run_not_that_of_this_tree(
    run: Path, tmp_path: Path
) -> None:
    git = ["git", "-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "the run's"]):
        subprocess.run([*git, *command], cwd=run, check=True)
    ship.ship(run, tmp_path / "out")
    theirs = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=run, capture_output=True, text=True, check=True
    ).stdout
    text = (tmp_path / "out" / "README.md").read_text()
    assert theirs[:7] in text and ship.commit_of(REPO) not in text


def test_a_profiles_copy_stands_at_this_trees_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands, really = [], subprocess.run

    def only_git(command: list[str], **options: Any) -> Any:
        commands.append(command)
        return really(command, **options) if command[0] == "git" else None

    monkeypatch.setattr(subprocess, "run", only_git)
    for _ in range(2):  # a run that goes on finds its folder as it left it
        profile_run.run(REPO / "profiles" / "smoke.yaml", tmp_path)
    assert ship.commit_of(tmp_path) == ship.commit_of(REPO) != "unknown"
    assert ["dvc", "repro"] in commands and (tmp_path / "stages").is_dir()


def test_what_is_shipped_loads_and_is_small() -> None:
    folder = REPO / "models" / "pretrained"
    if not folder.exists():
        pytest.skip("nothing is shipped yet")
    assert checkpoint.load(folder).model and RackProxy.load(folder / "proxy")
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 40e6
