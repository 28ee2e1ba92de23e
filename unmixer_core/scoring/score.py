"""Predictions on frozen test clips, re-rendered by the host and judged by ear, beside baselines on
the same clips.

A `ScoreJob` is one patch to render for one clip under one row name ("prediction", "random", ...).
`score` renders jobs in chunks while it measures the previous chunk, and writes every finished row
into a ledger, so an interrupted evaluation continues. Rows become a table per phase (median with
bootstrap interval), flat metrics, and the report of `unmixer_core.report.html`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unmixer_core import config
from unmixer_core.audio import fit_length
from unmixer_core.dataset.clips import Clips
from unmixer_core.dataset.patch_table import PatchTable
from unmixer_core.errors import StageError
from unmixer_core.live.host import Host
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.metrics import statistics
from unmixer_core.schema.patch import PHASES, Patch, Patches
from unmixer_core.scoring.baselines import UNHEARD_DB, Majority, at_note, random_patches
from unmixer_core.scoring.retrieval import Retrieval
from unmixer_core.system.journal import JsonLines
from unmixer_core.system.json_types import Json, JsonView

#: Rows of the table in reading order. `nearest` is the better of the training render as it is and
#: its patch at the target's note.
ROWS = ("init", "random", "mean", "nearest_as_is", "nearest", "prediction_mode", "prediction")
MEASURES = ("mss_db", "wmfcc", "sot", "rms", "level_db")
BEST = {"mss_db": "min", "wmfcc": "min", "sot": "min", "rms": "max", "level_db": "min"}
# jobs a render call: small enough to overlap with measuring, large enough to keep every host busy
CHUNK = 16
Progress = Callable[
    [Iterable[Any], int, str], Iterable[Any]
]  # (items, total, words) -> the same items


def quietly(items: Iterable[Any], total: int, words: str) -> Iterable[Any]:
    """Progress that says nothing."""
    return items


@dataclass(frozen=True)
class ScoreJob:
    """One patch to render and to compare with test clip `clip` (its row number in the clips)
    under the name `row`.
    """

    row: str
    clip: int
    patch: Patch
    detail: bool  # also wMFCC, SOT, RMS and the level-sensitive distance


@dataclass(frozen=True)
class ScoreTarget:
    """A test clip: audio [2, time] at its true level, MSS features, phase, id, and whether
    baselines and details are computed on it.
    """

    clip: int
    id: int
    phase: str
    patch: Patch
    audio: np.ndarray
    features: Any
    baseline: bool
    detail: bool


def choose(patches: Patches | PatchTable, settings: config.Evaluate) -> dict[str, np.ndarray]:
    """The judged test clips of every phase.

    The first n_<phase> of the frozen split (0 = all), as row numbers.
    """
    limits = {"dry": settings.n_dry, "nonlinear": settings.n_nonlinear, "full": settings.n_full}
    chosen = {phase: patches.where(phase=phase, split="test") for phase in PHASES}
    return {phase: rows[: limits[phase] or None] for phase, rows in chosen.items() if len(rows)}


def targets(
    audio_of: Callable[[int], np.ndarray],
    patches: Patches | PatchTable,
    chosen: Mapping[str, np.ndarray],
    settings: config.Evaluate,
    sample_rate: int,
) -> list[ScoreTarget]:
    """Targets of all phases, in order. Raises StageError when there is no test clip."""
    if not any(len(rows) for rows in chosen.values()):
        raise StageError(
            "the clips hold no test split; run `dvc repro render_patches` with sample.n_test "
            "above 0."
        )
    result = []
    for phase, rows in chosen.items():
        for place, clip in enumerate(map(int, rows)):
            audio = audio_of(clip)
            result.append(
                ScoreTarget(
                    clip,
                    int(patches.id[clip]),
                    phase,
                    patches[clip],
                    audio,
                    metrics_sound.mss_features(audio, sample_rate),
                    baseline=place < settings.n_baseline,
                    detail=place < settings.n_detail,
                )
            )
    return result


def baseline_jobs(
    test: Sequence[ScoreTarget], train: Patches, nearest: Mapping[int, Patch], seed: int
) -> list[ScoreJob]:
    """Init, random, mean and re-rendered nearest patches for the targets that ask for baselines.

    nearest: clip -> training patch.
    """
    asked = [t for t in test if t.baseline]
    majority = Majority.of(train)
    random = random_patches(train, [t.phase for t in asked], [t.patch for t in asked], seed)
    jobs = []
    for target, drawn in zip(asked, random, strict=True):
        note, gate_s = target.patch.note, target.patch.gate_s
        rows = {
            "init": Patch.init(note, gate_s),
            "random": drawn,
            "mean": majority.patch(note, gate_s),
            "nearest_rerendered": at_note(nearest[target.clip], note, gate_s),
        }
        jobs += [ScoreJob(row, target.clip, patch, target.detail) for row, patch in rows.items()]
    return jobs


def prediction_jobs(
    test: Sequence[ScoreTarget], point: Sequence[Patch], best: Sequence[Patch]
) -> list[ScoreJob]:
    """The candidate that the proxy ranks first, for every target.

    The point estimate for those that ask for baselines.
    """
    jobs = []
    for target, first, chosen in zip(test, point, best, strict=True):
        jobs += (
            [ScoreJob("prediction_mode", target.clip, first, target.detail)]
            if target.baseline
            else []
        )
        jobs += [ScoreJob("prediction", target.clip, chosen, target.detail)]
    return jobs


def measure(
    sound: np.ndarray, target: ScoreTarget, sample_rate: int, detail: bool
) -> dict[str, float]:
    """Every audio metric of one rendered sound [2, time] against its target.

    Nan for those that were not asked.
    """
    sound = fit_length(sound, target.audio.shape[-1])
    values = dict.fromkeys(MEASURES, float("nan"))
    values["mss_db"] = metrics_sound.mss_to(target.features, sound, sample_rate)
    if detail:
        values["wmfcc"] = float(metrics_sound.wmfcc(sound, target.audio, sample_rate))
        values["sot"] = float(metrics_sound.sot(sound, target.audio, sample_rate))
        values["rms"] = float(metrics_sound.rms_cosine(sound, target.audio, sample_rate))
        values["level_db"] = float(metrics_sound.level_mel_l1_db(sound, target.audio, sample_rate))
    return values


class Ledger:
    """Measured rows on disk, one JSON object a line, so that nothing finished is measured twice.

    A torn last line is dropped.
    """

    def __init__(self, path: Path | None) -> None:
        self.rows: dict[str, Json] = {}
        self._lines = None if path is None else JsonLines(path)
        if self._lines is not None:
            for entry in self._lines.read():
                self.rows[entry.pop("key")] = entry

    def add(self, key: str, values: JsonView) -> None:
        """Remember values under a key."""
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
) -> tuple[pd.DataFrame, dict[tuple[str, int], np.ndarray]]:
    """Render every job and measure it against its target.

    Returns rows (phase, row, id, digest and MEASURES) in the order of jobs, and the sounds of the
    (row, clip) pairs in `keep`. A patch that the host cannot render counts with UNHEARD_DB, so
    failures are never dropped from a median.
    """
    by_clip = {t.clip: t for t in test}
    wanted = {_key(job): job for job in jobs}  # equal patches of one clip are rendered once
    heard = {_key(job) for job in jobs if (job.row, job.clip) in keep}
    waiting = [job for key, job in wanted.items() if key not in ledger.rows or key in heard]
    sounds_of: dict[str, np.ndarray] = {}
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for chunk, sounds in progress(
            rendered(renderer, waiting), -(-len(waiting) // CHUNK), "re-render and measure"
        ):
            done = pool.map(
                lambda pair: _judge(pair[0], pair[1], by_clip[pair[0].clip], sample_rate),
                zip(chunk, sounds, strict=True),
            )
            for job, sound, values in zip(chunk, sounds, done, strict=True):
                ledger.add(_key(job), values)
                if _key(job) in heard and isinstance(sound, np.ndarray):
                    sounds_of[_key(job)] = sound
    kept = {
        (j.row, j.clip): sounds_of[_key(j)]
        for j in jobs
        if (j.row, j.clip) in keep and _key(j) in sounds_of
    }
    return pd.DataFrame(
        [_row(job, by_clip[job.clip], ledger.rows[_key(job)]) for job in jobs]
    ), kept


def rendered(
    renderer: Host, jobs: Sequence[ScoreJob]
) -> Iterator[tuple[Sequence[ScoreJob], list[Any]]]:
    """Chunks of jobs with their sounds.

    The next chunk is being rendered while the caller works on this one.
    """
    chunks = [jobs[i : i + CHUNK] for i in range(0, len(jobs), CHUNK)]
    with ThreadPoolExecutor(1) as ahead:
        coming: Future[list[Any]] | None = None
        for place, chunk in enumerate(chunks):
            current = coming or ahead.submit(renderer.render, [job.patch for job in chunk])
            following = chunks[place + 1 : place + 2]
            sounds = current.result()
            coming = (
                ahead.submit(renderer.render, [job.patch for job in following[0]])
                if following
                else None
            )
            yield chunk, sounds


def _judge(job: ScoreJob, sound: Any, target: ScoreTarget, sample_rate: int) -> dict[str, float]:
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


def prior(patches: Patches | PatchTable, at_most: int = 20_000) -> Patches:
    """The training patches that chance and the mean are read from, evenly spaced where there are
    more.
    """
    train = patches.where(split="train")
    return patches.select(train[spread(len(train), at_most)])


def index(
    clips: Clips,
    n: int,
    sample_rate: int,
    threads: int,
    progress: Progress = quietly,
    spool: Path | None = None,
) -> Retrieval:
    """The training renders to search: n of them, evenly spaced (0: all).

    Many of them are kept in the folder `spool`.
    """
    train = clips.patches.where(split="train")
    rows = train[spread(len(train), n)]
    return Retrieval.build(
        clips.audio,
        rows,
        sample_rate,
        threads=threads,
        progress=lambda f: progress(f, len(rows), "index training renders"),
        spool=spool,
    )


@dataclass(frozen=True)
class Neighbours:
    """The training clips that sound most like a target, nearest first, and the MSS in dB of the
    first as it is.
    """

    clips: tuple[int, ...]
    mss_db: float


def retrieve(
    retrieval: Retrieval, test: Sequence[ScoreTarget], k: int = 1
) -> dict[int, Neighbours]:
    """The k nearest training clips of every target, by its clip number."""
    found = {}
    for target in test:
        clips, distances_db = retrieval.nearest(target.features, k)
        found[target.clip] = Neighbours(tuple(map(int, clips)), float(distances_db[0]))
    return found


def nearest_rows(
    rows: pd.DataFrame,
    test: Sequence[ScoreTarget],
    found: Mapping[int, Neighbours],
    audio_of: Callable[[int], np.ndarray],
    sample_rate: int,
) -> pd.DataFrame:
    """Adds `nearest_as_is` for every target, and turns `nearest_rerendered` into `nearest`.

    Per clip the better of both.
    """
    as_is = []
    for target in test:
        near = found[target.clip]
        values = (
            measure(audio_of(near.clips[0]), target, sample_rate, True)
            if target.detail
            else {"mss_db": near.mss_db}
        )
        as_is.append(
            {"phase": target.phase, "row": "nearest_as_is", "id": target.id, "digest": "", **values}
        )
    table = pd.concat([rows, pd.DataFrame(as_is)], ignore_index=True)
    both = table[table["row"].isin(["nearest_as_is", "nearest_rerendered"])]
    paired = both[both["id"].isin(both.loc[both["row"] == "nearest_rerendered", "id"])]
    better = paired.loc[paired.groupby(["phase", "id"])["mss_db"].idxmin()].assign(row="nearest")
    return pd.concat([table, better], ignore_index=True)


def summarise(rows: pd.DataFrame, names: Sequence[str], settings: Any) -> dict[str, float]:
    """Flat metrics `<phase>.<row>.<measure>` (median), `.mss_db_low/_high` (bootstrap interval),
    `.n`.

    On the clips that have both: `.beats_nearest` is the share on which the row's MSS is below that
    of `nearest`, and `.mss_db_vs_nearest` the ratio of the medians.
    """
    flat: dict[str, float] = {}
    for phase in [p for p in PHASES if (rows["phase"] == p).any()]:
        part = rows[rows["phase"] == phase]
        bar = part[part["row"] == "nearest"].set_index("id")["mss_db"]
        for name in names:
            mine = part[part["row"] == name].set_index("id")
            if mine.empty:
                continue
            flat[f"{phase}.{name}.n"] = float(len(mine))
            for measure_name in MEASURES:
                values = mine[measure_name].dropna().to_numpy()
                if values.size:
                    flat[f"{phase}.{name}.{measure_name}"] = float(np.median(values))
            low, high = statistics.bootstrap(
                mine["mss_db"].to_numpy(),
                n=settings.bootstrap,
                confidence=settings.confidence,
                seed=settings.seed,
            )
            flat[f"{phase}.{name}.mss_db_low"], flat[f"{phase}.{name}.mss_db_high"] = (
                float(low),
                float(high),
            )
            shared = mine.index.intersection(bar.index)
            if len(shared) and name != "nearest":
                flat[f"{phase}.{name}.beats_nearest"] = float(
                    (mine.loc[shared, "mss_db"] < bar.loc[shared]).mean()
                )
                flat[f"{phase}.{name}.mss_db_vs_nearest"] = float(
                    mine.loc[shared, "mss_db"].median() / max(bar.loc[shared].median(), 1e-9)
                )
    return flat


def spread(total: int, n: int) -> np.ndarray:
    """n of the places 0 ... total - 1, evenly spaced (0, or more than there are: all)."""
    return (
        np.arange(total)
        if n <= 0 or n >= total
        else np.linspace(0, total - 1, n).round().astype(np.int64)
    )


def some(test: Sequence[ScoreTarget], n: int) -> list[ScoreTarget]:
    """n of the targets, evenly spaced over all phases (0: none)."""
    return [test[i] for i in spread(len(test), n)] if n else []


def shown(test: Sequence[ScoreTarget], n: int) -> list[ScoreTarget]:
    """The clips whose sounds go into the report: n of the last phase."""
    return some([target for target in test if target.phase == test[-1].phase], n)


def plot_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """What `dvc plots` draws: the sorted MSS of each row of each phase (columns phase, row,
    share, mss_db).
    """
    parts = []
    for (phase, row), part in rows[rows["row"].isin(ROWS)].groupby(["phase", "row"], sort=False):
        values = np.sort(part["mss_db"].to_numpy())
        share = (np.arange(len(values)) + 1) / len(values)
        parts.append(pd.DataFrame({"phase": phase, "row": row, "share": share, "mss_db": values}))
    return pd.concat(parts, ignore_index=True)
