"""Ways to find a patch for one sound, side by side on the same clips: what `benchmark_itf` measures.

Every contestant returns one patch; its sound is the host's. Counted with it: seconds (wall clock, everything that this
contestant needs after the model is loaded) and host renders. CMA-ES gets the renders, and then the seconds, of ITF +
verify.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pandas as pd

from unmixer_core import baselines, finetune, metrics
from unmixer_core.audio import Clips
from unmixer_core.errors import StageError
from unmixer_core.evaluation import MEASURES, Ledger, Progress, Target, measure, quietly, spread
from unmixer_core.schema.patch import Patch, Patches

CONTESTANTS = (
    "random",
    "nearest",
    "no_itf",
    "no_itf_verify",
    "itf",
    "itf_verify",
    "cma_equal_renders",
    "cma_equal_seconds",
)


class Settings(finetune.Settings, Protocol):
    """The part of the `itf` section that is read here."""

    seeds: int
    candidates: int
    cma_population: int
    cma_sigma: float
    cma_max_seconds: float
    seed: int


@dataclass(frozen=True)
class Tools:
    """What the contestants work with. propose: a target and the patches of its nearest training renders -> proposals."""

    renderer: Any
    proxy: Any
    propose: Callable[[Target, list[Patch]], list[Patch]]
    retrieval: baselines.Retrieval
    clips: Clips
    sample_rate: int
    settings: Settings
    threads: int = 1

    @cached_property
    def train(self) -> Patches:
        """The training patches."""
        return self.clips.patches.select(self.clips.patches.where(split="train"))


@dataclass(frozen=True)
class Entry:
    """One contestant's answer for one clip. `curve`: (renders, seconds, best MSS in dB so far) rows."""

    row: str
    audio: np.ndarray
    seconds: float
    renders: int
    curve: Sequence[tuple[float, float, float]] = ()


def targets(clips: Clips, n: int, sample_rate: int) -> list[Target]:
    """n frozen full-chain test clips, evenly spaced. Raises StageError when there are none."""
    known = clips.patches.where(phase="full", split="test")
    rows = known[spread(len(known), n)].tolist()
    if not rows:
        raise StageError(
            "the clips hold no full-chain test split; run `dvc repro render_patches` with sample.n_test_full above 0."
        )
    sounds = [clips.audio(row) for row in rows]
    return [
        Target(
            row,
            int(clips.patches.id[row]),
            "full",
            clips.patches[row],
            sound,
            metrics.mss_features(sound, sample_rate),
            True,
            True,
        )
        for row, sound in zip(rows, sounds, strict=True)
    ]


def run(
    tools: Tools, test: Sequence[Target], ledger: Ledger, progress: Progress = quietly
) -> dict[int, dict[str, np.ndarray]]:
    """Let everyone compete on every clip that the ledger does not hold; returns those sounds: id -> row -> audio."""
    sounds = {}
    for target in progress(test, len(test), "compete"):
        if str(target.id) not in ledger.rows:
            entries = compete(tools, target)
            ledger.add(str(target.id), {"lines": judged(entries, target, tools.sample_rate)})
            sounds[target.id] = {entry.row: entry.audio for entry in entries}
    return sounds


def results(ledger: Ledger, test: Sequence[Target]) -> pd.DataFrame:
    """Table rows of all clips, as `judged` made them."""
    return pd.DataFrame([line for target in test for line in ledger.rows[str(target.id)]["lines"]])


def compete(tools: Tools, target: Target) -> list[Entry]:
    """Every contestant's entry for one clip, in the order of CONTESTANTS."""
    random, nearest = _random(tools, target), _nearest(tools, target)
    itf = _itf_family(tools, target)
    verified = itf[-1]
    cma = [
        _cma(tools, target, "cma_equal_renders", max_renders=verified.renders),
        _cma(tools, target, "cma_equal_seconds", max_seconds=min(verified.seconds, tools.settings.cma_max_seconds)),
    ]
    return [random, nearest, *itf, *cma]


