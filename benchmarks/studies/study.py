"""One loop for the studies of docs/studies.

Every setting with every seed, once, kept as it goes, then told as a page.

A study is a list of settings (`cells`), a function that runs one of them with one seed and returns
numbers, and a function that turns all rows into tables and a picture. Finished runs are in
`.unmixer/study-<name>-<digest>.jsonl`, keyed by everything they depend on, so a study that was
killed goes on, and one that is finished is only told again. Written are docs/studies/<name>.md,
.svg and .json (all rows).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from unmixer_core.pipeline import json_file, log
from unmixer_core.report.html import Report
from unmixer_core.scoring.score import Ledger

REPO = Path(__file__).resolve().parents[2]
RESAMPLES = 2000
Cell = Mapping[str, Any]
Run = Callable[[Cell, int, Path], Mapping[str, Any]]


@dataclass(frozen=True)
class Study:
    """`run(cell, seed, state)` gives a row's numbers and may keep half-finished work in the
    folder `state`; `tell(rows, report)` fills a page and returns its picture; `key` is what all
    rows depend on; `about` is told beneath the title.
    """

    name: str
    title: str
    about: str
    command: str
    cells: Sequence[Cell]
    seeds: Sequence[int]
    key: Mapping[str, Any]
    run: Run
    tell: Callable[[pd.DataFrame, Report], Figure]


def arguments(words: str | None, seeds: int) -> argparse.ArgumentParser:
    """The options that studies share."""
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
    """Run what is missing, write the page and all rows.

    Returns them, a line per setting and seed.
    """
    digest = hashlib.sha256(
        json.dumps(study.key, sort_keys=True, default=str).encode()
    ).hexdigest()[:12]
    folder = state / f"study-{study.name}-{digest}"
    ledger = Ledger(folder.with_suffix(".jsonl"))
    wanted = {_key(cell, seed): (cell, seed) for seed in study.seeds for cell in study.cells}
    waiting = [key for key in wanted if key not in ledger.rows]
    for key in log.StageLog().progress(waiting, len(waiting), study.name):
        ledger.add(
            key, study.run(*wanted[key], folder / hashlib.sha256(key.encode()).hexdigest()[:12])
        )
    rows = pd.DataFrame(
        [{**cell, "seed": seed, **ledger.rows[key]} for key, (cell, seed) in wanted.items()]
    )
    write(study, rows, out)
    return rows


def write(study: Study, rows: pd.DataFrame, out: Path) -> None:
    """<name>.md, .svg and .json in the folder `out`."""
    report = Report(study.title)
    report.text(study.about)
    figure = study.tell(rows, report)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / f"{study.name}.svg", metadata={"Date": None})
    picture = f"![{study.title}]({study.name}.svg)"
    foot = (
        f"{picture}\n\n`{study.command}` makes this page; all rows: "
        f"[{study.name}.json]({study.name}.json).\n"
    )
    (out / f"{study.name}.md").write_text(f"{report.markdown()}\n{foot}", encoding="utf-8")
    lines = [json.dumps(json_file.rounded(row), sort_keys=True) for row in rows.to_dict("records")]
    about = json.dumps(
        json_file.rounded({"command": study.command, "key": study.key, "seeds": list(study.seeds)}),
        sort_keys=True,
    )
    body = ",\n  ".join(lines)
    (out / f"{study.name}.json").write_text(
        f'{{"about": {about},\n "rows": [\n  {body}\n]}}\n', encoding="utf-8"
    )


def last_line(figures: Mapping[str, Any]) -> None:
    """One JSON object, as every benchmark ends."""
    sys.stdout.write(json.dumps(json_file.rounded(figures)) + "\n")


def _key(cell: Cell, seed: int) -> str:
    return json.dumps({**cell, "seed": seed}, sort_keys=True)


# --- intervals --------------------------------------------------------------------------------


def interval(
    values: NDArray[np.floating],
    weights: NDArray[np.floating] | None = None,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean of values [seeds] or [seeds, clips] and its interval: (mean, low, high).

    With `weights` [clips], the ratio of both sums: hits among chances, within 0 and 1.

    Student's t over seeds, because a percentile bootstrap over five covers 86 % where it says 95;
    clips, of which there are many, add their own spread by bootstrap.
    """
    table = np.asarray(values, dtype=np.float64)
    table = table[:, None] if table.ndim == 1 else table
    chances = np.ones(table.shape[1]) if weights is None else np.asarray(weights, dtype=np.float64)
    each = table.sum(1) / chances.sum()
    n, mean = len(each), float(each.mean())
    by_seed = each.std(ddof=1) / np.sqrt(n) if n > 1 else float("nan")
    by_clip = 0.0
    if table.shape[1] > 1:
        columns = np.random.default_rng(seed).integers(
            table.shape[1], size=(RESAMPLES, table.shape[1])
        )
        by_clip = float(
            (table.mean(0)[columns].sum(1) / np.maximum(chances[columns].sum(1), 1e-12)).std()
        )
    place = 0.5 + confidence / 2
    half = float(
        np.hypot(stats.t.ppf(place, max(n - 1, 1)) * by_seed, stats.norm.ppf(place) * by_clip)
    )
    low, high = mean - half, mean + half
    share_of_hits = weights is not None and table.min() >= 0.0  # not a difference of two
    return (mean, max(low, 0.0), min(high, 1.0)) if share_of_hits else (mean, low, high)


def share(hits: Sequence[bool], confidence: float = 0.95) -> tuple[float, float, float]:
    """How often something happened, and Wilson's interval: (share, low, high)."""
    found = stats.binomtest(int(np.sum(hits)), len(hits)).proportion_ci(confidence, method="wilson")
    return float(np.mean(hits)), float(found.low), float(found.high)


def words(found: tuple[float, float, float], digits: int = 3) -> str:
    """ "0.412 [0.401, 0.420]"."""
    mean, low, high = found
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
