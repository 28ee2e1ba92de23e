"""How often does training through the proxy converge: GCWD by norm, GCWD by element, plain Adam?

Learning rates x seeds.

    python -m benchmarks.studies.optimiser [--run .] [--seeds 5]

The dry phase on few clips with a small model, the spectral term through the proxy on every step but
the first. `norm` is the pipeline's setting; `element` is that of Han, Lostanlen and Lagrange
(EUSIPCO 2025: momentum 0.965, limit 0.01, decay 0.1); `adam` is Adam without decay and without any
clipping, gradients of the proxy as they come. Every optimiser gets the same learning rates. A run
has converged if no gradient stopped being finite and the parametric validation loss after the last
epoch is at most CONVERGED times that before the first; this was defined before the first run. The
last line is one JSON object.
"""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.studies.small import MemoryLog, StudyInputs
from benchmarks.studies.study import (
    Cell,
    Study,
    arguments,
    carry_out,
    interval,
    last_line,
    share,
    words,
)
from unmixer_core import config
from unmixer_core.errors import TrainingError
from unmixer_core.pipeline import machine
from unmixer_core.report.html import Report
from unmixer_core.report.plots import COLOURS
from unmixer_core.system.json_types import Json
from unmixer_core.training import phase as training_phase

CONVERGED = 0.75
CLIPS = 192
EPOCHS = 4
BATCH = 16
LRS = (0.001, 0.004, 0.016)
CHANGES = {
    "loss.spectral_every": 1,
    "loss.spectral_clips": 1,
    "loss.spectral_start": 0.0,
    "loss.spectral_ramp": 0.0,
}
OPTIMISERS: dict[str, Json] = {
    "GCWD norm": {"optim.clip": "norm"},
    "GCWD element": {
        "optim.clip": "element",
        "optim.beta1": 0.965,
        "optim.threshold": 0.01,
        "optim.weight_decay": 0.1,
    },
    "Adam": {"optim.clip": "none", "optim.weight_decay": 0.0, "optim.beta2": 0.999},
}