def judged(entries: Sequence[Entry], target: Target, sample_rate: int) -> list[dict[str, Any]]:
    """Entries as table rows: id, row, all measures, seconds, renders, curve."""
    return [
        {
            "phase": target.phase,
            "id": target.id,
            "row": entry.row,
            **measure(entry.audio, target, sample_rate, True),
            "seconds": entry.seconds,
            "renders": entry.renders,
            "curve": [list(map(float, point)) for point in entry.curve],
        }
        for entry in entries
    ]


def _random(tools: Tools, target: Target) -> Entry:
    begun = time.perf_counter()
    patch = baselines.random_patches(tools.train, [target.phase], [target.patch], tools.settings.seed + target.id)[0]
    return Entry("random", _heard(tools, target, [patch])[0], time.perf_counter() - begun, 1)


def _nearest(tools: Tools, target: Target) -> Entry:
    """The better of the nearest training render as it is and its patch at the target's note and gate."""
    begun = time.perf_counter()
    clip = int(tools.retrieval.nearest(target.features)[0][0])
    as_is = tools.clips.audio(clip)
    again = _heard(
        tools, target, [baselines.at_note(tools.clips.patches[clip], target.patch.note, target.patch.gate_s)]
    )[0]
    best = min((as_is, again), key=lambda sound: _mss(tools, target, sound))
    return Entry("nearest", best, time.perf_counter() - begun, 1)


def _itf_family(tools: Tools, target: Target) -> list[Entry]:
    """no_itf, no_itf_verify, itf, itf_verify from one set of proposals, the `candidates` that the proxy ranks first; each
    is charged with what it alone would have needed.
    """
    clock = _Clock()
    near = tools.retrieval.nearest(target.features, max(1, tools.settings.seeds))[0][: tools.settings.seeds]
    proposals = tools.propose(target, [tools.clips.patches[int(clip)] for clip in near])
    order = np.argsort(
        finetune.rank(tools.proxy, target.audio, proposals, sample_rate=tools.sample_rate, clip_s=tools.settings.clip_s)
    )
    proposals = [proposals[i] for i in order[: tools.settings.candidates]]
    proposed_s = clock.lap()
    first = _heard(tools, target, proposals[:1])
    first_s = clock.lap()
    rest = _heard(tools, target, proposals[1:])
    rest_s = clock.lap()
    refined = finetune.refine_side_by_side(
        tools.proxy, target.audio, proposals, tools.settings, sample_rate=tools.sample_rate, threads=tools.threads
    )
    refined.sort(key=lambda r: r.loss if np.isfinite(r.loss) else np.inf)
    refined_s = clock.lap()
    polished = _heard(tools, target, [r.patch for r in refined[:1]])
    polished_s = clock.lap()
    others = _heard(tools, target, [r.patch for r in refined[1:]])
    others_s = clock.lap()
    k, base_s = len(proposals), proposed_s + first_s
    verified = _best(tools, target, [*first, *rest])
    winner = _best(tools, target, [*first, *rest, *polished, *others])
    total_s = base_s + rest_s + refined_s + polished_s + others_s
    curve = [
        (1, base_s, _mss(tools, target, first[0])),
        (k, base_s + rest_s, _mss(tools, target, verified)),
        (2 * k, total_s, _mss(tools, target, winner)),
    ]
    return [
        Entry("no_itf", first[0], base_s, 1, curve[:1]),
        Entry("no_itf_verify", verified, base_s + rest_s, k, curve[:2]),
        Entry("itf", polished[0], proposed_s + refined_s + polished_s, 1),
        Entry("itf_verify", winner, total_s, 2 * k, curve),
    ]


