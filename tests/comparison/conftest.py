"""Resources and a target of the comparison, on a proxy and a host that are linear in two knobs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.comparison.test_methods import LinearHost
from tests.inference.test_finetune import RATE, patch
from unmixer_core import config
from unmixer_core.comparison import cma_es
from unmixer_core.comparison.resources import BenchmarkResources
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.schema.patch import Patch, Patches
from unmixer_core.scoring.targets import ScoreTarget


class OneNeighbour:
    """Always clip 0."""

    def nearest(self, features: Any, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(k, dtype=np.int64), np.zeros(k)


class OneClip:
    """Training clips: one patch, and the host's sound of it."""

    def __init__(self, host: LinearHost) -> None:
        self.host = host
        self.patches = Patches.stack([patch(0.9, 0.05)], "full", "train")

    def audio(self, clip: int) -> np.ndarray:
        return self.host.render([self.patches[clip]])[0]


@pytest.fixture()
def resources(params: config.Params) -> BenchmarkResources:
    host = LinearHost()
    itf = params.itf.model_copy(
        update={
            "steps": 40,
            "lr": 0.2,
            "lambda_b": 0.0,
            "clip_norm": 0.0,
            "logit_limit": 5.2,
            "clip_s": 0.5,
            "seeds": 1,
            "candidates": 2,
            "proposals": 3,
            "cma_population": 4,
            "cma_sigma": 0.2,
            "cma_max_seconds": 1.0,
            "seed": 1,
        }
    )

    def propose(target: ScoreTarget, seeds: list[Patch]) -> list[Patch]:
        return [patch(0.05, 0.9), patch(0.5, 0.5), patch(0.6, 0.4), *seeds]

    def tune(target: ScoreTarget, point: Patch) -> list[Patch]:
        return [point, patch(0.4, 0.6), patch(0.65, 0.35), patch(0.1, 0.1)]

    def search(target: ScoreTarget) -> cma_es.SearchResult:
        best = patch(0.7, 0.31)
        sound = host.render([best])[0]
        return cma_es.SearchResult(best, sound, 0.1, 7, 0.5, np.array([(7, 0.4, 0.1)]))

    return BenchmarkResources(
        host, host.proxy, propose, tune, search, OneNeighbour(), OneClip(host), RATE, itf
    )  # type: ignore[arg-type]


@pytest.fixture()
def target() -> ScoreTarget:
    sound = LinearHost().render([patch(0.7, 0.3)])[0]
    return ScoreTarget(
        5, 105, "full", patch(0.7, 0.3), sound, metrics_sound.mss_features(sound, RATE), True, True
    )
