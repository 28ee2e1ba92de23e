"""The benchmark of the stage `benchmark_itf`: targets, one run of every method, results.

Finished clips are in the ledger, so an interrupted benchmark continues.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from unmixer_core import config
from unmixer_core.comparison import entry, in_domain, methods, out_of_domain, sensitivity, tables
from unmixer_core.comparison.resources import BenchmarkResources
from unmixer_core.dataset.clips import Clips
from unmixer_core.recording.note import RecordedNote
from unmixer_core.scoring import targets as scoring_targets
from unmixer_core.scoring.progress import Progress, quietly
from unmixer_core.scoring.score import Ledger
from unmixer_core.scoring.targets import ScoreTarget

#: The ledger's key of the sensitivity; all others are ids of targets.
SENSITIVITY = "sensitivity"
#: Points of the curve of quality over time.
TIMES = 60

#: Sounds [2, time] by target id and method.
Sounds = Mapping[int, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class TargetSet:
    """The targets of a benchmark.

    notes: the recorded note of each, by its id. In-domain ones have the true note and gate,
    out-of-domain ones the detected.
    """

    in_domain: list[ScoreTarget]
    out_of_domain: list[ScoreTarget]
    notes: dict[int, RecordedNote]

    @property
    def all(self) -> list[ScoreTarget]:
        """In-domain targets, then the others."""
        return [*self.in_domain, *self.out_of_domain]


@dataclass(frozen=True)
class Results:
    """The outcome of a benchmark, as tables.

    rows: a line per clip and method. sensitivity: as `sensitivity.measure` returns it. over_time:
    as `tables.over_time` returns it, with the column `clips`: the domain.
    """

    rows: pd.DataFrame
    sensitivity: pd.DataFrame
    over_time: pd.DataFrame

    def metrics(self) -> dict[str, float]:
        """Flat metrics of all clips."""
        return tables.flat_metrics(self.rows)


def read_targets(
    clips: Clips, folder: Path, audio: config.Audio, sample: config.Sample, itf: config.Itf
) -> TargetSet:
    """Read `itf.n_clips` in-domain and `itf.n_outside` out-of-domain targets (0: none of these).

    folder: that of the out-of-domain files.

    Raises:
        StageError: there is no in-domain test clip.
        AudioError: the out-of-domain files cannot be read.
    """
    known = in_domain.targets(clips, itf.n_clips, audio.sample_rate)
    notes = {target.id: in_domain.recorded_note(target, audio.sample_rate) for target in known}
    others = []
    if itf.n_outside:
        files = out_of_domain.read(
            folder,
            itf.n_outside,
            rate=audio.sample_rate,
            clip_s=audio.clip_s,
            note_range=(sample.note_low, sample.note_high),
        )
        for file in files:
            target = out_of_domain.target(file)
            others.append(target)
            notes[target.id] = file.detected
    return TargetSet(known, others, notes)


def run(
    resources: BenchmarkResources,
    targets: Sequence[ScoreTarget],
    ledger: Ledger,
    progress: Progress = quietly,
) -> dict[int, dict[str, np.ndarray]]:
    """Run the methods on every target that the ledger does not hold.

    Returns the sounds of those targets: id -> method -> audio.
    """
    sounds = {}
    for target in progress(targets, len(targets), "compare"):
        if str(target.id) in ledger.rows:
            continue
        entries = methods.run_methods(resources, target)
        lines = entry.table_rows(entries, target, resources.sample_rate)
        ledger.add(str(target.id), {"lines": lines})
        sounds[target.id] = {one.method: one.audio for one in entries}
    return sounds


def run_sensitivity(
    resources: BenchmarkResources,
    targets: TargetSet,
    ledger: Ledger,
    progress: Progress = quietly,
) -> None:
    """Measure the sensitivity of ITF on some targets of each domain, unless the ledger holds it."""
    if SENSITIVITY in ledger.rows:
        return
    n = resources.itf.n_sensitivity
    chosen = [
        *scoring_targets.some(targets.in_domain, n),
        *scoring_targets.some(targets.out_of_domain, n),
    ]
    candidates = []
    for target in progress(chosen, len(chosen), "refine"):
        candidates.append((target, methods.proposals(resources, target)[0]))
    rows = sensitivity.measure(
        resources.host,
        resources.proxy,
        candidates,
        resources.itf,
        resources.sample_rate,
        resources.threads,
    )
    ledger.add(SENSITIVITY, {"lines": rows.to_dict("records")})


def rows_of(ledger: Ledger, targets: Sequence[ScoreTarget]) -> pd.DataFrame:
    """Return the ledger's table rows of these targets."""
    lines = []
    for target in targets:
        lines += ledger.rows[str(target.id)]["lines"]
    return pd.DataFrame(lines)


def results(ledger: Ledger, targets: TargetSet) -> Results:
    """Return the tables of a finished benchmark."""
    rows = rows_of(ledger, targets.all)
    grid_s = np.linspace(0, rows["seconds"].max(), TIMES)
    curves = []
    for name, part in tables.parts(rows).items():
        curves.append(tables.over_time(part, grid_s).assign(clips=name))
    return Results(
        rows=rows,
        sensitivity=pd.DataFrame(ledger.rows[SENSITIVITY]["lines"]),
        over_time=pd.concat(curves),
    )
