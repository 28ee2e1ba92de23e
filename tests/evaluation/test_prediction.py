from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.comparison.test_methods import LinearHost
from tests.inference.test_finetune import RATE, patch
from unmixer_core.evaluation import prediction
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.scoring.targets import ScoreTarget


def target(clip: int, first: float, second: float) -> ScoreTarget:
    sound = LinearHost().render([patch(first, second)])[0]
    return ScoreTarget(
        clip,
        clip,
        "full",
        patch(first, second),
        sound,
        metrics_sound.mss_features(sound, RATE),
        True,
        True,
    )


@pytest.mark.parametrize("threads", [1, 3])
def test_the_proxy_picks_each_targets_closest_candidate(threads: int) -> None:
    test = [target(0, 0.7, 0.3), target(1, 0.2, 0.8), target(2, 0.5, 0.5)]
    pools = [
        [patch(0.1, 0.9), patch(0.68, 0.3)],
        [patch(0.22, 0.8), patch(0.9, 0.1)],
        [patch(0.5, 0.5)],
    ]
    before = torch.get_num_threads()
    best = prediction.best_by_proxy(LinearHost().proxy, pools, test, RATE, threads=threads)
    assert [pool.index(found) for pool, found in zip(pools, best, strict=True)] == [1, 0, 0]
    assert torch.get_num_threads() == before


def test_the_share_of_the_network_counts_its_own_candidates() -> None:
    test = [target(0, 0.7, 0.3), target(1, 0.2, 0.8)]
    mine = [[patch(0.1, 0.9)], [patch(0.22, 0.8)]]
    found = prediction.share_of_network([mine[0][0], patch(0.22, 0.8)], mine, test)
    assert found == {"full.prediction.from_network": 0.5}
    assert np.isfinite(list(found.values())).all()
