"""What `evaluate` renders, and the flat metrics of what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from unmixer_core import config
from unmixer_core.evaluation import detection, identifiability, prediction, proxy_gap, recovery
from unmixer_core.evaluation import summary as evaluation_summary
from unmixer_core.schema.patch import Patch, Patches
from unmixer_core.scoring import score as scoring_score
from unmixer_core.scoring.score import ScoreJob
from unmixer_core.scoring.targets import ScoreTarget


def render_jobs(
    test: Sequence[ScoreTarget],
    point: Sequence[Patch],
    best: Sequence[Patch],
    train: Patches,
    nearest: Mapping[int, Patch],
    settings: config.Evaluate,
) -> list[ScoreJob]:
    """Every patch to render: predictions, baselines, ablated effects and changed patches.

    `point` and `best` hold one patch a target. `nearest`: test clip → its nearest training patch.
    """
    jobs = scoring_score.prediction_jobs(test, point, best)
    jobs += scoring_score.baseline_jobs(test, train, nearest, settings.seed)
    jobs += detection.without_jobs(test)
    jobs += identifiability.other_jobs(test, settings.n_ceiling, settings.seed)
    return jobs


def flat_metrics(
    rows: pd.DataFrame,
    test: Sequence[ScoreTarget],
    train: Patches,
    found: recovery.Recovered,
    effects: pd.DataFrame,
    gap: proxy_gap.Gap,
    best: Sequence[Patch],
    candidates: Sequence[Sequence[Patch]],
    settings: config.Score,
) -> dict[str, float]:
    """All numbers of metrics/evaluate.json, by key."""
    flat = evaluation_summary.summarise(rows, evaluation_summary.ROWS, settings)
    flat |= recovery.by_phase(found, settings.coverage)
    flat |= detection.flat(effects, "full")
    flat |= prediction.share_of_network(best, candidates, test)
    flat |= identifiability.beside(rows, test, train)
    flat |= proxy_gap.flat(gap)
    return flat
