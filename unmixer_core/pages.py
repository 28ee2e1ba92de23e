"""The two reports: what `evaluate` and `benchmark_itf` found, as pages of `unmixer_core.report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from unmixer_core import plots, recovery
from unmixer_core.evaluation import BEST, MEASURES, Target
from unmixer_core.report import Report

WORDS = {
    "mss_db": "MSS, dB ↓",
    "wmfcc": "wMFCC ↓",
    "sot": "SOT ↓",
    "rms": "RMS cosine ↑",
    "level_db": "log-mel L1, dB ↓",
    "n": "clips",
    "mss_db_low": "MSS low",
    "mss_db_high": "MSS high",
    "beats_nearest": "below nearest, share",
    "seconds": "seconds",
    "renders": "renders",
}
HOW = (
    "MSS is blind to level (each sound relative to its own peak, floor -80 dB); the log-mel L1 beside it is not. "
    "Every row but nearest_as_is was rendered by the host. Nearest is, per clip, the better of the closest training "
    "render as it is and its patch played at the target's note and gate. Prediction_mode is the network's "
    "single best guess. Prediction is what the proxy ranks first among the network's K candidates and the patches of "
    "the nearest training renders, rendered once; no refinement and no search on the host. "
    "Low and high bound the bootstrap interval of the median."
)


class Log(Protocol):
    """The part of a stage's log that takes a report."""

    def text(self, name: str, text: str) -> None: ...
    def artifact(self, path: Path) -> Any: ...
    def audio(self, name: str, audio: np.ndarray, sample_rate: int) -> None: ...


@dataclass(frozen=True)
class Example:
    """One clip to look at and to listen to: a name for files, a title and named sounds [2, time]."""

    name: str
    title: str
    sounds: Mapping[str, np.ndarray]


def example(target: Target, prediction: np.ndarray | None, nearest: np.ndarray) -> Example:
    """Target, prediction and nearest training render of one clip; a prediction that could not be rendered is silent."""
    heard = np.zeros_like(target.audio) if prediction is None else prediction
    chain = " > ".join(target.patch.effects) or "no effects"
    title = f"Clip {target.id}, MIDI note {target.patch.note}: {chain}"
    return Example(f"clip-{target.id}", title, {"target": target.audio, "prediction": heard, "nearest": nearest})


def itf_example(target: Target, sounds: Mapping[str, np.ndarray]) -> Example:
    """Target, prediction and the same after ITF + verify, nearest, and CMA-ES with the same seconds."""
    chain = " > ".join(target.patch.effects) or "no effects"
    rows = ("no_itf", "itf_verify", "nearest", "cma_equal_seconds")
    return Example(
        f"clip-{target.id}", f"Clip {target.id}: {chain}", {"target": target.audio, **{r: sounds[r] for r in rows}}
    )


def phase_table(flat: Mapping[str, float], phase: str, rows: Sequence[str]) -> pd.DataFrame:
    """Flat metrics `<phase>.<row>.<measure>` as a table: rows in the given order, columns of WORDS."""
    columns = ["n", "mss_db", "mss_db_low", "mss_db_high", *MEASURES[1:], "beats_nearest"]
    present = [row for row in rows if f"{phase}.{row}.mss_db" in flat]
    values = {row: {column: flat.get(f"{phase}.{row}.{column}", float("nan")) for column in columns} for row in present}
    return pd.DataFrame.from_dict(values, orient="index", columns=columns)


def limits_table(flat: Mapping[str, float]) -> pd.DataFrame:
    """Each bounded measure of the metrics: what was found, the majority's answer, the ceiling and the clips it rests on."""
    ending = "_ceiling"
    names = [key.removesuffix(ending) for key in flat if key.endswith(ending)]
    columns = {"found": "", "always the commonest": "_majority", "ceiling": ending, "ceiling from clips": f"{ending}_n"}
    lines = {n: {title: flat.get(n + end, float("nan")) for title, end in columns.items()} for n in names}
    return pd.DataFrame.from_dict(lines, orient="index", columns=list(columns))


