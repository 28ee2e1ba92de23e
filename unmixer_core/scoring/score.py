"""Render patches for frozen test clips, and measure them.

A `ScoreJob` is one patch to render for one clip, under one row name ("prediction", "random", ...).
`score` renders a chunk of jobs while it measures the previous chunk. It writes every finished row
into a ledger, so an interrupted evaluation continues.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from unmixer_core.audio import Clip
from unmixer_core.live.host import Host, RenderFailure
from unmixer_core.schema.patch import Patch, Patches
from unmixer_core.scoring.baselines import UNHEARD_DB, Majority, at_note, random_patches
from unmixer_core.scoring.measures import MEASURES, measure
from unmixer_core.scoring.progress import Progress, quietly
from unmixer_core.scoring.targets import ScoreTarget
from unmixer_core.system.journal import JsonLines
from unmixer_core.system.json_types import Json, JsonView

#: Jobs of a render call: few enough to overlap with measuring, enough to keep every host busy.
CHUNK = 16


@dataclass(frozen=True)
class ScoreJob:
    """One patch to render and to compare with a test clip."""

    #: Name of the row: "prediction", "random", ...
    row: str
    #: Row number of the test clip.
    clip: int
    patch: Patch
    #: Whether wMFCC, SOT, RMS and the level-sensitive distance are measured too.
    detail: bool


def baseline_jobs(
    test: Sequence[ScoreTarget], train: Patches, nearest: Mapping[int, Patch], seed: int
) -> list[ScoreJob]:
    """Make the jobs of the baselines: init, random, mean and re-rendered nearest patches.

    nearest: clip -> training patch. Targets without `baseline` have none.
    """
    with_baseline = [target for target in test if target.baseline]
    phases = [target.phase for target in with_baseline]
    patches = [target.patch for target in with_baseline]
    majority = Majority.of(train)
    random = random_patches(train, phases, patches, seed)
    jobs = []
    for target, drawn in zip(with_baseline, random, strict=True):
        note = target.patch.note
        gate_s = target.patch.gate_s
        rows = {
            "init": Patch.init(note, gate_s),
            "random": drawn,
            "mean": majority.patch(note, gate_s),
            "nearest_rerendered": at_note(nearest[target.clip], note, gate_s),
        }
        for row, patch in rows.items():
            jobs.append(ScoreJob(row, target.clip, patch, target.detail))
    return jobs


def prediction_jobs(
    test: Sequence[ScoreTarget], point: Sequence[Patch], best: Sequence[Patch]
) -> list[ScoreJob]:
    """Make the jobs of the predictions.

    best: the candidate of every target that the proxy ranks first. point: the point estimate of
    every target; it is rendered for targets with `baseline`.
    """
    jobs = []
    for target, estimate, candidate in zip(test, point, best, strict=True):
        if target.baseline:
            jobs.append(ScoreJob("prediction_mode", target.clip, estimate, target.detail))
        jobs.append(ScoreJob("prediction", target.clip, candidate, target.detail))
    return jobs


class Ledger:
    """Measured rows on disk, one JSON object a line, so that no job is measured twice.

    A last line that was cut off (the process was killed) is ignored.
    """

    def __init__(self, path: Path | None) -> None:
        self._lines = None if path is None else JsonLines(path)
        self.rows: dict[str, Json] = {}
        if self._lines is not None:
            for entry in self._lines.read():
                self.rows[entry.pop("key")] = entry

    def add(self, key: str, values: JsonView) -> None:
        """Record values under a key."""
        self.rows[key] = dict(values)
        if self._lines is not None:
            self._lines.append({"key": key, **values})


def score(
    renderer: Host,
    jobs: Sequence[ScoreJob],
    test: Sequence[ScoreTarget],
    sample_rate: int,
    ledger: Ledger,
    *,
    threads: int = 1,
    progress: Progress = quietly,
    keep: Collection[tuple[str, int]] = (),
) -> tuple[pd.DataFrame, dict[tuple[str, int], Clip]]:
    """Render every job and measure it against its target.

    Returns rows (phase, row, id, digest and MEASURES) in the order of jobs, and the sounds of the
    (row, clip) pairs in `keep`. A patch that the host cannot render counts with UNHEARD_DB, so
    failures are never dropped from a median.
    """
    by_clip = {target.clip: target for target in test}
    # equal patches of one clip have one key, and are rendered once
    wanted = {_key(job): job for job in jobs}
    with_sound = {_key(job) for job in jobs if (job.row, job.clip) in keep}
    waiting = []
    for key, job in wanted.items():
        if key not in ledger.rows or key in with_sound:
            waiting.append(job)
    n_chunks = -(-len(waiting) // CHUNK)
    sounds_of: dict[str, Clip] = {}
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for chunk, sounds in progress(
            rendered(renderer, waiting), n_chunks, "re-render and measure"
        ):
            measured = pool.map(
                lambda job, sound: _measure(job, sound, by_clip[job.clip], sample_rate),
                chunk,
                sounds,
            )
            for job, sound, values in zip(chunk, sounds, measured, strict=True):
                key = _key(job)
                ledger.add(key, values)
                if key in with_sound and isinstance(sound, np.ndarray):
                    sounds_of[key] = sound
    returned = {}
    for job in jobs:
        pair = (job.row, job.clip)
        if pair in keep and _key(job) in sounds_of:
            returned[pair] = sounds_of[_key(job)]
    rows = [_row(job, by_clip[job.clip], ledger.rows[_key(job)]) for job in jobs]
    return pd.DataFrame(rows), returned


def rendered(
    renderer: Host, jobs: Sequence[ScoreJob]
) -> Iterator[tuple[Sequence[ScoreJob], list[Clip | RenderFailure]]]:
    """Yield chunks of jobs with their sounds.

    The next chunk is rendered while the caller works on this one.
    """
    chunks = [jobs[start : start + CHUNK] for start in range(0, len(jobs), CHUNK)]
    if not chunks:
        return
    with ThreadPoolExecutor(1) as ahead:

        def begin(chunk: Sequence[ScoreJob]) -> Future[list[Clip | RenderFailure]]:
            return ahead.submit(renderer.render, [job.patch for job in chunk])

        coming = begin(chunks[0])
        for place, chunk in enumerate(chunks):
            sounds = coming.result()
            if place + 1 < len(chunks):
                coming = begin(chunks[place + 1])
            yield chunk, sounds


def _measure(
    job: ScoreJob, sound: Clip | RenderFailure, target: ScoreTarget, sample_rate: int
) -> dict[str, float]:
    if not isinstance(sound, np.ndarray):
        return dict.fromkeys(MEASURES, float("nan")) | {"mss_db": UNHEARD_DB}
    return measure(sound, target, sample_rate, job.detail)


def _row(job: ScoreJob, target: ScoreTarget, values: Mapping[str, float]) -> Json:
    return {
        "phase": target.phase,
        "row": job.row,
        "id": target.id,
        "digest": job.patch.digest,
        **values,
    }


def _key(job: ScoreJob) -> str:
    return f"{job.clip}:{job.patch.digest}:{int(job.detail)}"
