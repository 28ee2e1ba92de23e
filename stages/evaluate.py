"""Predictions on the frozen test split, re-rendered by the host, beside the baselines.

Metrics, plots and a report.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unmixer_core import config
from unmixer_core.dataset.clips import Clips
from unmixer_core.evaluation import detection, measurement, prediction, proxy_gap, recovery
from unmixer_core.evaluation import page as evaluation_page
from unmixer_core.evaluation import summary as evaluation_summary
from unmixer_core.features.store import FeatureTable
from unmixer_core.live.renderer import Renderer
from unmixer_core.model import checkpoint
from unmixer_core.pipeline import machine, run
from unmixer_core.pipeline import state as pipeline_state
from unmixer_core.pipeline.log import StageLog
from unmixer_core.proxy.proxy import RackProxy
from unmixer_core.scoring import baselines
from unmixer_core.scoring import neighbours as scoring_neighbours
from unmixer_core.scoring import score as scoring_score
from unmixer_core.scoring import targets as scoring_targets


def main(
    renders: Path,
    features: Path,
    proxy: Path,
    model: Path,
    report: Path,
    audio: config.Audio,
    score: config.Score,
    evaluate: config.Evaluate,
    log: StageLog,
) -> dict[str, float]:
    """Writes `report`/report.html, report.md, rows.parquet (a line per clip and row) and mss.csv
    (for dvc plots).
    """
    clips = Clips.open(renders)
    threads = machine.threads()
    rate = audio.sample_rate
    frames = FeatureTable.open(features, renders, machine.device())
    twin = RackProxy.load(proxy).to(machine.device())
    unmixer = checkpoint.load(model, machine.device()).model
    key = {
        "inputs": pipeline_state.fingerprint(renders, features, proxy, model),
        "audio": audio,
        "score": score,
        "evaluate": evaluate,
    }
    state = pipeline_state.state_dir("evaluate", key)
    ledger = scoring_score.Ledger(state / "rows.jsonl")

    chosen = scoring_targets.choose(clips.patches, evaluate)
    test = scoring_targets.targets(clips.audio, clips.patches, chosen, evaluate, rate)
    indexed = scoring_neighbours.index(
        clips, evaluate.n_retrieval, rate, threads, log.progress, state
    )
    nearest = scoring_neighbours.retrieve(indexed, test, max(1, evaluate.seeds))
    beliefs = prediction.predict(unmixer, frames, test, evaluate, log.progress)
    pools = prediction.with_seeds(beliefs.candidates, test, nearest, clips.patches, evaluate.seeds)
    best = prediction.best_by_proxy(twin, pools, test, rate, log.progress, threads=threads)

    train = scoring_targets.prior(clips.patches)
    neighbours = {clip: clips.patches[near.clips[0]] for clip, near in nearest.items()}
    jobs = measurement.render_jobs(test, beliefs.point, best, train, neighbours, evaluate)
    shown = scoring_targets.shown(test, evaluate.n_examples)
    keep = [("prediction", target.clip) for target in shown]
    with Renderer(audio) as host:
        rows, sounds = scoring_score.score(
            host, jobs, test, rate, ledger, threads=threads, progress=log.progress, keep=keep
        )
        compared = scoring_targets.some(test, evaluate.n_gap)
        again = host.render([target.patch for target in compared])
    rows = scoring_neighbours.nearest_rows(rows, test, nearest, clips.audio, rate)
    effects = detection.judged(
        unmixer, frames, [target for target in test if target.phase == "full"], rows
    )

    truth = clips.patches.select(np.array([target.clip for target in test]))
    found = recovery.Recovered(truth, beliefs.point, baselines.Majority.of(train), beliefs.pit)
    gap = proxy_gap.measure(twin, compared, again, rate, keep=evaluate.n_examples)
    flat = measurement.flat_metrics(
        rows, test, train, found, effects, gap, best, beliefs.candidates, score
    )

    examples = [
        evaluation_page.example(
            t, sounds.get(("prediction", t.clip)), clips.audio(nearest[t.clip].clips[0])
        )
        for t in shown
    ]
    last = found.select(np.flatnonzero(truth.phase == test[-1].phase))
    page = evaluation_page.evaluation_page(
        flat, rows, evaluation_summary.ROWS, last, effects, gap, examples, rate
    )
    evaluation_page.write(page, examples, report, rate, log)
    evaluation_page.log_gap(gap, log)
    rows.to_parquet(report / "rows.parquet", index=False)
    evaluation_summary.plot_rows(rows).to_csv(report / "mss.csv", index=False)
    return flat


if __name__ == "__main__":
    run.run_stage(main)