def evaluation_page(
    flat: Mapping[str, float],
    rows: pd.DataFrame,
    names: Sequence[str],
    found: recovery.Recovered,
    effects: pd.DataFrame,
    gap: pd.DataFrame,
    examples: Sequence[Example],
    sample_rate: int,
) -> Report:
    """The report of `evaluate`: tables and boxes per phase, parameters, chain, calibration, proxy gap, examples."""
    report = Report("Neural Un-Mixer: evaluation on the frozen test split")
    report.text(HOW)
    for phase in dict.fromkeys(rows["phase"]):
        report.heading(f"Phase: {phase}")
        _measured(report, phase_table(flat, phase, names), f"Medians over the {phase} test clips.")
        part = rows[rows["phase"] == phase]
        report.figure(
            plots.boxes({name: part.loc[part["row"] == name, "mss_db"].tolist() for name in names}, "MSS, dB"),
            f"MSS, {phase}",
        )
    _parameters(report, found, effects)
    limits = limits_table(flat)
    if len(limits):
        report.heading("What can be told at all")
        report.table(
            limits,
            "Ceiling: the host renders the true patch with that answer replaced; where the sound changes by less than 1 dB MSS "
            "half of the answers are lost. Exact chains: the share of clips in which every effect changes it by 1 dB.",
        )
    if len(gap):
        report.heading("Proxy gap")
        report.table(
            gap, "MSS between the proxy and the host on the same true patches of the test split, at the proxy's rate."
        )
    _examples(report, examples, sample_rate)
    return report


def write(page: Report, examples: Sequence[Example], folder: Path, sample_rate: int, log: Log) -> None:
    """The page into its folder; page, words and sounds into the run's log."""
    page.write(folder)
    log.text("report.md", page.markdown())
    log.artifact(folder / "report.html")
    for example in examples:
        for name, sound in example.sounds.items():
            log.audio(f"{example.name}-{name}", sound, sample_rate)


def itf_page(
    table: pd.DataFrame,
    flat: Mapping[str, float],
    over_time: pd.DataFrame,
    rows: pd.DataFrame,
    examples: Sequence[Example],
    sample_rate: int,
) -> Report:
    """The report of `benchmark_itf`: contestants, quality over time, gain, examples."""
    report = Report("Neural Un-Mixer: inference-time finetuning, judged by the host")
    report.text(
        f"{int(flat['clips'])} frozen full-chain test clips. "
        "CMA-ES searches on host renders from the init patch, with the renders, "
        "and then the seconds, that ITF + verify took. Seconds are wall clock on the machine that ran this."
    )
    _measured(report, table, "Medians per contestant.")
    gains = pd.DataFrame(
        {
            name: {key: flat[f"{name}.{key}"] for key in ("gain", "share_improved", "share_worse")}
            for name in ("itf", "itf_verify")
        }
    ).T
    report.table(
        gains,
        "Against the same prediction without ITF: drop of the median MSS, share of clips improved, share made worse.",
    )
    groups = {str(name): part["mss_db"].tolist() for name, part in rows.groupby("row", sort=False)}
    report.figure(plots.boxes(groups, "MSS, dB"), "MSS per contestant")
    report.figure(time_figure(over_time), "Median best MSS over time")
    _examples(report, examples, sample_rate)
    return report


def time_figure(over_time: pd.DataFrame) -> plots.Figure:
    """Quality over time, one line per contestant. over_time: columns row, seconds, mss_db."""
    lines = {
        str(row): (part["seconds"].tolist(), part["mss_db"].tolist())
        for row, part in over_time.groupby("row", sort=False)
    }
    return plots.curves(lines, "seconds", "median MSS, dB")


def _measured(report: Report, table: pd.DataFrame, caption: str) -> None:
    report.table(table.rename(columns=WORDS), caption, {WORDS[column]: how for column, how in BEST.items()})


def _parameters(report: Report, found: recovery.Recovered, effects: pd.DataFrame) -> None:
    report.heading("Which effects")
    report.table(
        effects,
        "Full-chain test clips, each effect by itself, said to be there above the threshold that suits F1. Always: F1 of "
        "naming it every time. Audible: of the clips that have it, the share that changes by 1 dB MSS or more without it; "
        "ceiling: F1 of an oracle that names it in exactly those.",
    )
    report.heading("Effect chain")
    report.table(
        recovery.chain_table(found),
        "Full-chain test clips. Ceiling: what a model that hears all that can be heard would reach.",
    )
    counts, labels = recovery.slot_confusion(found)
    report.figure(
        plots.confusion(counts, labels, labels, "effect by slot, % of the true row"), "Chain confusion by slot"
    )
    report.heading("Choices")
    report.table(recovery.choice_table(found), "Accuracy over the clips in which the choice can be heard.")
    report.heading("Knobs")
    knobs = recovery.knob_table(found)
    mae, mean_patch = (
        {str(key): float(value) for key, value in knobs[column].items()} for column in ("mae", "mean_patch")
    )
    report.figure(
        plots.bars(mae, "mean absolute error, unit; tick: mean patch", mean_patch), "Knob error over active knobs"
    )
    report.figure(plots.reliability(recovery.active_pit(found)), "Coverage of predictive intervals")


def _examples(report: Report, examples: Sequence[Example], sample_rate: int) -> None:
    if examples:
        report.heading("Examples")
    for example in examples:
        report.text(example.title)
        report.figure(plots.spectrograms(example.sounds, sample_rate))
        report.players(example.sounds, sample_rate)
