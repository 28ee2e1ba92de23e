"""One loop for the studies of docs/studies: every setting with every seed, then a page.

A study is a list of settings (`cells`), a function that runs one of them with one seed and returns
numbers, and a function that turns all rows into tables and a picture. Finished runs are saved in
`.unmixer/study-<name>-<digest>.jsonl`, keyed by everything they depend on. So a study that was
killed continues, and a finished one only writes its page again: docs/studies/<name>.md, .svg and
.json (all rows).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from unmixer_core.pipeline import json_file, log
from unmixer_core.report.html import Report
from unmixer_core.scoring.score import Ledger
from unmixer_core.system import files
from unmixer_core.system.json_types import JsonView

REPO = Path(__file__).resolve().parents[2]
#: Resamples of the bootstrap over clips.
RESAMPLES = 2000
#: One setting of a study, by name.
Cell = JsonView
Run = Callable[[Cell, int, Path], JsonView]


@dataclass(frozen=True)
class Study:
    """A study.

    run(cell, seed, state): returns a row's numbers; it may save half-finished work in the folder
    `state`. fill_page(rows, report): adds tables and returns the picture. key: what all rows depend
    on. about: the text below the title.
    """

    name: str
    title: str
    about: str
    command: str
    cells: Sequence[Cell]
    seeds: Sequence[int]
    key: JsonView
    run: Run
    fill_page: Callable[[pd.DataFrame, Report], Figure]


def arguments(words: str | None, seeds: int) -> argparse.ArgumentParser:
    """Return a parser of the options that studies share; words: its description."""
    parser = argparse.ArgumentParser(
        description=words, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run",
        type=Path,
        default=Path("."),
        help="folder of a finished `dvc repro`: data/ and models/",
    )
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--out", type=Path, default=REPO / "docs" / "studies")
    return parser


def carry_out(study: Study, out: Path, state: Path = Path(".unmixer")) -> pd.DataFrame:
    """Run what is missing, write the page, and return all rows, a line per setting and seed."""
    digest = _digest(json.dumps(study.key, sort_keys=True, default=str))
    folder = state / f"study-{study.name}-{digest}"
    ledger = Ledger(folder.with_suffix(".jsonl"))
    wanted = {_key(cell, seed): (cell, seed) for seed in study.seeds for cell in study.cells}
    waiting = [key for key in wanted if key not in ledger.rows]
    for key in log.StageLog().progress(waiting, len(waiting), study.name):
        cell, seed = wanted[key]
        ledger.add(key, study.run(cell, seed, folder / _digest(key)))
    lines = []
    for key, (cell, seed) in wanted.items():
        lines.append({**cell, "seed": seed, **ledger.rows[key]})
    rows = pd.DataFrame(lines)
    write(study, rows, out)
    return rows


def write(study: Study, rows: pd.DataFrame, out: Path) -> None:
    """Write <name>.md, .svg and .json into the folder `out`."""
    report = Report(study.title)
    report.text(study.about)
    figure = study.fill_page(rows, report)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / f"{study.name}.svg", metadata={"Date": None})
    picture = f"![{study.title}]({study.name}.svg)"
    foot = (
        f"{picture}\n\n`{study.command}` makes this page; all rows: "
        f"[{study.name}.json]({study.name}.json).\n"
    )
    files.write_text(out / f"{study.name}.md", f"{report.markdown()}\n{foot}")
    about = {"command": study.command, "key": study.key, "seeds": list(study.seeds)}
    # a row a line, so that a version control system shows which rows changed
    body = ",\n  ".join(_json(row) for row in rows.to_dict("records"))
    text = f'{{"about": {_json(about)},\n "rows": [\n  {body}\n]}}\n'
    files.write_text(out / f"{study.name}.json", text)


def last_line(figures: JsonView) -> None:
    """Print one JSON object, as every benchmark does at its end."""
    sys.stdout.write(json.dumps(json_file.rounded(figures)) + "\n")


def _key(cell: Cell, seed: int) -> str:
    return json.dumps({**cell, "seed": seed}, sort_keys=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _json(values: JsonView) -> str:
    return json.dumps(json_file.rounded(values), sort_keys=True)


# --- intervals --------------------------------------------------------------------------------


def interval(
    values: NDArray[np.floating],
    weights: NDArray[np.floating] | None = None,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return the mean of values [seeds] or [seeds, clips] and its interval: (mean, low, high).

    With `weights` [clips] the mean is the ratio of both sums: hits among chances, from 0 to 1.

    Student's t over seeds, because a percentile bootstrap over five seeds covers 86 % where it says
    95. The clips, of which there are many, add their own spread by bootstrap.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim == 1:
        table = table[:, None]
    chances = np.ones(table.shape[1])
    if weights is not None:
        chances = np.asarray(weights, dtype=np.float64)
    each = table.sum(1) / chances.sum()
    n = len(each)
    mean = float(each.mean())
    by_seed = each.std(ddof=1) / np.sqrt(n) if n > 1 else float("nan")
    by_clip = 0.0
    if table.shape[1] > 1:
        n_clips = table.shape[1]
        columns = np.random.default_rng(seed).integers(n_clips, size=(RESAMPLES, n_clips))
        hits = table.mean(0)[columns].sum(1)
        by_clip = float((hits / np.maximum(chances[columns].sum(1), 1e-12)).std())
    quantile = 0.5 + confidence / 2
    half_by_seed = stats.t.ppf(quantile, max(n - 1, 1)) * by_seed
    half_by_clip = stats.norm.ppf(quantile) * by_clip
    half = float(np.hypot(half_by_seed, half_by_clip))
    low = mean - half
    high = mean + half
    # a share lies within 0 and 1, the difference of two shares may be negative
    if weights is not None and table.min() >= 0.0:
        return mean, max(low, 0.0), min(high, 1.0)
    return mean, low, high


def share(hits: Sequence[bool], confidence: float = 0.95) -> tuple[float, float, float]:
    """Return how often something happened, and Wilson's interval: (share, low, high)."""
    found = stats.binomtest(int(np.sum(hits)), len(hits)).proportion_ci(confidence, method="wilson")
    return float(np.mean(hits)), float(found.low), float(found.high)


def words(found: tuple[float, float, float], digits: int = 3) -> str:
    """Return an interval as text: `0.412 [0.401, 0.420]`."""
    mean, low, high = found
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
