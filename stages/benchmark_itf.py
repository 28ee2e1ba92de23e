"""Inference-time finetuning judged by the host, beside search with the same renders and the same seconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from unmixer_core import (
    arena,
    config,
    contest,
    contest_tables,
    evaluation,
    itf_page,
    outside,
    pages,
    sensitivity,
    stage,
)
from unmixer_core.audio import Clips
from unmixer_core.features import Features
from unmixer_core.live.render import Renderer
from unmixer_core.model import checkpoint
from unmixer_core.proxy.proxy import Proxy

EXAMPLES = 3
TIMES = 60
SENSITIVITY = "sensitivity"


def main(
    renders: Path,
    features: Path,
    proxy: Path,
    model: Path,
    strangers: Path,
    report: Path,
    audio: config.Audio,
    sample: config.Sample,
    itf: config.Itf,
    unmix: config.Unmix,
    log: stage.Log,
) -> dict[str, float]:
    """Writes `report`/report.html, report.md, rows.csv (a line per clip and contestant), over_time_*.csv, sensitivity.csv."""
    clips, rate = Clips.open(renders), audio.sample_rate
    frames = Features.open(features, renders, stage.device())
    twin, unmixer = Proxy.load(proxy).to(stage.device()), checkpoint.load(model, stage.device()).model
    key = {"inputs": stage.fingerprint(renders, features, proxy, model, strangers), "itf": itf, "unmix": unmix}
    state = stage.state_dir("benchmark_itf", {**key, "audio": audio})
    ledger = evaluation.Ledger(state / "clips.jsonl")

    inside = contest.targets(clips, itf.n_clips, rate)
    known = (sample.note_low, sample.note_high)
    found = (
        outside.read(strangers, itf.n_outside, rate=rate, clip_s=audio.clip_s, note_range=known)
        if itf.n_outside
        else []
    )
    others = [outside.target(one) for one in found]
    heard = {t.id: outside.told(t, rate) for t in inside} | {t.id: o.heard for t, o in zip(others, found, strict=True)}
    retrieval = evaluation.index(clips, itf.n_retrieval, rate, stage.threads(), log.progress, state)
    threads = stage.threads() if stage.device().type == "cpu" else 1
    search = unmix.model_copy(update={"seconds": itf.unmix_seconds})
    with Renderer(audio) as host:
        host.render([inside[0].patch, inside[-1].patch])  # hosts are warm before any clock runs
        ring = arena.Ring(unmixer, twin, frames, clips, host, heard, itf, search, rate)
        tools = ring.tools(retrieval, threads)
        sounds = contest.run(tools, [*inside, *others], ledger, log.progress)
        if SENSITIVITY not in ledger.rows:
            some = [*evaluation.some(inside, itf.n_sensitivity), *evaluation.some(others, itf.n_sensitivity)]
            first = [
                (target, contest.proposals(tools, target)[0]) for target in log.progress(some, len(some), "refine")
            ]
            ledger.add(
                SENSITIVITY, {"lines": sensitivity.measure(host, twin, first, itf, rate, threads).to_dict("records")}
            )

    rows, moved = contest.results(ledger, [*inside, *others]), pd.DataFrame(ledger.rows[SENSITIVITY]["lines"])
    flat, grid_s = contest_tables.verdict(rows), np.linspace(0, rows["seconds"].max(), TIMES)
    parts = contest_tables.parts(rows)
    over_time = pd.concat([contest_tables.over_time(part, grid_s).assign(clips=name) for name, part in parts.items()])
    examples = [itf_page.example(t, sounds[t.id]) for t in [*inside, *others] if t.id in sounds]
    shown = examples[:: max(1, len(examples) // EXAMPLES)][:EXAMPLES]
    pages.write(itf_page.page(rows, flat, over_time, moved, shown, rate), shown, report, rate, log)
    rows.assign(curve=rows["curve"].map(json.dumps)).to_csv(report / "rows.csv", index=False)
    moved.to_csv(report / "sensitivity.csv", index=False)
    for name, part in over_time.groupby("clips", sort=False):
        part.to_csv(report / f"over_time_{name}.csv", index=False)
        log.figure(f"over_time_{name}", itf_page.time_figure(part))
    return flat


if __name__ == "__main__":
    stage.run(main)
