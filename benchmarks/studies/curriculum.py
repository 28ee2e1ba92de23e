"""What do the curriculum and the spectral term bring?

Both on and off, with equal clips and equal numbers of batches.

    python -m benchmarks.studies.curriculum [--run .] [--seeds 3]

A small model on some of the host's clips, without the proxy's. Curriculum on: dry, then non-linear
effects with replay, then full chains with replay, as the pipeline does. Off: the same clips of all
phases shuffled together, from scratch, for as many clips as all three phases saw. Spectral term on:
lambda_s as in params.yaml, on every second step of a phase's second half (the pipeline's every
tenth would be a handful of steps here). Judged on the frozen full-chain test clips, and on the dry
ones for what was forgotten. The last line is one JSON object.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.studies.small import MemoryLog, StudyInputs
from benchmarks.studies.study import Cell, Study, arguments, carry_out, interval, last_line, words
from unmixer_core import config
from unmixer_core.model.unmixer import Unmixer
from unmixer_core.pipeline import machine
from unmixer_core.report.html import Report
from unmixer_core.report.plots import COLOURS
from unmixer_core.system.json_types import Json
from unmixer_core.training import phase
from unmixer_core.training.curriculum import PhaseData

#: Training clips of each phase.
CLIPS = {"dry": 300, "nonlinear": 300, "full": 900}
EPOCHS = {"dry": 4, "nonlinear": 4, "full": 5}
REPLAY = {"dry": 0.0, "nonlinear": 0.3, "full": 0.25}
BATCH = 32
#: Test clips whose best guess the proxy renders.
RENDERED = 24
CHANGES = {"loss.spectral_every": 2, "loss.spectral_start": 0.5, "loss.spectral_ramp": 0.1}
MEASURES = {
    "loss": "loss, full ↓",
    "knobs": "knob NLL, full ↓",
    "effects_f1": "effects F1, full ↑",
    "chain_exact": "chain exact ↑",
    "wavetable_accuracy": "wavetable ↑",
    "mss_db": "MSS by proxy, dB ↓",
    "dry_loss": "loss, dry ↓",
}


def phase_of(name: str, seed: int, epochs: int) -> config.TrainPhase:
    """Return the settings of a phase."""
    return config.TrainPhase(
        seed=seed, epochs=epochs, proxy_epochs=0, batch=BATCH, replay=REPLAY[name], lr_scale=1.0
    )


def clips_seen() -> int:
    """Return how many clips the three phases train on, repeats counted."""
    earlier = {"dry": 0, "nonlinear": CLIPS["dry"], "full": CLIPS["dry"] + CLIPS["nonlinear"]}
    total = 0
    for name, n_new in CLIPS.items():
        replayed = min(earlier[name], round(REPLAY[name] * n_new))
        total += EPOCHS[name] * (n_new + replayed)
    return total


def mixed(data: PhaseData) -> PhaseData:
    """Return the clips of all phases as one phase."""
    return replace(data, new=np.concatenate([data.earlier, data.new]), earlier=data.earlier[:0])


def run_cell(inputs: StudyInputs, cell: Cell, seed: int, state: Path) -> Json:
    """Train one model with or without curriculum and spectral term, and measure it."""
    start = time.perf_counter()
    log = MemoryLog()
    loss = {} if cell["spectral"] else {"loss.lambda_s": 0.0}
    term = inputs.sounds if cell["spectral"] else None
    model = phase.new_model(inputs.data("dry", CLIPS), inputs.params.model, seed)
    forgotten = float("nan")
    if cell["curriculum"]:
        for name in CLIPS:
            settings = inputs.settings(phase_of(name, seed, EPOCHS[name]), loss)
            report = phase.fit(
                model,
                inputs.data(name, CLIPS),
                settings,
                state=state / name,
                log=log,
                proxy_term=term,
            )
            forgotten = report.get("forgotten.dry", forgotten)
    else:
        data = mixed(inputs.data("full", CLIPS))
        settings = inputs.settings(phase_of("dry", seed, round(clips_seen() / len(data.new))), loss)
        phase.fit(model, data, settings, state=state / "mixed", log=log, proxy_term=term)
    shutil.rmtree(state, ignore_errors=True)
    return measure(inputs, model, seed) | {
        "forgotten_dry": forgotten,
        "seconds": time.perf_counter() - start,
    }


def measure(inputs: StudyInputs, model: Unmixer, seed: int) -> dict[str, float]:
    """Return MEASURES on the test split."""
    data = inputs.data("full", CLIPS)
    where = inputs.features.patches.where
    loss = inputs.params.loss
    full = phase.assess(model, data, where(phase="full", split="test"), loss)
    dry = phase.assess(model, data, where(phase="dry", split="test"), loss)
    distance = inputs.distance_db(model, where(phase="full", split="test")[:RENDERED], seed)
    return {name: full[name] for name in MEASURES if name in full} | {
        "dry_loss": dry["loss"],
        "mss_db": distance,
    }


def fill_page(rows: pd.DataFrame, report: Report) -> Figure:
    """Add every setting and each switch's effect, paired by seed; return the picture."""
    lines = {}
    for (curriculum, spectral), part in rows.groupby(["curriculum", "spectral"], sort=False):
        name = f"curriculum {'on' if curriculum else 'off'}, spectral {'on' if spectral else 'off'}"
        lines[name] = {title: words(interval(part[m].to_numpy())) for m, title in MEASURES.items()}
        lines[name] |= {
            "forgotten of dry": float(part["forgotten_dry"].mean()),
            "seconds": float(part["seconds"].mean()),
        }
    report.heading("Every setting")
    report.table(
        pd.DataFrame.from_dict(lines, orient="index"),
        f"Means over {rows['seed'].nunique()} seeds, 95 % intervals.",
    )
    found = {name: effect(rows, name) for name in ("curriculum", "spectral")}
    table = {
        f"{name}: on minus off": {MEASURES[m]: words(d) for m, d in each.items()}
        for name, each in found.items()
    }
    report.heading("What each switch brings")
    report.table(
        pd.DataFrame.from_dict(table, orient="index"),
        "Paired by seed and by the other switch, 95 % intervals; one that holds 0 is no "
        "difference.",
    )
    return picture(found)


