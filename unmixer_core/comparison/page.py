"""The report of `benchmark_itf`, as a page of `unmixer_core.report.html`, and its CSV files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from unmixer_core.comparison import sensitivity, tables
from unmixer_core.comparison.benchmark import Results, Sounds
from unmixer_core.evaluation import page as evaluation_page
from unmixer_core.evaluation.page import Example
from unmixer_core.pipeline.log import StageLog
from unmixer_core.report import plots
from unmixer_core.report.html import Report
from unmixer_core.scoring.targets import ScoreTarget

#: Examples on the page.
EXAMPLES = 3
#: Methods whose sound an example plays.
EXAMPLE_METHODS = ("no_itf", "itf_verify", "unmix", "nearest", "cma_equal_seconds")
HOW = (
    "The host renders the patch of every method, and its sound is compared with the clip. no_itf "
    "is the patch that the proxy ranks first among the network's proposals and the nearest "
    "training patches. itf refines those through the proxy. itf_verify lets the host choose among "
    "all of them. encoder_itf tunes the encoder instead (as InverSynth II), and the host chooses "
    "the step. unmix is the whole search of the command. CMA-ES searches host renders from the "
    "init patch: with the renders and the seconds of itf_verify, and with the seconds of unmix. "
    "Nearest is the better of the nearest training render and its patch played at the clip's note."
)
HEADINGS = {
    "inside": "In-domain: {n} frozen full-chain test clips, note and gate given",
    "outside": "Out-of-domain: {n} clips that no synthesizer of ours made, note and gate detected",
}
GAINS = (
    "Against the same prediction without ITF: drop of the median MSS, share of clips "
    "improved, share made worse."
)
VARIED = (
    "The first candidate of each clip refined with one setting varied at a time; medians of "
    "the host's MSS."
)
ORDER_WORDS = {"pair_order": "audible pairs in order, share"}
SENSITIVITY_WORDS = {
    "before_db": "before, dB",
    "refined_db": "refined, dB",
    "mss_db": "better of both, dB",
    "share_improved": "improved, share",
}


def examples(targets: Sequence[ScoreTarget], sounds: Sounds) -> list[Example]:
    """Return at most EXAMPLES of the targets that have sounds, evenly spaced."""
    ready = [example(target, sounds[target.id]) for target in targets if target.id in sounds]
    step = max(1, len(ready) // EXAMPLES)
    return ready[::step][:EXAMPLES]


def example(target: ScoreTarget, sounds: Mapping[str, np.ndarray]) -> Example:
    """Return the target beside the sounds of EXAMPLE_METHODS. sounds: by method."""
    chain = " > ".join(target.patch.effects) or "no effects"
    played = {"target": target.audio}
    for method in EXAMPLE_METHODS:
        if method in sounds:
            played[method] = sounds[method]
    return Example(f"clip-{target.id}", f"Clip {target.id} ({target.phase}): {chain}", played)


def page(results: Results, shown: Sequence[Example], sample_rate: int) -> Report:
    """Return the page: methods, gains, quality over time, sensitivity, examples."""
    report = Report("Neural Un-Mixer: inference-time finetuning, judged by the host")
    report.text(HOW)
    flat = results.metrics()
    over_time = results.over_time
    for name, part in tables.parts(results.rows).items():
        report.heading(HEADINGS[name].format(n=part["id"].nunique()))
        evaluation_page.measured(
            report,
            tables.table(part).rename(columns=ORDER_WORDS),
            "Medians per method; seconds are wall clock on this machine.",
        )
        _add_gains(report, flat, "" if name == tables.DOMAINS[0] else f"{name}.")
        distances_db = {}
        for method, lines in part.groupby("row", sort=False):
            distances_db[str(method)] = lines["mss_db"].tolist()
        report.figure(plots.boxes(distances_db, "MSS, dB"), "MSS per method")
        figure = time_figure(over_time[over_time["clips"] == name])
        report.figure(figure, "Median best MSS over time")
    varied = results.sensitivity
    if len(varied):
        report.heading(f"Sensitivity of ITF ({varied['id'].nunique()} clips)")
        report.table(sensitivity.table(varied).rename(columns=SENSITIVITY_WORDS), VARIED)
    evaluation_page.show(report, shown, sample_rate)
    return report


def write(
    results: Results,
    shown: Sequence[Example],
    folder: Path,
    sample_rate: int,
    log: StageLog,
) -> None:
    """Write the page and the tables into a folder, and both into the run's log.

    Files: report.html, report.md, rows.csv (a line per clip and method), sensitivity.csv,
    over_time_<domain>.csv.
    """
    report = page(results, shown, sample_rate)
    evaluation_page.write(report, shown, folder, sample_rate, log)
    curves = results.rows["curve"].map(json.dumps)
    results.rows.assign(curve=curves).to_csv(folder / "rows.csv", index=False)
    results.sensitivity.to_csv(folder / "sensitivity.csv", index=False)
    for name, part in results.over_time.groupby("clips", sort=False):
        part.to_csv(folder / f"over_time_{name}.csv", index=False)
        log.figure(f"over_time_{name}", time_figure(part))


def time_figure(over_time: pd.DataFrame) -> plots.Figure:
    """Plot quality over time, one line per method. over_time: columns row, seconds, mss_db."""
    lines = {}
    for method, part in over_time.groupby("row", sort=False):
        lines[str(method)] = (part["seconds"].tolist(), part["mss_db"].tolist())
    return plots.curves(lines, "seconds", "median MSS, dB")


def _add_gains(report: Report, flat: Mapping[str, float], prefix: str) -> None:
    """A table of each refining method's gain over the same prediction without refinement."""
    keys = ("gain", "share_improved", "share_worse")
    lines = {}
    for method in tables.REFINED:
        if f"{prefix}{method}.gain" in flat:
            lines[method] = {key: flat[f"{prefix}{method}.{key}"] for key in keys}
    if lines:
        report.table(pd.DataFrame(lines).T, GAINS)