def _cma(
    tools: Tools, target: Target, row: str, *, max_renders: int | None = None, max_seconds: float | None = None
) -> Entry:
    start = Patch.init(target.patch.note, target.patch.gate_s)
    found = baselines.cma_search(
        tools.renderer,
        target.audio,
        start,
        sample_rate=tools.sample_rate,
        population=tools.settings.cma_population,
        sigma=tools.settings.cma_sigma,
        seed=tools.settings.seed + target.id,
        max_renders=max_renders,
        max_seconds=max_seconds,
    )
    return Entry(row, found.audio, found.seconds, found.renders, [tuple(point) for point in found.curve])


def _heard(tools: Tools, target: Target, patches: Sequence[Patch]) -> list[np.ndarray]:
    """Host renders; a patch that could not be rendered counts as silence."""
    sounds = tools.renderer.render(list(patches)) if patches else []
    return [
        baselines.fit_length(sound, target.audio.shape[-1])
        if isinstance(sound, np.ndarray)
        else np.zeros_like(target.audio)
        for sound in sounds
    ]


def _mss(tools: Tools, target: Target, sound: np.ndarray) -> float:
    return float(metrics.mss_from_features(target.features, metrics.mss_features(sound, tools.sample_rate)))


def _best(tools: Tools, target: Target, sounds: Sequence[np.ndarray]) -> np.ndarray:
    return min(sounds, key=lambda sound: _mss(tools, target, sound))


class _Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.last = time.perf_counter()

    def lap(self) -> float:
        now, before = time.perf_counter(), self.last
        self.last = now
        return now - before


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Medians per contestant: every measure, seconds, renders; index in the order of CONTESTANTS."""
    medians = rows.groupby("row")[[*MEASURES, "seconds", "renders"]].median()
    return medians.reindex([name for name in CONTESTANTS if name in medians.index])


def verdict(rows: pd.DataFrame) -> dict[str, float]:
    """Flat metrics: `<row>.<measure>` medians, and what ITF gained: drop of the median MSS, share of clips improved
    and worse.
    """
    flat = {f"{row}.{column}": float(value) for row, line in table(rows).iterrows() for column, value in line.items()}
    mss_db = rows.pivot_table(index="id", columns="row", values="mss_db")
    flat["clips"] = float(len(mss_db))
    for name in ("itf", "itf_verify"):
        change = mss_db[name] - mss_db["no_itf"]
        flat[f"{name}.gain"] = 1.0 - float(mss_db[name].median() / max(mss_db["no_itf"].median(), 1e-9))
        flat[f"{name}.share_improved"] = float((change < -1e-6).mean())
        flat[f"{name}.share_worse"] = float((change > 1e-6).mean())
    for rival in ("cma_equal_renders", "cma_equal_seconds", "nearest"):
        flat[f"itf_verify.beats_{rival}"] = float((mss_db["itf_verify"] < mss_db[rival]).mean())
    return flat


def over_time(rows: pd.DataFrame, grid_s: np.ndarray) -> pd.DataFrame:
    """Median best-so-far MSS at each time of `grid_s` (columns: row, seconds, mss_db); times before every clip has a
    value are left out.
    """
    lines = []
    for row, part in rows.groupby("row"):
        known = [np.array(curve, dtype=float) for curve in part["curve"] if len(curve)]
        if not known:
            continue
        values = np.stack([_best_at(curve, grid_s) for curve in known])
        heard = np.isfinite(values).all(axis=0)
        lines += [
            {"row": row, "seconds": float(t), "mss_db": float(v)}
            for t, v in zip(grid_s[heard], np.median(values[:, heard], axis=0), strict=True)
        ]
    return pd.DataFrame(lines, columns=["row", "seconds", "mss_db"])


def _best_at(curve: np.ndarray, grid_s: np.ndarray) -> np.ndarray:
    """Step function of (renders, seconds, best) rows: the best known at each time, inf before the first."""
    place = np.searchsorted(curve[:, 1], grid_s, side="right")
    best = np.concatenate([[np.inf], np.minimum.accumulate(curve[:, 2])])
    return best[place]
