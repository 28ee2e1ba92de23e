"""Inference-time finetuning judged by the host, beside search with the same renders and the same seconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from unmixer_core import config, contest, evaluation, pages, prediction, stage
from unmixer_core.audio import Clips
from unmixer_core.features import Features
from unmixer_core.live.render import Renderer
from unmixer_core.model import checkpoint
from unmixer_core.proxy.proxy import Proxy

EXAMPLES = 3
TIMES = 60


def main(
    renders: Path,
    features: Path,
    proxy: Path,
    model: Path,
    report: Path,
    audio: config.Audio,
    itf: config.Itf,
    log: stage.Log,
) -> dict[str, float]:
    """Writes `report`/report.html, report.md, rows.csv (a line per clip and contestant), over_time.csv (dvc plots)."""
    clips, rate = Clips.open(renders), audio.sample_rate
    frames = Features.open(features, renders, stage.device())
    twin, unmixer = Proxy.load(proxy).to(stage.device()), checkpoint.load(model, stage.device()).model
    key = {"inputs": stage.fingerprint(renders, features, proxy, model), "audio": audio, "itf": itf}
    state = stage.state_dir("benchmark_itf", key)
    ledger = evaluation.Ledger(state / "clips.jsonl")

    test = contest.targets(clips, itf.n_clips, rate)
    retrieval = evaluation.index(clips, itf.n_retrieval, rate, stage.threads(), log.progress, state)
    with Renderer(audio) as host:
        host.render([test[0].patch, test[-1].patch])  # hosts are warm before any clock runs
        tools = contest.Tools(
            host,
            twin,
            lambda target, seeds: prediction.pool(unmixer, frames, target, itf, seeds),
            retrieval,
            clips,
            rate,
            itf,
            stage.threads() if stage.device().type == "cpu" else 1,
        )
        sounds = contest.run(tools, test, ledger, log.progress)

    rows = contest.results(ledger, test)
    flat, over_time = contest.verdict(rows), contest.over_time(rows, np.linspace(0, rows["seconds"].max(), TIMES))
    examples = [pages.itf_example(target, sounds[target.id]) for target in test if target.id in sounds][:EXAMPLES]
    page = pages.itf_page(contest.table(rows), flat, over_time, rows, examples, rate)
    pages.write(page, examples, report, rate, log)
    rows.assign(curve=rows["curve"].map(json.dumps)).to_csv(report / "rows.csv", index=False)
    over_time.to_csv(report / "over_time.csv", index=False)
    log.figure("over_time", pages.time_figure(over_time))
    return flat


if __name__ == "__main__":
    stage.run(main)
