"""report.html of one un-mixed sound: listen, look, and how far to trust it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from unmixer_core import plots
from unmixer_core.report import Report

BOX = "display:inline-block;border:1px solid #36a;border-radius:6px;padding:5px 12px;background:#eef3fa"
CALIBRATION = (
    "Similarity is linear in MSS, the distance of the two sounds' log-mel spectra at several scales, each sound at its own "
    "level: 100 % is the same sound (0 dB), 0 % is what random patches of this synth reach ({chance_db:g} dB, the median "
    "on the test clips). It was measured on the host's own render of this patch. Intervals are the model's: the true knob "
    "of a sound of this synth should lie in them as often as they say, given the classes and the chain that were chosen; "
    "`metrics/evaluate.json` holds how often it did."
)
CANNOT = (
    "This synth probably cannot make that: the best of {renders} renders still differs by {mss_db:.1f} dB, more than the "
    "{poor_db:g} dB that a usable match stays under. The patch is the nearest one found, not a reconstruction."
)


def verdict(mss_db: float, renders: int, poor_db: float) -> str | None:
    """The honest sentence when the best that was found is far off, else None."""
    return CANNOT.format(renders=renders, mss_db=mss_db, poor_db=poor_db) if mss_db > poor_db else None


def page(
    title: str,
    document: Mapping[str, Any],
    sounds: Mapping[str, np.ndarray],
    rate: int,
    candidates: Sequence[tuple[str, str, float]],
    chance_db: float,
) -> Report:
    """The report of `document` (patch.json). `sounds`: the recording and the re-render, then candidates; `candidates`:
    (source, chain, MSS in dB), best first."""
    report = Report(f"Un-mixed: {title}")
    found = document["similarity"]
    report.text(
        f"Similarity {found['percent']:.0f} % (MSS {found['mss_db']:.2f} dB), found in {document['seconds']:.1f} s."
    )
    for line in (document["verdict"], *document["input"]["remarks"]):
        if line:
            report.text(line)
    report.heading("Listen")
    report.players(sounds, rate)
    report.figure(
        plots.spectrograms(dict(list(sounds.items())[:2]), rate), "The recording and the patch, as the host renders it"
    )
    report.heading("Chain")
    report.blocks.append(_diagram(document))
    for device in document["devices"]:
        report.heading(device["device"])
        _device(report, device)
    report.heading("Other candidates")
    table = pd.DataFrame(list(candidates), columns=["from", "chain", "MSS, dB ↓"])
    report.table(table.set_index(pd.RangeIndex(1, len(table) + 1)), "Rendered by the host, best first.")
    report.heading("How similar is similar")
    report.text(CALIBRATION.format(chance_db=chance_db))
    return report


def _diagram(document: Mapping[str, Any]) -> tuple[str, str]:
    names = [device["device"] for device in document["devices"]]
    note = f"Note {document['note']}, held {document['gate_s']:.2f} s"
    boxes = [f'<span style="{BOX}">{html.escape(name)}</span>' for name in names]
    return f"<p>{html.escape(note)} → {' → '.join(boxes)} → out</p>", f"{note} → {' → '.join(names)} → out\n"


def _device(report: Report, device: Mapping[str, Any]) -> None:
    choices = {entry["name"]: _choice(entry) for entry in device["choices"].values() if entry["active"]}
    if choices:
        report.table(pd.DataFrame.from_dict(choices, orient="index", columns=["item", "belief"]))
    knobs = {entry["name"]: _knob(entry) for entry in device["knobs"].values() if entry["active"]}
    if knobs:
        report.table(
            pd.DataFrame.from_dict(knobs, orient="index", columns=["value", "unit", "50 %", "90 %", "raw", "0 … 1"])
        )


def _choice(entry: Mapping[str, Any]) -> list[str]:
    ranked = sorted(entry.get("probabilities", {}).items(), key=lambda pair: -pair[1])[:3]
    return [entry["item"], ", ".join(f"{item} {100 * share:.0f} %" for item, share in ranked)]


def _knob(entry: Mapping[str, Any]) -> list[Any]:
    edges = entry.get("intervals", {})
    shown = [f"{edges[level][0]:.3g} … {edges[level][1]:.3g}" if level in edges else "-" for level in ("50", "90")]
    return [entry["physical"], entry["physical_unit"], *shown, entry["raw"], entry["unit"]]
