"""A report a person can look at.

One list of blocks, written as a self-contained HTML page and as Markdown.

Self-contained means: pictures are inline PNG, sounds are inline Ogg Vorbis (about 20 KiB a 2 s
clip), styles are inline, and nothing is fetched from anywhere. Numbers in tables are formatted
once, here.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from matplotlib.figure import Figure

PEAK = 0.89  # every player is set to the same peak, so that A/B listening is not a loudness contest
DPI = 84
STYLE = """
body{font:14px/1.45 system-ui,sans-serif;max-width:1080px;margin:24px auto;padding:0 16px;color:#222;background:#fff}
h1{font-size:22px}h2{font-size:17px;margin-top:28px;border-bottom:1px solid #ddd}
table{border-collapse:collapse;margin:8px 0}th,td{padding:3px 9px;border-bottom:1px solid #e4e4e4;text-align:right}
th:first-child,td:first-child{text-align:left}caption{text-align:left;color:#555;padding:4px 0}
td.best{font-weight:700}img{max-width:100%}figure{margin:10px 0}figcaption{color:#555}
.players{display:flex;flex-wrap:wrap;gap:14px;margin:6px 0}.players div{min-width:200px}audio{width:220px;height:34px}
"""


@dataclass
class Report:
    """Blocks in reading order. Each method adds one; `html()` and `markdown()` write them all."""

    title: str
    blocks: list[tuple[str, str]] = field(default_factory=list)  # (html, markdown)

    def heading(self, text: str) -> None:
        """A section title."""
        self.blocks.append((f"<h2>{html.escape(text)}</h2>", f"## {text}\n"))

    def text(self, text: str) -> None:
        """A paragraph."""
        self.blocks.append((f"<p>{html.escape(text)}</p>", f"{text}\n"))

    def table(
        self, frame: pd.DataFrame, caption: str = "", best: Mapping[str, str] | None = None
    ) -> None:
        """A table with its index as first column.

        `best`: column -> "min" or "max", whose best cell is set in bold.
        """
        winners = {
            column: _winner(frame[column], how)
            for column, how in (best or {}).items()
            if column in frame
        }
        self.blocks.append(
            (_html_table(frame, caption, winners), _markdown_table(frame, caption, winners))
        )

    def figure(self, figure: Figure, caption: str = "") -> None:
        """A picture as inline PNG.

        Markdown keeps its caption only: the picture is in the HTML page.
        """
        picture = f'<img alt="{html.escape(caption)}" src="data:image/png;base64,{png(figure)}">'
        words = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
        self.blocks.append(
            (
                f"<figure>{picture}{words}</figure>",
                f"*({caption}: see report.html)*\n" if caption else "",
            )
        )

    def players(self, clips: Mapping[str, np.ndarray], sample_rate: int) -> None:
        """One player per named clip ([channel, time]), all at the same peak level."""
        cells = "".join(
            f"<div>{html.escape(name)}<br>{player(audio, sample_rate)}</div>"
            for name, audio in clips.items()
        )
        self.blocks.append((f'<div class="players">{cells}</div>', ""))

    def html(self) -> str:
        """The whole page."""
        body = "\n".join(block for block, _ in self.blocks)
        title = html.escape(self.title)
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f"<style>{STYLE}</style></head><body><h1>{title}</h1>\n{body}\n</body></html>\n"
        )

    def markdown(self) -> str:
        """The same words and tables as Markdown."""
        return "\n".join([f"# {self.title}\n", *(block for _, block in self.blocks if block)])

    def write(self, folder: Path) -> None:
        """Write report.html and report.md into `folder`, which is made when absent."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.html").write_text(self.html(), encoding="utf-8")
        (folder / "report.md").write_text(self.markdown(), encoding="utf-8")


def png(figure: Figure) -> str:
    """A figure as base64 PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def player(audio: np.ndarray, sample_rate: int, *, as_it_is: bool = False) -> str:
    """An `<audio>` element with the clip ([channel, time]) inline as Ogg Vorbis, set to a common
    peak (or `as_it_is`).
    """
    peak = PEAK if as_it_is else max(float(np.abs(audio).max(initial=0.0)), 1e-9)
    buffer = io.BytesIO()
    samples = np.ascontiguousarray((audio * (PEAK / peak)).T, dtype=np.float32)
    soundfile.write(buffer, samples, sample_rate, format="OGG", subtype="VORBIS")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<audio controls preload="none" src="data:audio/ogg;base64,{data}"></audio>'


def number(value: object) -> str:
    """A cell as a person reads it: three significant digits, "-" where nothing was measured."""
    if isinstance(value, (float, np.floating)):
        decimal = float(value)
        if not np.isfinite(decimal):
            return "-"
        return f"{decimal:.0f}" if abs(decimal) >= 1000 else f"{decimal:.3g}"
    return str(value)


def _winner(column: pd.Series, how: str) -> object:
    known = pd.to_numeric(column, errors="coerce").dropna()
    if known.empty:
        return None
    return known.idxmin() if how == "min" else known.idxmax()


def _html_table(frame: pd.DataFrame, caption: str, winners: Mapping[str, object]) -> str:
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in ["", *frame.columns])
    lines = []
    for label, row in frame.iterrows():
        cells = "".join(
            f'<td class="best">{_cell(v)}</td>'
            if winners.get(str(c)) == label
            else f"<td>{_cell(v)}</td>"
            for c, v in row.items()
        )
        lines.append(f"<tr><td>{html.escape(str(label))}</td>{cells}</tr>")
    words = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{words}<tr>{head}</tr>{''.join(lines)}</table>"


def _cell(value: object) -> str:
    return html.escape(number(value))


def _markdown_table(frame: pd.DataFrame, caption: str, winners: Mapping[str, object]) -> str:
    lines = [f"{caption}\n"] if caption else []
    lines.append("| | " + " | ".join(map(str, frame.columns)) + " |")
    lines.append("|---" * (len(frame.columns) + 1) + "|")
    for label, row in frame.iterrows():
        cells = [
            f"**{number(v)}**" if winners.get(str(c)) == label else number(v)
            for c, v in row.items()
        ]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
