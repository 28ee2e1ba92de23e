"""The report of `evaluate`, as a page of `unmixer_core.report.html`, and the parts that other
pages share with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from unmixer_core.evaluation import proxy_gap, recovery
from unmixer_core.pipeline.log import StageLog
from unmixer_core.report import plots
from unmixer_core.report.html import Report
from unmixer_core.scoring.measures import BEST, MEASURES
from unmixer_core.scoring.targets import ScoreTarget

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
    "MSS is blind to level (each sound relative to its own peak, floor -80 dB); the log-mel L1 "
    "beside it is not. "
    "Every row but nearest_as_is was rendered by the host. Nearest is, per clip, the better of "
    "the closest training "
    "render as it is and its patch played at the target's note and gate. Prediction_mode is the "
    "network's "
    "single best guess. Prediction is what the proxy ranks first among the network's K candidates "
    "and the patches of "
    "the nearest training renders, rendered once; no refinement and no search on the host. "
    "Low and high bound the bootstrap interval of the median."
)


@dataclass(frozen=True)
class Example:
    """One clip to look at and to listen to.

    A name for files, a title and named sounds [2, time].
    """

    name: str
    title: str
    sounds: Mapping[str, np.ndarray]


def example(target: ScoreTarget, prediction: np.ndarray | None, nearest: np.ndarray) -> Example:
    """Target, prediction and nearest training render of one clip.

    A prediction that could not be rendered is silent.
    """
    heard = np.zeros_like(target.audio) if prediction is None else prediction
    chain = " > ".join(target.patch.effects) or "no effects"
    title = f"Clip {target.id}, MIDI note {target.patch.note}: {chain}"
    return Example(
        f"clip-{target.id}",
        title,
        {"target": target.audio, "prediction": heard, "nearest": nearest},
    )


def phase_table(flat: Mapping[str, float], phase: str, rows: Sequence[str]) -> pd.DataFrame:
    """Flat metrics `<phase>.<row>.<measure>` as a table.

    Rows in the given order, columns of WORDS.
    """
    columns = ["n", "mss_db", "mss_db_low", "mss_db_high", *MEASURES[1:], "beats_nearest"]
    present = [row for row in rows if f"{phase}.{row}.mss_db" in flat]
    values = {
        row: {column: flat.get(f"{phase}.{row}.{column}", float("nan")) for column in columns}
        for row in present
    }
    return pd.DataFrame.from_dict(values, orient="index", columns=columns)


def limits_table(flat: Mapping[str, float]) -> pd.DataFrame:
    """Each bounded measure of the metrics.

    What was found, the majority's answer, the ceiling and the clips it rests on.
    """
    ending = "_ceiling"
    names = [key.removesuffix(ending) for key in flat if key.endswith(ending)]
    columns = {
        "found": "",
        "always the commonest": "_majority",
        "ceiling": ending,
        "ceiling from clips": f"{ending}_n",
    }
    lines = {
        n: {title: flat.get(n + end, float("nan")) for title, end in columns.items()} for n in names
    }
    return pd.DataFrame.from_dict(lines, orient="index", columns=list(columns))


def evaluation_page(
    flat: Mapping[str, float],
    rows: pd.DataFrame,
    names: Sequence[str],
    found: recovery.Recovered,
    effects: pd.DataFrame,
    gap: proxy_gap.Gap,
    examples: Sequence[Example],
    sample_rate: int,
) -> Report:
    """The report of `evaluate`: tables and boxes per phase, parameters, chain, calibration,
    proxy gap, examples.
    """
    report = Report("Neural Un-Mixer: evaluation on the frozen test split")
    report.text(HOW)
    for phase in dict.fromkeys(rows["phase"]):
        report.heading(f"Phase: {phase}")
        measured(report, phase_table(flat, phase, names), f"Medians over the {phase} test clips.")
        part = rows[rows["phase"] == phase]
        report.figure(
            plots.boxes(
                {name: part.loc[part["row"] == name, "mss_db"].tolist() for name in names},
                "MSS, dB",
            ),
            f"MSS, {phase}",
        )
    _parameters(report, found, effects)
    limits = limits_table(flat)
    if len(limits):
        report.heading("What can be told at all")
        report.table(
            limits,
            "Ceiling: the host renders the true patch with that answer replaced; where the sound "
            "changes by less than 1 dB MSS "
            "half of the answers are lost. Exact chains: the share of clips in which every effect "
            "changes it by 1 dB.",
        )
    if len(gap.rows):
        _gap(report, gap)
    show(report, examples, sample_rate)
    return report


def write(
    page: Report, examples: Sequence[Example], folder: Path, sample_rate: int, log: StageLog
) -> None:
    """The page into its folder; page, words and sounds into the run's log."""
    page.write(folder)
    log.text("report.md", page.markdown())
    log.artifact(folder / "report.html")
    for example in examples:
        for name, sound in example.sounds.items():
            log.audio(f"{example.name}-{name}", sound, sample_rate)


