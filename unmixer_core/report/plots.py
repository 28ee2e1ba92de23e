"""Pictures for reports and run logs: every function takes values and returns a matplotlib Figure.

Figures are made through the object interface (no pyplot), so nothing global is touched and stages
may draw from threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

FLOOR_DB = -80.0
COLOURS = ("#3366aa", "#cc6633", "#558844", "#884499", "#aa3344", "#777777", "#229999", "#bb9922")


def spectrogram_db(audio: np.ndarray, n_fft: int = 1024, hop: int = 256) -> np.ndarray:
    """Magnitude spectrogram of the mid signal in dB below its own peak, floored at -80 dB.

    audio: [channel, time] -> [n_fft // 2 + 1, frames].
    """
    mid = np.asarray(audio, dtype=np.float32).mean(axis=0)
    mid = np.pad(mid, (0, max(0, n_fft - mid.size)))
    frames = np.lib.stride_tricks.sliding_window_view(mid, n_fft)[::hop]
    magnitude = np.abs(np.fft.rfft(frames * np.hanning(n_fft).astype(np.float32), axis=1)).T
    peak = max(float(magnitude.max()), 1e-9)
    return np.maximum(20.0 * np.log10(np.maximum(magnitude / peak, 1e-9)), FLOOR_DB)


def spectrograms(clips: Mapping[str, np.ndarray], sample_rate: int, width: float = 3.0) -> Figure:
    """One spectrogram per named clip ([channel, time]) side by side, each `width` inches, on a
    logarithmic frequency axis.
    """
    figure = Figure(figsize=(width * len(clips), 1.6 + 0.27 * width), layout="constrained")
    for axes, (name, audio) in zip(_axes(figure, len(clips)), clips.items(), strict=True):
        _draw_spectrogram(axes, audio, sample_rate)
        axes.set_title(name, fontsize=9)
    return figure


def _draw_spectrogram(axes: Axes, audio: np.ndarray, sample_rate: int) -> None:
    picture = spectrogram_db(audio)
    bins = np.unique(np.geomspace(1, picture.shape[0] - 1, 160).astype(int))
    seconds = audio.shape[-1] / sample_rate
    axes.imshow(
        picture[bins],
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=FLOOR_DB,
        vmax=0.0,
        extent=(0.0, seconds, 0.0, float(len(bins))),
    )
    hertz = bins * sample_rate / 2.0 / (picture.shape[0] - 1)
    shown = [h for h in (100, 300, 1000, 3000, 10000) if hertz[0] <= h <= hertz[-1]]
    axes.set_yticks(
        [float(np.searchsorted(hertz, h)) for h in shown], [_hertz(h) for h in shown], fontsize=7
    )
    axes.set_xlabel("s", fontsize=7)
    axes.tick_params(axis="x", labelsize=7)


def _hertz(value: int) -> str:
    return f"{value // 1000}k" if value >= 1000 else str(value)


def boxes(groups: Mapping[str, Sequence[float]], label: str) -> Figure:
    """Horizontal box plot: one box per named group of numbers (whiskers 5..95 %), in the given
    order.
    """
    figure = Figure(figsize=(6.4, 0.9 + 0.36 * len(groups)), layout="constrained")
    axes = figure.subplots()
    filled = {
        name: np.asarray(values, dtype=float) for name, values in groups.items() if len(values)
    }
    if filled:
        names = list(filled)[::-1]
        axes.boxplot(
            [filled[name] for name in names],
            orientation="horizontal",
            whis=(5, 95),
            showfliers=False,
            widths=0.6,
            medianprops={"color": COLOURS[1]},
        )
        axes.set_yticks(range(1, len(names) + 1), names, fontsize=8)
    axes.set_xlabel(label, fontsize=8)
    axes.grid(axis="x", alpha=0.3)
    return figure


def confusion(
    matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str = ""
) -> Figure:
    """Row-normalised confusion matrix with the share written in each cell.

    matrix: counts [true, predicted].
    """
    counts = np.asarray(matrix, dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    figure = Figure(
        figsize=(1.8 + 0.55 * len(columns), 1.2 + 0.4 * len(rows)), layout="constrained"
    )
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    for row, column in np.argwhere(counts > 0):
        shade = "white" if shares[row, column] > 0.5 else "black"
        axes.text(
            column,
            row,
            f"{100 * shares[row, column]:.0f}",
            ha="center",
            va="center",
            fontsize=7,
            color=shade,
        )
    axes.set_xticks(range(len(columns)), columns, fontsize=7, rotation=40, ha="right")
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    axes.set_xlabel("predicted", fontsize=8)
    axes.set_ylabel("true", fontsize=8)
    axes.set_title(title, fontsize=9)
    return figure


def reliability(
    pit: np.ndarray, levels: Sequence[float] = tuple(np.linspace(0.05, 0.95, 19))
) -> Figure:
    """Nominal against measured coverage of central intervals.

    pit: probability integral transforms in [0, 1], any shape.
    """
    values = np.asarray(pit, dtype=float)
    values = values[np.isfinite(values)]
    measured = [
        float(np.mean(np.abs(values - 0.5) <= level / 2.0)) if values.size else np.nan
        for level in levels
    ]
    figure = Figure(figsize=(3.4, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1)
    axes.plot(levels, measured, marker="o", markersize=3, color=COLOURS[0])
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_xlabel("nominal coverage", fontsize=8)
    axes.set_ylabel("measured coverage", fontsize=8)
    axes.grid(alpha=0.3)
    return figure


def bars(
    values: Mapping[str, float], label: str, reference: Mapping[str, float] | None = None
) -> Figure:
    """Horizontal bars, one per name.

    `reference` puts a black tick on the same names (ceiling or majority).
    """
    names = list(values)[::-1]
    figure = Figure(figsize=(6.0, 0.9 + 0.24 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(names)), [values[name] for name in names], color=COLOURS[0], height=0.7)
    marks = [(reference or {}).get(name, np.nan) for name in names]
    axes.plot(marks, range(len(names)), linestyle="none", marker="|", markersize=11, color="black")
    axes.margins(y=0.01)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xlabel(label, fontsize=8)
    axes.grid(axis="x", alpha=0.3)
    return figure


def curves(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_label: str, y_label: str
) -> Figure:
    """Named lines (x values, y values); a line of one point is drawn as a marker."""
    figure = Figure(figsize=(6.0, 3.4), layout="constrained")
    axes = figure.subplots()
    for index, (name, (x, y)) in enumerate(lines.items()):
        axes.plot(
            x,
            y,
            marker="o" if len(x) < 2 else None,
            color=COLOURS[index % len(COLOURS)],
            label=name,
            linewidth=1.4,
        )
    axes.set_xlabel(x_label, fontsize=8)
    axes.set_ylabel(y_label, fontsize=8)
    axes.grid(alpha=0.3)
    if lines:
        axes.legend(fontsize=7)
    return figure


def _axes(figure: Figure, n: int) -> list[Axes]:
    return list(np.atleast_1d(figure.subplots(1, n)))