def effect(rows: pd.DataFrame, switch: str) -> dict[str, tuple[float, float, float]]:
    """Return on minus off, paired by seed.

    The mean is taken over the other switch first, because its two pairs are not independent.
    """
    wide = rows.pivot_table(index="seed", columns=switch, values=list(MEASURES))
    return {m: interval((wide[m][True] - wide[m][False]).to_numpy()) for m in MEASURES}


def picture(found: dict[str, dict[str, tuple[float, float, float]]]) -> Figure:
    """Plot on minus off, one panel a measure."""
    figure = Figure(figsize=(12.0, 1.5), layout="constrained")
    for axes, (measure, title) in zip(
        figure.subplots(1, len(MEASURES), sharey=True), MEASURES.items(), strict=True
    ):
        for y, (_, each) in enumerate(found.items()):
            mean, low, high = each[measure]
            axes.plot([low, high], [y, y], color=COLOURS[y])
            axes.plot(mean, y, "o", color=COLOURS[y], markersize=4)
        axes.axvline(0.0, color="#999999", linewidth=1)
        axes.set_yticks(range(len(found)), list(found), fontsize=7)
        axes.set_ylim(-0.6, len(found) - 0.4)
        axes.set_title(title, fontsize=7)
        axes.tick_params(axis="x", labelsize=6)
    figure.suptitle("on minus off", fontsize=8)
    return figure


def main() -> None:
    """Run the study; see the module."""
    options = arguments(__doc__, 5).parse_args()
    machine.threads()
    inputs = StudyInputs.open(options.run, CHANGES)
    about = (
        f"{CLIPS['dry']} dry, {CLIPS['nonlinear']} non-linear and {CLIPS['full']} full-chain "
        f"clips of the host, {clips_seen()} clips "
        f"seen in batches of {BATCH}, whatever the order; a model of width "
        f"{inputs.params.model.width}. Curriculum off: the same "
        "clips shuffled together from the start. Spectral on: "
        f"lambda_s {inputs.params.loss.lambda_s:g} on every second step of a phase's second half; "
        f"the gradient reaches the knobs. "
        f"Judged on the frozen test split: 300 full and 50 dry clips, the sound of {RENDERED} best "
        f"guesses through the proxy."
    )
    cells = [{"curriculum": c, "spectral": s} for c in (True, False) for s in (True, False)]
    key = {
        "inputs": inputs.fingerprint,
        "params": inputs.params.model_dump(include={"model", "loss", "optim", "augment"}),
        "sizes": [CLIPS, EPOCHS, REPLAY, BATCH, RENDERED],
    }
    study = Study(
        "curriculum",
        "Curriculum and spectral term, on and off",
        about,
        "python -m benchmarks.studies.curriculum",
        cells,
        range(1, options.seeds + 1),
        key,
        lambda cell, seed, state: run_cell(inputs, cell, seed, state),
        fill_page,
    )
    rows = carry_out(study, options.out)
    last_line(
        {f"{s}.{m}": effect(rows, s)[m][0] for s in ("curriculum", "spectral") for m in MEASURES}
    )


if __name__ == "__main__":
    main()
