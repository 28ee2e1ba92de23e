"""Predictions on the frozen test split, re-rendered by the host, beside the baselines: metrics, plots and a report."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unmixer_core import (
    baselines,
    config,
    detection,
    evaluation,
    identifiability,
    pages,
    prediction,
    proxy_gap,
    recovery,
    stage,
)
from unmixer_core.audio import Clips
from unmixer_core.features import Features
from unmixer_core.live.render import Renderer
from unmixer_core.model import checkpoint
from unmixer_core.proxy.proxy import Proxy


def main(
    renders: Path,
    features: Path,
    proxy: Path,
    model: Path,
    report: Path,
    audio: config.Audio,
    score: config.Score,
    evaluate: config.Evaluate,
    log: stage.Log,
) -> dict[str, float]:
    """Writes `report`/report.html, report.md, rows.parquet (a line per clip and row) and mss.csv (for dvc plots)."""
    clips, threads, rate = Clips.open(renders), stage.threads(), audio.sample_rate
    frames = Features.open(features, renders, stage.device())
    twin, unmixer = Proxy.load(proxy).to(stage.device()), checkpoint.load(model, stage.device()).model
    key = {
        "inputs": stage.fingerprint(renders, features, proxy, model),
        "audio": audio,
        "score": score,
        "evaluate": evaluate,
    }
    state = stage.state_dir("evaluate", key)
    ledger = evaluation.Ledger(state / "rows.jsonl")

    chosen = evaluation.choose(clips.patches, evaluate)
    test = evaluation.targets(clips.audio, clips.patches, chosen, evaluate, rate)
    indexed = evaluation.index(clips, evaluate.n_retrieval, rate, threads, log.progress, state)
    nearest = evaluation.retrieve(indexed, test, max(1, evaluate.seeds))
    beliefs = prediction.predict(unmixer, frames, test, evaluate, log.progress)
    pools = prediction.with_seeds(beliefs.candidates, test, nearest, clips.patches, evaluate.seeds)
    best = prediction.best_by_proxy(twin, pools, test, rate, log.progress, threads=threads)

    train = evaluation.prior(clips.patches)
    neighbours = {clip: clips.patches[near.clips[0]] for clip, near in nearest.items()}
    jobs = evaluation.prediction_jobs(test, beliefs.point, best)
    jobs += evaluation.baseline_jobs(test, train, neighbours, evaluate.seed) + detection.without_jobs(test)
    jobs += identifiability.other_jobs(test, evaluate.n_ceiling, evaluate.seed)
    shown = evaluation.shown(test, evaluate.n_examples)
    keep = [("prediction", target.clip) for target in shown]
    with Renderer(audio) as host:
        rows, sounds = evaluation.score(
            host, jobs, test, rate, ledger, threads=threads, progress=log.progress, keep=keep
        )
        compared = evaluation.some(test, evaluate.n_gap)
        again = host.render([target.patch for target in compared])
    rows = evaluation.nearest_rows(rows, test, nearest, clips.audio, rate)
    effects = detection.judged(unmixer, frames, [target for target in test if target.phase == "full"], rows)

    truth = clips.patches.select(np.array([target.clip for target in test]))
    found = recovery.Recovered(truth, beliefs.point, baselines.Majority.of(train), beliefs.pit)
    gap = proxy_gap.measure(twin, compared, again, rate, keep=evaluate.n_examples)
    flat = evaluation.summarise(rows, evaluation.ROWS, score) | recovery.by_phase(found, score.coverage)
    flat |= detection.flat(effects, "full") | prediction.share_of_network(best, beliefs.candidates, test)
    flat |= identifiability.beside(rows, test, train) | proxy_gap.flat(gap)

    examples = [
        pages.example(t, sounds.get(("prediction", t.clip)), clips.audio(nearest[t.clip].clips[0])) for t in shown
    ]
    last = found.select(np.flatnonzero(truth.phase == test[-1].phase))
    page = pages.evaluation_page(flat, rows, evaluation.ROWS, last, effects, gap, examples, rate)
    pages.write(page, examples, report, rate, log)
    pages.log_gap(gap, log)
    rows.to_parquet(report / "rows.parquet", index=False)
    evaluation.plot_rows(rows).to_csv(report / "mss.csv", index=False)
    return flat


if __name__ == "__main__":
    stage.run(main)
