"""Inference-time finetuning judged by the host, beside search with the same renders and the same
seconds.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from unmixer_core import config
from unmixer_core.comparison import methods, out_of_domain, page, sensitivity, tables
from unmixer_core.comparison import tools as comparison_tools
from unmixer_core.dataset.clips import Clips
from unmixer_core.evaluation import page as evaluation_page
from unmixer_core.features.store import FeatureTable
from unmixer_core.live.renderer import Renderer
from unmixer_core.model import checkpoint
from unmixer_core.pipeline import machine, run
from unmixer_core.pipeline import state as pipeline_state
from unmixer_core.pipeline.log import StageLog
from unmixer_core.proxy.proxy import RackProxy
from unmixer_core.scoring import score

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
    log: StageLog,
) -> dict[str, float]:
    """Writes `report`/report.html, report.md, rows.csv (a line per clip and contestant),
    over_time_*.csv, sensitivity.csv.
    """
    clips, rate = Clips.open(renders), audio.sample_rate
    frames = FeatureTable.open(features, renders, machine.device())
    twin, unmixer = (
        RackProxy.load(proxy).to(machine.device()),
        checkpoint.load(model, machine.device()).model,
    )
    key = {
        "inputs": pipeline_state.fingerprint(renders, features, proxy, model, strangers),
        "itf": itf,
        "unmix": unmix,
    }
    state = pipeline_state.state_dir("benchmark_itf", {**key, "audio": audio})
    ledger = score.Ledger(state / "clips.jsonl")

    inside = methods.targets(clips, itf.n_clips, rate)
    known = (sample.note_low, sample.note_high)
    found = (
        out_of_domain.read(
            strangers, itf.n_outside, rate=rate, clip_s=audio.clip_s, note_range=known
        )
        if itf.n_outside
        else []
    )
    others = [out_of_domain.target(one) for one in found]
    heard = {t.id: out_of_domain.recorded_note(t, rate) for t in inside} | {
        t.id: o.heard for t, o in zip(others, found, strict=True)
    }
    retrieval = score.index(clips, itf.n_retrieval, rate, machine.threads(), log.progress, state)
    threads = machine.threads() if machine.device().type == "cpu" else 1
    search = unmix.model_copy(update={"seconds": itf.unmix_seconds})
    with Renderer(audio) as host:
        host.render([inside[0].patch, inside[-1].patch])  # hosts are warm before any clock runs
        ring = comparison_tools.BenchmarkHosts(
            unmixer, twin, frames, clips, host, heard, itf, search, rate
        )
        tools = ring.tools(retrieval, threads)
        sounds = methods.run(tools, [*inside, *others], ledger, log.progress)
        if SENSITIVITY not in ledger.rows:
            some = [*score.some(inside, itf.n_sensitivity), *score.some(others, itf.n_sensitivity)]
            first = [
                (target, methods.proposals(tools, target)[0])
                for target in log.progress(some, len(some), "refine")
            ]
            ledger.add(
                SENSITIVITY,
                {
                    "lines": sensitivity.measure(host, twin, first, itf, rate, threads).to_dict(
                        "records"
                    )
                },
            )

    rows, moved = (
        methods.results(ledger, [*inside, *others]),
        pd.DataFrame(ledger.rows[SENSITIVITY]["lines"]),
    )
    flat, grid_s = tables.verdict(rows), np.linspace(0, rows["seconds"].max(), TIMES)
    parts = tables.parts(rows)
    over_time = pd.concat(
        [tables.over_time(part, grid_s).assign(clips=name) for name, part in parts.items()]
    )
    examples = [page.example(t, sounds[t.id]) for t in [*inside, *others] if t.id in sounds]
    shown = examples[:: max(1, len(examples) // EXAMPLES)][:EXAMPLES]
    evaluation_page.write(
        page.page(rows, flat, over_time, moved, shown, rate), shown, report, rate, log
    )
    rows.assign(curve=rows["curve"].map(json.dumps)).to_csv(report / "rows.csv", index=False)
    moved.to_csv(report / "sensitivity.csv", index=False)
    for name, part in over_time.groupby("clips", sort=False):
        part.to_csv(report / f"over_time_{name}.csv", index=False)
        log.figure(f"over_time_{name}", page.time_figure(part))
    return flat


if __name__ == "__main__":
    run.run_stage(main)
