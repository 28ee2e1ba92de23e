"""report.html of one un-mixed sound: listen, look, and how far to trust it."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import numpy as np
import pandas as pd

from unmixer_core.report import plots
from unmixer_core.report.html import PEAK, Report, player
from unmixer_core.schema.notes import note_name
from unmixer_core.system.json_types import JsonView

RECORDING, PATCH = "your sound", "this patch"
STYLE = """<style>
.chain span{display:inline-block;border:1px solid #36a;border-radius:6px;padding:5px 12px;background:#eef3fa}
.meter{position:relative;width:420px;height:14px;border-radius:7px;background:#e4e8ee;margin:6px 0 2px}
.meter div{height:14px;border-radius:7px;background:#36a}.meter+small{color:#555}
.warn{border-left:4px solid #c63;background:#fdf4ee;padding:6px 12px;margin:8px 0}
.ab{margin:10px 0 2px}.ab button{font:inherit;padding:5px 14px;margin-right:8px;cursor:pointer}
</style>"""
SWITCH = """<p class="ab"><button id="ab-play">Play both, hear one</button><button id="ab-switch" disabled>Switch</button>
<span id="ab-now"></span></p><script>
{const [a,b]=document.querySelectorAll('.players audio'),names=[%s],now=document.getElementById('ab-now'),
play=document.getElementById('ab-play'),swap=document.getElementById('ab-switch');let second=false;
const show=()=>{a.muted=second;b.muted=!second;now.textContent='hearing: '+names[second?1:0]};
play.onclick=()=>{for(const s of [a,b]){s.loop=true;s.currentTime=0}show();a.play();b.play();swap.disabled=false};
swap.onclick=()=>{second=!second;show()};
for(const s of [a,b])s.onpause=()=>{a.pause();b.pause();a.muted=b.muted=false;swap.disabled=true;now.textContent=''}}
</script>"""
CALIBRATION = (
    "Similarity is linear in MSS, the distance of the two sounds' log-mel spectra at several "
    "scales, each sound at its own "
    "level: 100 % is the same sound (0 dB), 0 % is what random patches of this synth reach "
    "({chance_db:g} dB, the median "
    "on the test clips). It was measured on the host's own render of this patch, which is what "
    "the players play. Ranges are "
    "the model's: the true knob of a sound of this synth should lie in them as often as they say, "
    "given the classes and the "
    "chain that were chosen; metrics/evaluate.json holds how often it did. The search moves knobs "
    "to what sounds nearest, "
    "which may lie outside them: then other settings of this patch sound much the same."
)
CANNOT = (
    "This synth probably cannot make that: the best of {renders} renders still differs by "
    "{mss_db:.1f} dB, more than the "
    "{poor_db:g} dB that a usable match stays under. The patch is the nearest one found, not a "
    "reconstruction."
)
UNTOLD = (
    "Not searched enough to tell whether this synth can make that: the best of {renders} renders "
    "still differs by "
    "{mss_db:.1f} dB, more than the {poor_db:g} dB that a usable match stays under."
)
SOURCES = {
    "proposal": "proposed",
    "refined": "refined through the proxy",
    "corrected": "refined by what the host said",
    "changed": "other decisions",
    "polished": "polished",
}


def verdict(mss_db: float, renders: int, poor_db: float, *, thorough: bool = True) -> str | None:
    """The honest sentence when the best that was found is far off, else None.

    `thorough`: the search was a whole one.
    """
    if mss_db <= poor_db:
        return None
    return (CANNOT if thorough else UNTOLD).format(renders=renders, mss_db=mss_db, poor_db=poor_db)


def page(
    title: str,
    document: JsonView,
    sounds: Mapping[str, np.ndarray],
    rate: int,
    candidates: Sequence[tuple[str, str, float]],
    chance_db: float,
    files: Mapping[str, str] | None = None,
) -> Report:
    """The report of `document` (patch.json).

    `sounds`: the recording and the re-render, then candidates, all at one level; `candidates`:
    (source, chain, MSS in dB), best first; `files`: relative path -> what it is.
    """
    report = Report(f"Un-mixed: {title}")
    report.blocks.append((STYLE, ""))
    _summary(report, document)
    report.heading("Listen")
    _listen(report, sounds, rate)
    report.heading("Chain")
    report.blocks.append(_diagram(document))
    for device in document["devices"]:
        report.heading(device["device"])
        _device(report, device)
    report.heading("Other candidates")
    lines = [(SOURCES.get(source, source), chain, mss_db) for source, chain, mss_db in candidates]
    table = pd.DataFrame(lines, columns=["how", "chain", "MSS, dB ↓"])
    report.table(
        table.set_index(pd.RangeIndex(1, len(table) + 1)), "Rendered by the host, best first."
    )
    if files:
        report.heading("Files beside this page")
        links = "".join(
            (
                f'<li><a href="{html.escape(quote(path))}">{html.escape(path)}</a>: '
                f"{html.escape(what)}</li>"
            )
            for path, what in files.items()
        )
        report.blocks.append(
            (f"<ul>{links}</ul>", "".join(f"- {path}: {what}\n" for path, what in files.items()))
        )
    report.heading("How similar is similar")
    report.text(CALIBRATION.format(chance_db=chance_db))
    return report


def _summary(report: Report, document: JsonView) -> None:
    """Similarity as a meter, and everything that may mislead."""
    found = document["similarity"]
    words = (
        f"Similarity {found['percent']:.0f} % (MSS {found['mss_db']:.2f} dB), found in "
        f"{document['seconds']:.1f} s."
    )
    scale = "0 %: a random patch of this synth · 100 %: the same sound"
    report.text(words)
    meter = (
        f'<div class="meter"><div '
        f'style="width:{found["percent"]:.0f}%"></div></div><small>{scale}</small>'
    )
    report.blocks.append((meter, f"{scale}\n"))
    if "model" in document:
        model = document["model"]
        report.text(f"Model: {model['origin']}, {model['folder']}, sha256 {model['sha256']}.")
    for line in (document["verdict"], *document["input"]["remarks"]):
        if line:
            report.blocks.append((f'<p class="warn">{html.escape(line)}</p>', f"> {line}\n"))


def _listen(report: Report, sounds: Mapping[str, np.ndarray], rate: int) -> None:
    """Players at one gain (levels were matched before), a switch between the first two, and how
    they look.
    """
    gain = PEAK / max(max(float(np.abs(sound).max(initial=0.0)) for sound in sounds.values()), 1e-9)
    cells = "".join(
        f"<div>{html.escape(name)}<br>{player(sound * gain, rate, as_it_is=True)}</div>"
        for name, sound in sounds.items()
    )
    report.blocks.append((f'<div class="players">{cells}</div>', ""))
    first = list(sounds)[:2]
    report.blocks.append((SWITCH % ",".join(f"'{name}'" for name in first), ""))
    report.figure(
        plots.spectrograms({n: sounds[n] for n in first}, rate, width=6.0),
        "Your sound and this patch, as the host renders it",
    )


def _diagram(document: JsonView) -> tuple[str, str]:
    names = [device["device"] for device in document["devices"]]
    note = f"{note_name(document['note'])}, key held {1000 * document['gate_s']:.0f} ms"
    boxes = [f"<span>{html.escape(name)}</span>" for name in names]
    return (
        f'<p class="chain">{html.escape(note)} → {" → ".join(boxes)} → out</p>',
        f"{note} → {' → '.join(names)} → out\n",
    )


def _device(report: Report, device: JsonView) -> None:
    choices = {
        _label(entry["name"]): _choice(entry)
        for entry in device["choices"].values()
        if entry["active"]
    }
    if choices:
        report.table(
            pd.DataFrame.from_dict(
                choices, orient="index", columns=["set to", "the model's belief", "or rather"]
            )
        )
    knobs = {entry["name"]: _knob(entry) for entry in device["knobs"].values() if entry["active"]}
    if knobs:
        columns = ["value", "unit", "likely (50 %)", "possible (90 %)", "Live's own value", "0 … 1"]
        report.table(pd.DataFrame.from_dict(knobs, orient="index", columns=columns))


def _label(name: str) -> str:
    """AbletonOSC's property names as words.

    oscillator_1_wavetable_index -> Oscillator 1 wavetable.
    """
    words = name.removesuffix("_index").replace("_", " ") if name.islower() else name
    return words[:1].upper() + words[1:]


def _choice(entry: JsonView) -> list[str]:
    shares = entry.get("probabilities", {})
    others = sorted(
        ((i, s) for i, s in shares.items() if i != entry["item"]), key=lambda pair: -pair[1]
    )[:2]
    own = f"{100 * shares[entry['item']]:.0f} %" if entry["item"] in shares else "-"
    return [entry["item"], own, ", ".join(f"{item} {100 * share:.0f} %" for item, share in others)]


def _knob(entry: JsonView) -> list[str]:
    """Times in milliseconds, as Live shows them; everything to three digits."""
    edges, factor = entry.get("intervals", {}), 1000.0 if entry["physical_unit"] == "s" else 1.0
    shown = [
        f"{plain(factor * edges[level][0])} … {plain(factor * edges[level][1])}"
        if level in edges
        else "-"
        for level in ("50", "90")
    ]
    unit = "ms" if factor != 1.0 else entry["physical_unit"]
    return [
        plain(factor * entry["physical"]),
        unit,
        *shown,
        plain(entry["raw"]),
        f"{entry['unit']:.3f}",
    ]


def plain(value: float) -> str:
    """Three significant digits without an exponent: 13400, 2.85, 0.0163."""
    if value == 0.0 or not math.isfinite(value):
        return "0" if value == 0.0 else "-"
    digits = 2 - math.floor(math.log10(abs(value)))
    rounded = round(value, digits)
    return (
        f"{rounded:.{max(digits, 0)}f}".rstrip("0").rstrip(".") if digits > 0 else f"{rounded:.0f}"
    )
