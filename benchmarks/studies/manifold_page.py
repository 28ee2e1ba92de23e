"""The page of the study `manifold`: every setting, paired differences, and a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.studies.study import interval, words
from unmixer_core.report.html import Report
from unmixer_core.report.plots import COLOURS
from unmixer_core.system.json_types import Json

#: Measures of a decoder and their titles on the page.
MEASURES = {
    "nll": "chain NLL, nats",
    "exact": "exact up to audible",
    "order": "order of audible pairs",
    "set_f1": "set F1",
}

#: Mean, low and high end of an interval.
Interval = tuple[float, float, float]


def by_clip(rows: pd.DataFrame, measure: str, **cell: object) -> np.ndarray:
    """Return a measure [seeds, clips] of one setting; settings that match are averaged."""
    for name, value in cell.items():
        rows = rows[rows[name] == value]
    parts = []
    for _, part in rows.sort_values("seed").groupby("dim"):
        parts.append(np.array(part[f"{measure}_by_clip"].tolist()))
    return np.mean(parts, axis=0)


def fill_page(rows: pd.DataFrame, report: Report, chances: np.ndarray) -> Figure:
    """Add tables of all settings and of the paired differences; return a picture of the latter.

    chances: audible pairs of each test clip [clips].
    """
    _add_settings(rows, report, chances)
    differences = _differences(rows, chances)
    lines = {}
    for name, found in differences.items():
        lines[name] = {MEASURES[measure]: words(each) for measure, each in found.items()}
    report.heading("Ball minus Euclidean")
    report.table(
        pd.DataFrame(lines).T,
        "Differences paired by seed and test clip, 95 % intervals; an interval that holds 0 is no "
        "difference. Lower is better for the NLL, higher for the rest.",
    )
    report.text(verdict(differences))
    return picture(differences)


def _weights(measure: str, chances: np.ndarray) -> np.ndarray | None:
    """Audible pairs weigh the order; all clips weigh the same in the other measures."""
    return chances if measure == "order" else None


def _add_settings(rows: pd.DataFrame, report: Report, chances: np.ndarray) -> None:
    lines: dict[str, Json] = {}
    for (curvature, dim), part in rows.groupby(["curvature", "dim"]):
        geometry = f"ball, c = {curvature:g}" if curvature else "Euclidean"
        line: Json = {}
        for measure, title in MEASURES.items():
            values = by_clip(rows, measure, curvature=curvature, dim=dim)
            line[title] = words(interval(values, _weights(measure, chances)))
        line["parameters"] = int(part["parameters"].iloc[0])
        line["seconds"] = float(part["seconds"].mean())
        lines[f"{geometry}, d = {dim}"] = line
    report.heading("Every setting")
    n = rows["seed"].nunique()
    report.table(
        pd.DataFrame.from_dict(lines, orient="index"),
        f"Means over {n} seeds and {len(chances)} test clips, 95 % intervals.",
    )


def _differences(rows: pd.DataFrame, chances: np.ndarray) -> dict[str, dict[str, Interval]]:
    """Ball minus Euclidean by curvature and dimension, and over all dimensions ("all d")."""
    differences: dict[str, dict[str, Interval]] = {}
    dims = sorted(rows["dim"].unique())
    for curvature in sorted(rows["curvature"].unique()):
        if not curvature:
            continue
        for dim in [*dims, None]:
            where = {} if dim is None else {"dim": dim}
            found = {}
            for measure in MEASURES:
                ball = by_clip(rows, measure, curvature=curvature, **where)
                flat = by_clip(rows, measure, curvature=0.0, **where)
                found[measure] = interval(ball - flat, _weights(measure, chances))
            words_of_dim = "all d" if dim is None else f"d = {dim}"
            differences[f"c = {curvature:g}, {words_of_dim}"] = found
    return differences


def verdict(differences: Mapping[str, Mapping[str, Interval]]) -> str:
    """Say at which curvatures, over all dimensions, which measure differs."""
    sentences = []
    for measure, title in MEASURES.items():
        sign = -1 if measure == "nll" else 1  # of the NLL less is better
        better = []
        worse = []
        for name, found in differences.items():
            if not name.endswith("all d"):
                continue
            curvature = name.split(",")[0]
            _, low, high = found[measure]
            if min(sign * low, sign * high) > 0:
                better.append(curvature)
            if max(sign * low, sign * high) < 0:
                worse.append(curvature)
        parts = []
        if better:
            parts.append(f"the ball is better at {', '.join(better)}")
        if worse:
            parts.append(f"worse at {', '.join(worse)}")
        sentences.append(f"{title}: {' and '.join(parts) or 'no difference at any curvature'}.")
    return "Over all dimensions. " + " ".join(sentences)


def picture(differences: Mapping[str, Mapping[str, Interval]]) -> Figure:
    """Plot the differences with their intervals, one panel a measure."""
    figure = Figure(figsize=(11.0, 0.9 + 0.24 * len(differences)), layout="constrained")
    names = list(differences)[::-1]
    panels = figure.subplots(1, len(MEASURES), sharey=True)
    for axes, (measure, title) in zip(panels, MEASURES.items(), strict=True):
        for y, name in enumerate(names):
            mean, low, high = differences[name][measure]
            colour = COLOURS[1] if name.endswith("all d") else COLOURS[0]
            axes.plot([low, high], [y, y], color=colour)
            axes.plot(mean, y, "o", color=colour, markersize=4)
        axes.axvline(0.0, color="#999999", linewidth=1)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        better = "left" if measure == "nll" else "right"
        axes.set_title(f"{title} ({better} is better)", fontsize=7)
        axes.tick_params(axis="x", labelsize=7)
        axes.grid(axis="x", alpha=0.3)
    figure.suptitle("Poincaré ball minus Euclidean, paired by seed and clip", fontsize=9)
    return figure