def run_cell(inputs: StudyInputs, cell: Cell, seed: int, state: Path) -> Json:
    """Train one model; return losses, gradient norms, and whether it converged."""
    start = time.perf_counter()
    log = MemoryLog()
    data = inputs.data("dry", {"dry": CLIPS})
    phase = config.TrainDry(
        seed=seed, epochs=EPOCHS, proxy_epochs=0, batch=BATCH, replay=0.0, lr_scale=1.0
    )
    settings = inputs.settings(phase, {**OPTIMISERS[cell["optimiser"]], "optim.lr": cell["lr"]})
    model = training_phase.new_model(data, inputs.params.model, seed)
    before = training_phase.assess(model, data, data.valid["dry"], settings.loss)["loss"]
    refused = ""
    try:
        training_phase.fit(model, data, settings, state=state, log=log, proxy_term=inputs.sounds)
    except TrainingError as error:
        refused = str(error)
    after = math.inf if refused else log.of("valid.loss")[-1]
    shutil.rmtree(state, ignore_errors=True)
    spectral = log.of("train.spectral")
    norms = log.of("train.gradient_norm")
    quarter = max(1, len(spectral) // 4)
    first = _mean(spectral[:quarter])
    last = _mean(spectral[-quarter:])
    return {
        "before": before,
        "after": after,
        "ratio": after / before,
        "converged": bool(math.isfinite(after) and after <= CONVERGED * before),
        "refused": refused,
        "spectral": last,
        "spectral_fall": first - last,
        "largest_norm": max(norms, default=math.nan),
        "median_norm": float(np.median(norms)) if norms else math.nan,
        "clipped": float(np.mean(log.of("train.clipped_share"))) if norms else math.nan,
        "seconds": time.perf_counter() - start,
    }


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def fill_page(rows: pd.DataFrame, report: Report) -> Figure:
    """Add shares that converged and losses per optimiser and learning rate; return the picture."""
    lines = {}
    for (name, lr), part in rows.groupby(["optimiser", "lr"], sort=False):
        lines[f"{name}, lr {lr:g}"] = {
            "converged": f"{int(part['converged'].sum())} of {len(part)}",
            "refused": int((part["refused"] != "").sum()),
            "loss after / before": loss_words(part["ratio"].to_numpy()),
            "spectral, last quarter": float(part["spectral"].mean()),
            "fall of spectral": loss_words(part["spectral_fall"].to_numpy()),
            "median gradient norm": float(part["median_norm"].median()),
            "largest": f"{part['largest_norm'].max():.1e}",
            "clipped": float(part["clipped"].mean()),
        }
    report.heading("By learning rate")
    report.table(
        pd.DataFrame.from_dict(lines, orient="index"),
        f"{rows['seed'].nunique()} seeds each; 95 % intervals over seeds.",
    )
    overall = {}
    for name, part in rows.groupby("optimiser", sort=False):
        best = part.assign(key=part["ratio"].fillna(math.inf)).groupby("lr")["key"].mean().idxmin()
        at_best = part[part["lr"] == best]
        overall[str(name)] = {
            "converged": words(share(part["converged"].to_list())),
            "best learning rate": f"{best:g}",
            "converged there": f"{int(at_best['converged'].sum())} of {len(at_best)}",
            "loss after / before there": loss_words(at_best["ratio"].to_numpy()),
        }
    report.heading("Over all learning rates")
    report.table(
        pd.DataFrame.from_dict(overall, orient="index"),
        "Best: the learning rate with the lowest mean loss.",
    )
    report.table(
        pd.DataFrame.from_dict(paired(rows), orient="index"),
        "Loss after / before at each one's best learning rate, paired by seed.",
    )
    return picture(rows)


def paired(rows: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Return differences to Adam, each optimiser at its best learning rate."""
    best = {}
    for name, part in rows.groupby("optimiser", sort=False):
        lr = part.groupby("lr")["ratio"].mean().idxmin()
        best[str(name)] = part[part["lr"] == lr].sort_values("seed")["ratio"].to_numpy()
    found = {name: values - best["Adam"] for name, values in best.items() if name != "Adam"}
    return {
        f"{name} minus Adam": {"difference": loss_words(difference)}
        for name, difference in found.items()
    }


def loss_words(values: np.ndarray) -> str:
    """Return mean and interval as text, or that a run has none."""
    return words(interval(values)) if np.isfinite(values).all() else "not finite"


def picture(rows: pd.DataFrame) -> Figure:
    """Plot every run's loss after / before; those that did not converge are crosses."""
    figure = Figure(figsize=(7.0, 3.4), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(rows["optimiser"]))
    for place, name in enumerate(names):
        part = rows[rows["optimiser"] == name]
        x = np.log10(part["lr"]) + 0.06 * (place - 1)
        y = part["ratio"].clip(upper=1.5).fillna(1.5)
        good = part["converged"].to_numpy(bool)
        axes.plot(x[good], y[good], "o", color=COLOURS[place], label=name, markersize=5)
        axes.plot(x[~good], y[~good], "x", color=COLOURS[place], markersize=6)
    axes.axhline(CONVERGED, color="#999999", linewidth=1)
    axes.set_xticks(np.log10(LRS), [f"{lr:g}" for lr in LRS])
    axes.set_xlabel("learning rate", fontsize=8)
    axes.set_ylabel("validation loss, after / before", fontsize=8)
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
    axes.set_title("Every run; crosses did not converge (1.5: or more, or refused)", fontsize=8)
    return figure


def main() -> None:
    """Run the study; see the module."""
    options = arguments(__doc__, 5).parse_args()
    machine.threads()
    inputs = StudyInputs.open(options.run, CHANGES)
    about = (
        f"{CLIPS} dry clips, {EPOCHS} epochs of batches of {BATCH}: {EPOCHS * CLIPS // BATCH} "
        f"steps, each with the spectral "
        f"term through the proxy (lambda_s {inputs.params.loss.lambda_s:g}). Converged, as said "
        f"beforehand: no gradient "
        f"stopped being finite, and the parametric validation loss after the last epoch is at "
        f"most {CONVERGED:g} of that "
        "before the first. GCWD norm: the pipeline's (global norm 1, decay "
        f"{inputs.params.optim.weight_decay:g}, each clip's spectral gradient shortened to 1 at "
        f"the sample). GCWD element: "
        "momentum 0.965, limit 0.01, decay 0.1, and the same shortening of each clip's spectral "
        "gradient. Adam: no decay, no "
        "clipping of any kind, so a difference is that of the recipe, not of the clipped norm "
        "alone."
    )
    cells = [{"optimiser": name, "lr": lr} for name in OPTIMISERS for lr in LRS]
    key = {
        "inputs": inputs.fingerprint,
        "params": inputs.params.model_dump(include={"model", "loss", "optim", "augment"}),
        "sizes": [CLIPS, EPOCHS, BATCH],
        "optimisers": OPTIMISERS,
    }
    study = Study(
        "optimiser",
        "GCWD or Adam through the proxy",
        about,
        "python -m benchmarks.studies.optimiser",
        cells,
        range(1, options.seeds + 1),
        key,
        lambda cell, seed, state: run_cell(inputs, cell, seed, state),
        fill_page,
    )
    rows = carry_out(study, options.out)
    last_line(
        {str(name): float(part["converged"].mean()) for name, part in rows.groupby("optimiser")}
    )


if __name__ == "__main__":
    main()
