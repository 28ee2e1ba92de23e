"""The report of `benchmark_itf`, as a page of `unmixer_core.report.html`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from unmixer_core.comparison import sensitivity, tables
from unmixer_core.evaluation import page as evaluation_page
from unmixer_core.evaluation.page import Example
from unmixer_core.report import plots
from unmixer_core.report.html import Report
from unmixer_core.scoring.score import ScoreTarget

HOW = (
    "Every contestant's patch is rendered by the host and compared with the clip. no_itf is what "
    "the proxy ranks first among "
    "the network's proposals and the nearest training patches; itf refines those through the "
    "proxy; itf_verify lets the host "
    "choose among all of them; encoder_itf tunes the encoder instead (as InverSynth II), the host "
    "choosing the step; unmix is "
    "the whole search of the command. CMA-ES searches host renders from the init patch: with the "
    "renders and the seconds of "
    "itf_verify, and with the seconds of unmix. Nearest is the better of the nearest training "
    "render and its patch played "
    "at the clip's note."
)
HEADINGS = {
    "inside": "In-domain: {n} frozen full-chain test clips, note and gate told",
    "outside": "From outside: {n} clips that no synthesizer of ours made, note and gate heard",
}
GAINS = (
    "Against the same prediction without ITF: drop of the median MSS, share of clips "
    "improved, share made worse."
)
MOVED = (
    "The first candidate of each clip refined with one setting moved at a time; medians of "
    "the host's MSS."
)
ORDER_WORDS = {"pair_order": "audible pairs in order, share"}
SENSITIVITY_WORDS = {
    "before_db": "before, dB",
    "refined_db": "refined, dB",
    "mss_db": "better of both, dB",
    "share_improved": "improved, share",
}
SHOWN = ("no_itf", "itf_verify", "unmix", "nearest", "cma_equal_seconds")


def example(target: ScoreTarget, sounds: Mapping[str, np.ndarray]) -> Example:
    """Target, prediction and the same after ITF + verify, the whole search, nearest, and CMA-ES
    with the same seconds.
    """
    chain = " > ".join(target.patch.effects) or "no effects"
    rows = [row for row in SHOWN if row in sounds]
    return Example(
        f"clip-{target.id}",
        f"Clip {target.id} ({target.phase}): {chain}",
        {"target": target.audio, **{r: sounds[r] for r in rows}},
    )


def page(
    rows: pd.DataFrame,
    flat: Mapping[str, float],
    over_time: pd.DataFrame,
    moved: pd.DataFrame,
    examples: Sequence[Example],
    sample_rate: int,
) -> Report:
    """The report of `benchmark_itf`: contestants, gains, quality over time, sensitivity, examples.

    rows, over_time: of `contest_tables`; moved: of `sensitivity.measure`.
    """
    report = Report("Neural Un-Mixer: inference-time finetuning, judged by the host")
    report.text(HOW)
    for name, part in tables.parts(rows).items():
        report.heading(HEADINGS[name].format(n=part["id"].nunique()))
        evaluation_page.measured(
            report,
            tables.table(part).rename(columns=ORDER_WORDS),
            "Medians per contestant; seconds are wall clock on this machine.",
        )
        _gains(report, flat, "" if name == tables.DOMAINS[0] else f"{name}.")
        groups = {
            str(row): lines["mss_db"].tolist() for row, lines in part.groupby("row", sort=False)
        }
        report.figure(plots.boxes(groups, "MSS, dB"), "MSS per contestant")
        report.figure(
            time_figure(over_time[over_time["clips"] == name]), "Median best MSS over time"
        )
    if len(moved):
        report.heading(f"Sensitivity of ITF ({moved['id'].nunique()} clips)")
        report.table(sensitivity.table(moved).rename(columns=SENSITIVITY_WORDS), MOVED)
    evaluation_page.show(report, examples, sample_rate)
    return report


def _gains(report: Report, flat: Mapping[str, float], prefix: str) -> None:
    """What refinement gained against the same prediction without it, for those that competed."""
    keys = ("gain", "share_improved", "share_worse")
    names = [name for name in tables.REFINED if f"{prefix}{name}.gain" in flat]
    lines = {name: {key: flat[f"{prefix}{name}.{key}"] for key in keys} for name in names}
    if lines:
        report.table(pd.DataFrame(lines).T, GAINS)


def time_figure(over_time: pd.DataFrame) -> plots.Figure:
    """Quality over time, one line per contestant. over_time: columns row, seconds, mss_db."""
    lines = {
        str(row): (part["seconds"].tolist(), part["mss_db"].tolist())
        for row, part in over_time.groupby("row", sort=False)
    }
    return plots.curves(lines, "seconds", "median MSS, dB")
