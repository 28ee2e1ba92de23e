"""The benchmark from targets to report, on a linear host; an interrupted one continues."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.inference.test_finetune import RATE, patch
from unmixer_core import config
from unmixer_core.comparison import benchmark, in_domain, methods, out_of_domain, page
from unmixer_core.comparison.entry import METHODS
from unmixer_core.comparison.resources import BenchmarkResources
from unmixer_core.errors import StageError
from unmixer_core.schema.patch import Patches
from unmixer_core.scoring.score import Ledger
from unmixer_core.scoring.targets import ScoreTarget

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "outside"


class QuietLog:
    """A stage's log that remembers which figures it got."""

    def __init__(self) -> None:
        self.figures: list[str] = []

    def text(self, name: str, text: str) -> None: ...
    def artifact(self, path: Path) -> None: ...
    def audio(self, name: str, audio: np.ndarray, sample_rate: int) -> None: ...
    def figure(self, name: str, figure: Any) -> None:
        self.figures.append(name)


def set_of(target: ScoreTarget) -> benchmark.TargetSet:
    outside = replace(target, id=out_of_domain.FIRST_ID, phase="instrument")
    return benchmark.TargetSet([target], [outside], {})


@pytest.fixture()
def small(resources: BenchmarkResources) -> BenchmarkResources:
    changes = {"n_sensitivity": 1, "try_steps": (1,), "try_lr": (), "try_lambda_b": ()}
    return replace(resources, itf=resources.itf.model_copy(update=changes | {"steps": 3}))


def test_the_report_folder_holds_a_line_per_clip_and_method(
    small: BenchmarkResources, target: ScoreTarget, tmp_path: Path
) -> None:
    targets, ledger, log = set_of(target), Ledger(None), QuietLog()
    sounds = benchmark.run(small, targets.all, ledger)
    benchmark.run_sensitivity(small, targets, ledger)
    results = benchmark.results(ledger, targets)
    shown = page.examples(targets.all, sounds)
    page.write(results, shown, tmp_path, RATE, log)
    assert len(results.rows) == 2 * len(METHODS) and len(shown) == 2
    assert {
        "clips",
        "outside.clips",
        "unmix.mss_db",
        "outside.itf.gain",
    } <= results.metrics().keys()
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {"report.html", "report.md", "rows.csv", "sensitivity.csv"}
    assert names >= {"over_time_inside.csv", "over_time_outside.csv"}
    assert log.figures == ["over_time_inside", "over_time_outside"]
    settings = results.sensitivity.groupby("id")["setting"].apply(list).tolist()
    assert settings == [["steps", "steps", "lr", "lambda_b"]] * 2


def test_an_interrupted_benchmark_runs_only_what_is_missing(
    small: BenchmarkResources,
    target: ScoreTarget,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    targets = set_of(target)
    benchmark.run(small, targets.in_domain, Ledger(tmp_path / "clips.jsonl"))
    ledger = Ledger(tmp_path / "clips.jsonl")
    assert list(benchmark.run(small, targets.all, ledger)) == [out_of_domain.FIRST_ID]
    benchmark.run_sensitivity(small, targets, ledger)
    monkeypatch.setattr(methods, "run_methods", None)
    monkeypatch.setattr(methods, "proposals", None)
    again = Ledger(tmp_path / "clips.jsonl")
    assert benchmark.run(small, targets.all, again) == {}
    benchmark.run_sensitivity(small, targets, again)
    assert benchmark.results(again, targets).metrics() == pytest.approx(
        benchmark.results(ledger, targets).metrics()
    )


def test_targets_come_with_the_note_that_unmix_searches_for(params: config.Params) -> None:
    patches = Patches.stack([patch(0.2, 0.3), patch(0.4, 0.5)], "full", "test")
    clips: Any = SimpleNamespace(patches=patches, audio=lambda row: np.ones((2, 8), np.float32))
    itf = params.itf.model_copy(update={"n_clips": 2, "n_outside": 2})
    targets = benchmark.read_targets(clips, FOLDER, params.audio, params.sample, itf)
    assert len(targets.in_domain) == len(targets.out_of_domain) == 2
    for one in targets.all:
        assert targets.notes[one.id].note == one.patch.note
    none = itf.model_copy(update={"n_outside": 0})
    alone = benchmark.read_targets(clips, Path("missing"), params.audio, params.sample, none)
    assert alone.out_of_domain == []


def test_clips_without_a_test_split_are_refused() -> None:
    clips: Any = SimpleNamespace(patches=Patches.stack([patch(0.2, 0.3)], "full", "train"))
    with pytest.raises(StageError, match="no full-chain test split"):
        in_domain.targets(clips, 1, RATE)
