"""The stage: both kinds are trained and reported, and the pipeline goes on with the one that
params.yaml names.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stages import train_proxy
from tests.model import tiny
from tests.proxy.conftest import CLIP_S, RATE, batch
from tests.test_proxy_clips import SPEC
from unmixer_core import config, proxy_clips, sampling
from unmixer_core.model.targets import Targets
from unmixer_core.model.unmixer import context_of
from unmixer_core.pipeline import log
from unmixer_core.proxy.neural import NeuralProxy
from unmixer_core.proxy.proxy import RackProxy
from unmixer_core.schema.patch import Patches
from unmixer_core.training import curriculum, losses

SMALL = {
    "sample_rate": RATE,
    "table_positions": 0,
    "batch": 2,
    "steps_dry": 1,
    "steps_effects": 1,
    "steps_chains": 0,
    "held_out": 4,
    "n_ffts": (256, 64),
    "neural_clips": 8,
    "neural_steps": 3,
    "neural_batch": 4,
    "neural_width": 4,
}


class Clips(SimpleNamespace):
    """What the stages read of rendered clips, made by an uncalibrated proxy."""

    def audio(self, row: int) -> np.ndarray:
        return self.sounds[row]


@pytest.fixture(scope="module")
def clips(params: config.Params) -> Clips:
    drawn = [("dry", "train", 6), ("full", "train", 8), ("dry", "valid", 4), ("full", "valid", 5)]
    parts = [
        Patches.stack([sampling.draw(p, s, i, 3, params.sample) for i in range(n)], p, s)
        for p, s, n in drawn
    ]
    patches = Patches.concat(parts)
    with torch.no_grad():
        sounds = RackProxy(RATE, CLIP_S)(*batch(list(patches))).numpy()
    return Clips(patches=patches, rate=RATE, sounds=sounds)


@pytest.fixture(params=["ddsp", "neural"])
def trained(
    request: pytest.FixtureRequest,
    clips: Clips,
    params: config.Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[str, Path, dict[str, float]]:
    """(kind, its folder, the stage's metrics)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stages.train_proxy.Clips.open", lambda folder: clips)
    (tmp_path / "renders").mkdir()
    (tmp_path / "renders/patches.parquet").write_bytes(b"clips")
    audio = params.audio.model_copy(update={"clip_s": CLIP_S, "sample_rate": RATE})
    settings = params.proxy.model_copy(update={**SMALL, "kind": request.param})
    report = train_proxy.main(
        tmp_path / "renders", tmp_path / "proxy", audio, settings, log.StageLog()
    )
    return request.param, tmp_path / "proxy", report


def test_both_kinds_are_reported_and_the_named_one_carries_the_pipeline(
    trained: tuple[str, Path, dict[str, float]], clips: Clips
) -> None:
    kind, folder, report = trained
    for key in ("dry.mss", "full.mss", "full.random", "full.level_db"):
        assert np.isfinite(report[key]) and np.isfinite(report[f"neural.{key}"])
    assert np.isfinite(report["neural.levels_db"])
    twin = RackProxy.load(folder)
    assert isinstance(twin, NeuralProxy if kind == "neural" else RackProxy)
    settings = config.ProxyClips(seed=8, n_dry=2, n_nonlinear=0, n_full=2, batch=2, shard_clips=2)
    # Whatever the small proxies play is usable: nothing is below −120 LUFS but digital silence.
    limits = config.Render(min_loudness_lufs=-120.0, max_peak=1e9, max_redraws=0, shard_clips=2)
    plan = proxy_clips.Plan(settings, tiny.PRIOR, limits, SPEC)
    table, found = proxy_clips.frames_of(twin.eval(), plan.shards()[1], plan)
    assert len(table) == len(found) == 2 and np.isfinite(found.astype(np.float32)).all()

    targets = Targets.of(clips.patches)[np.arange(3)]
    context = context_of(targets)
    knobs = targets.knobs.clone().requires_grad_()
    draw = SimpleNamespace(knobs=knobs, context=context)
    sounds = curriculum.Sounds(twin.requires_grad_(False), clips)
    sounds(draw, targets, np.arange(3)).sum().backward()
    assert knobs.grad is not None and torch.isfinite(knobs.grad).all() and (knobs.grad != 0).any()
    heard = losses.rendered(twin, draw, targets.note, targets.gate_s)
    assert heard.shape == (3, 2, round(RATE * CLIP_S))