def measured(report: Report, table: pd.DataFrame, caption: str) -> None:
    """A table of measures under their words, the best of each in bold."""
    report.table(
        table.rename(columns=WORDS), caption, {WORDS[column]: how for column, how in BEST.items()}
    )


def _parameters(report: Report, found: recovery.Recovered, effects: pd.DataFrame) -> None:
    report.heading("Which effects")
    report.table(
        effects,
        "Full-chain test clips, each effect by itself, said to be there above the threshold that "
        "suits F1. Always: F1 of "
        "naming it every time. Audible: of the clips that have it, the share that changes by 1 dB "
        "MSS or more without it; "
        "ceiling: F1 of an oracle that names it in exactly those.",
    )
    report.heading("Effect chain")
    report.table(
        recovery.chain_table(found),
        "Full-chain test clips. Ceiling: what a model that hears all that can be heard would "
        "reach.",
    )
    counts, labels = recovery.slot_confusion(found)
    report.figure(
        plots.confusion(counts, labels, labels, "effect by slot, % of the true row"),
        "Chain confusion by slot",
    )
    report.heading("Choices")
    report.table(
        recovery.choice_table(found), "Accuracy over the clips in which the choice can be heard."
    )
    report.heading("Knobs")
    knobs = recovery.knob_table(found)
    mae, mean_patch = (
        {str(key): float(value) for key, value in knobs[column].items()}
        for column in ("mae", "mean_patch")
    )
    report.figure(
        plots.bars(mae, "mean absolute error, unit; tick: mean patch", mean_patch),
        "Knob error over active knobs",
    )
    report.figure(plots.reliability(recovery.active_pit(found)), "Coverage of predictive intervals")


def _gap(report: Report, gap: proxy_gap.Gap) -> None:
    report.heading("Proxy gap")
    report.table(
        proxy_gap.table(gap),
        "Proxy and host on the same true patches of the test split, at the proxy's rate: medians. "
        "Floor: the host beside "
        "its own second render. Random: two different clips of the host.",
    )
    for clip, sounds in gap.sounds.items():
        report.text(f"Clip {clip}: the host and the proxy")
        report.figure(plots.spectrograms(sounds, gap.rate))
        report.players(sounds, gap.rate)


def log_gap(gap: proxy_gap.Gap, log: StageLog) -> None:
    """The kept pairs into the run's log, as pictures and as sounds."""
    for clip, sounds in gap.sounds.items():
        log.figure(f"proxy_gap-{clip}", plots.spectrograms(sounds, gap.rate))
        for name, sound in sounds.items():
            log.audio(f"proxy_gap-{clip}-{name}", sound, gap.rate)


def show(report: Report, examples: Sequence[Example], sample_rate: int) -> None:
    """Spectrograms and players of every example, under one heading."""
    if examples:
        report.heading("Examples")
    for example in examples:
        report.text(example.title)
        report.figure(plots.spectrograms(example.sounds, sample_rate))
        report.players(example.sounds, sample_rate)
