"""From a heard note to a patch: propose → rank by the proxy → render → refine (ITF) → render → change → polish.

Whatever proposes, the host decides: every patch that could be the answer is rendered, and the one whose sound is nearest
(MSS) wins, so no later step can make the answer worse than an earlier one. Every step ends when its time is up, and an
interrupt (Ctrl-C, or `cancel` from another thread) ends the search with the best so far.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from unmixer_core import finetune, metrics, neighbourhood, timed_refinement
from unmixer_core.audio import Clips
from unmixer_core.belief import Ear
from unmixer_core.constraints import Constraints
from unmixer_core.errors import HostError
from unmixer_core.features import Features
from unmixer_core.listening import Heard
from unmixer_core.model.unmixer import Unmixer
from unmixer_core.schema.patch import Patch

log = logging.getLogger(__name__)

SHARE_FOR_RANKING, SHARE_FOR_ITF = 0.25, 0.6
"""Of all the time; of what is left before refinement."""
AS_THEY_ARE = 2
"""Nearest training patches that are also tried as they are."""
FEW_RENDERS = 24
"""Fewer renders than this tell nothing of what the synth cannot do: the default search hears a few hundred."""
MIN_SPREAD, MAX_SPREAD = 0.02, 0.3
RANK_BATCH = 8
Tell = Callable[[str, "Candidate | None"], None]


class Settings(Protocol):
    """What is read of params.yaml's `unmix` section."""

    seconds: float
    itf_seconds: float
    candidates: int
    proposals: int
    notes: int
    neighbours: int
    shortlist: int
    n_retrieval: int
    changes: int
    changes_refined: int
    changes_steps: int
    change_share: float
    fast_candidates: int
    fast_proposals: int
    fast_notes: int
    polish_population: int
    polish_sigma: float
    seed: int


@dataclass(frozen=True)
class Tools:
    """What a search works with. `known`: the training clips' features, where there are any; `clips`: their sounds."""

    model: Unmixer
    proxy: Any
    host: Any
    known: Features | None = None
    clips: Clips | None = None


@dataclass(frozen=True)
class Options:
    """What the person asked for; None = as the settings say. `polish_s`: seconds of the last search, 0 = none."""

    candidates: int | None = None
    itf: bool = True
    fast: bool = False
    polish_s: float | None = None
    constraints: Constraints = field(default_factory=Constraints)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A patch that the host rendered: its sound [2, time], its MSS to the recording in dB, and where it came from."""

    patch: Patch
    audio: NDArray[np.float32]
    mss_db: float
    source: str


@dataclass(frozen=True)
class Answer:
    """The best candidate, the best of each refined line (best first), (seconds, renders, MSS) of every improvement, ...;
    `failure`: a sentence when the host failed before the search was over; `thorough`: no step was cut short or left out for
    speed, so that a poor best says something about the synth."""

    best: Candidate
    candidates: list[Candidate]
    curve: list[tuple[float, int, float]]
    seconds: float
    renders: int
    interrupted: bool
    ear: Ear
    failure: str | None = None
    thorough: bool = True


class Search:
    """One search. `best` and `kept` grow as the host answers."""

    def __init__(
        self, heard: Heard, tools: Tools, settings: Settings, itf: finetune.Settings, options: Options, tell: Tell
    ) -> None:
        self.heard, self.tools, self.settings, self.itf, self.options, self.tell = (
            heard, tools, settings, itf, options, tell,
        )  # fmt: skip
        self.begun = time.perf_counter()
        self.end_s = settings.seconds
        self._cancelled = threading.Event()
        on_cpu = next(tools.model.parameters()).device.type == "cpu"
        self.threads = max(1, torch.get_num_threads()) if on_cpu else 1
        self.ear = Ear.of(tools.model, heard.clip)
        self.features = metrics.mss_features(heard.clip, heard.rate)
        self.best: Candidate | None = None
        self.kept: list[Candidate] = []
        self.curve: list[tuple[float, int, float]] = []
        self.renders = 0
        self.seen: set[str] = set()
        self.distance = finetune.target_distance(tools.proxy, heard.clip, heard.rate, itf.clip_s)

    def run(self) -> Answer:
        """All steps. KeyboardInterrupt and HostError end it with the best so far, or go on when there is none yet."""
        interrupted, failure = False, None
        try:
            self._steps()
        except KeyboardInterrupt:
            interrupted = True
            if self.best is None:
                raise
        except HostError as error:
            if self.best is None:
                raise
            failure = f"The search ended early, after {self.seconds:.0f} s: {' '.join(str(error).split())}"
        if self.best is None:
            raise HostError("the host rendered none of the candidates.")
        kept = sorted(self.kept, key=lambda c: c.mss_db)
        cut = interrupted or failure is not None or self.options.fast or self.renders < FEW_RENDERS
        return Answer(self.best, kept, self.curve, self.seconds, self.renders, interrupted, self.ear, failure, not cut)

    def cancel(self) -> None:
        """From any thread: `run` ends within one render or one step of refinement, as after Ctrl-C."""
        self._cancelled.set()

    def _go_on(self, step: str) -> None:
        """Tell where the search is; raises KeyboardInterrupt once it was cancelled."""
        self.tell(step, self.best)
        if self._cancelled.is_set():
            raise KeyboardInterrupt

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.begun

    def _steps(self) -> None:
        fast, settings = self.options.fast, self.settings
        count = self.options.candidates or (settings.fast_candidates if fast else settings.candidates)
        self._go_on("propose")
        near, others = self._proposals()
        ranked = [patch for patch, _ in self._ranked(others, SHARE_FOR_RANKING * settings.seconds)]
        first = [*near, *ranked][: max(count, len(near) + 1)]
        self._hear(first, "proposal")
        if self.options.itf and not fast and self.seconds < self.end_s:
            self._refine(first)
        if self.options.polish_s == 0.0 or (fast and self.options.polish_s is None):
            return
        if self.options.polish_s is not None:
            self.end_s = self.seconds + self.options.polish_s
        if settings.changes:
            self._change(self.seconds + settings.change_share * (self.end_s - self.seconds))
        self._polish()

    # --- propose ---------------------------------------------------------------------------------------------------

    def _proposals(self) -> tuple[list[Patch], list[Patch]]:
        """The nearest training render's patch as it is, which is heard whatever the proxy thinks of it (so the answer is
        never further than what retrieval alone finds); then the network's for each note that the sound may be and those
        of the nearest training renders, in turns."""
        s, constraints, heard = self.settings, self.options.constraints, self.heard
        n = max(s.fast_proposals if self.options.fast else s.proposals, self.options.candidates or 0)
        notes = heard.notes[: s.fast_notes if self.options.fast else s.notes]
        sources = [self.ear.propose(note, heard.gate_s, n, s.seed, constraints) for note in notes]
        near, neighbours = self._neighbours()
        turns = [patch for turn in zip_longest(*sources, neighbours) for patch in turn if patch is not None]
        others = list({patch.digest: patch for patch in reversed(turns)}.values())[::-1]
        return near, [patch for patch in others if patch.digest not in {p.digest for p in near}]

    def _neighbours(self) -> tuple[list[Patch], list[Patch]]:
        """(the nearest training render's patch, those of the nearest ones), at the note and gate that were heard; the very
        nearest also as they are, and so the first, unless a person told note or gate."""
        known, heard, constraints = self.tools.known, self.heard, self.options.constraints
        if known is None or not self.settings.neighbours or self.options.fast:
            return [], []
        rows = self._nearest(known)
        played = [replace(known.patches[row], note=heard.note, gate_s=heard.gate_s) for row in rows]
        as_is = [] if heard.told else [known.patches[row] for row in rows[:AS_THEY_ARE]]
        near = self.ear.constrained([*as_is, *played], constraints)
        return near[:1], near[1:]

    def _nearest(self, known: Features) -> NDArray[np.int64]:
        """Rows of the nearest training renders: of a shortlist by features those nearest by MSS, where sounds are there."""
        s, clips = self.settings, self.tools.clips
        if clips is None:
            return self.ear.nearest(known, s.neighbours, s.n_retrieval)
        rows = self.ear.nearest(known, max(s.shortlist, s.neighbours), s.n_retrieval)
        mss_db = [self._mss_db(clips.audio(int(row))) for row in rows]
        return rows[np.argsort(mss_db, kind="stable")[: s.neighbours]]

    def _ranked(self, patches: Sequence[Patch], seconds: float = np.inf) -> list[tuple[Patch, float]]:
        """Patches with their proxy distance, nearest first. After `seconds` the rest is left out; one batch always runs."""
        begun, heard, proxy = time.perf_counter(), self.heard, self.tools.proxy
        parts = [patches[i : i + RANK_BATCH] for i in range(0, len(patches), RANK_BATCH)]

        def losses(part: Sequence[Patch]) -> list[float]:
            if self._cancelled.is_set() or (part is not parts[0] and time.perf_counter() - begun >= seconds):
                return []
            return finetune.rank(proxy, heard.clip, part, sample_rate=heard.rate, clip_s=self.itf.clip_s).tolist()

        with finetune.frozen(proxy), finetune.one_thread_each(), ThreadPoolExecutor(self.threads) as pool:
            found = [
                pair
                for part, known in zip(parts, pool.map(losses, parts), strict=True)
                for pair in zip(part[: len(known)], known, strict=True)
            ]
        if self._cancelled.is_set():
            raise KeyboardInterrupt
        return sorted(found, key=lambda pair: pair[1])

    # --- the host decides ------------------------------------------------------------------------------------------

    def _hear(self, patches: Sequence[Patch], source: str) -> list[float]:
        """Render patches; MSS in dB of each (inf: not rendered); the nearest ones are kept and the best is known. Ends when
        the time is up, once there is an answer at all."""
        costs = [np.inf] * len(patches)
        for i, sound in self.tools.host.map(list(patches)):
            self.renders += 1
            if not isinstance(sound, np.ndarray) or not np.isfinite(sound).all():
                log.info("not rendered: %s", sound)
                continue
            costs[i] = self._mss_db(sound)
            candidate = Candidate(patches[i], sound, costs[i], source)
            if source in ("proposal", "refined"):
                self.kept.append(candidate)
            if self.best is None or candidate.mss_db < self.best.mss_db:
                self.best = candidate
                self.curve.append((self.seconds, self.renders, candidate.mss_db))
            self._go_on(source)
            if self.best is not None and self.seconds >= self.end_s:
                break
        return costs

    def _mss_db(self, sound: NDArray[np.float32]) -> float:
        n = self.heard.clip.shape[1]
        fitted = np.pad(sound[:, :n], [(0, 0), (0, max(0, n - sound.shape[1]))])
        return float(metrics.mss_from_features(self.features, metrics.mss_features(fitted, self.heard.rate)))

    # --- refine, change, polish ------------------------------------------------------------------------------------

    def _refine(self, patches: Sequence[Patch]) -> None:
        """ITF on all candidates at once, as long as its time allows; the host hears every result."""
        left_s = self.settings.seconds - self.seconds
        self._hear(self._refined(patches, min(self.settings.itf_seconds, SHARE_FOR_ITF * max(left_s, 0.0))), "refined")

    def _refined(self, patches: Sequence[Patch], seconds: float, steps: int | None = None) -> list[Patch]:
        """Patches after ITF, for `steps` (None: as the settings say) or `seconds`, whichever ends first."""
        return timed_refinement.refine(
            self.tools.proxy, self.heard.clip, patches, _Steps.of(self.itf, steps), self.options.constraints.knobs,
            sample_rate=self.heard.rate, distance=self.distance, seconds=seconds, threads=self.threads,
            progress=lambda: self._go_on("refine"),
        )  # fmt: skip

    def _change(self, end_s: float) -> None:
        """One decision at a time: the changes of the best patch that the proxy likes most are heard, the nearest of them
        refined and heard again, as long as one helps."""
        s, itf = self.settings, self.options.itf and not self.options.fast
        while self.seconds < end_s and self.best is not None:
            before, best = self.best.mss_db, self.best.patch
            others = self._filled(neighbourhood.changes(best, self.options.constraints), best)
            others = [patch for patch in others if patch.digest not in self.seen]
            if not others:
                return
            rng = np.random.default_rng(s.seed + self.renders)
            drawn = [others[i] for i in rng.permutation(len(others))]
            chosen = [patch for patch, _ in self._ranked(drawn, 0.5 * (end_s - self.seconds))[: s.changes]]
            self.seen.update(p.digest for p in chosen)
            costs = self._hear(chosen, "changed")
            if itf and s.changes_refined and self.seconds < end_s:
                nearest = [chosen[i] for i in np.argsort(costs, kind="stable")[: s.changes_refined]]
                steps = min(s.changes_steps, self.itf.steps)
                self._hear(self._refined(nearest, end_s - self.seconds, steps), "changed")
            if self.best.mss_db >= before:
                return

    def _filled(self, patches: Sequence[Patch], best: Patch) -> list[Patch]:
        """Patches in which every knob that could not be heard in `best` and now can has the median the model expects."""
        medians: dict[bytes, NDArray[np.float32]] = {}
        filled = []
        for patch in patches:
            new = patch.active_knobs & ~best.active_knobs & ~self.options.constraints.knobs
            if new.any():
                key = new.tobytes()
                if key not in medians:
                    medians[key] = self.ear.intervals(patch).median[0]
                patch = replace(patch, knobs=np.where(new, medians[key], patch.knobs).astype(np.float32))
            filled.append(patch)
        return filled

    def _polish(self) -> None:
        """CMA-ES on host renders over the audible, free knobs of the best, in steps of the model's own spread."""
        if self.seconds >= self.end_s:
            return
        import cma  # seconds to import

        while self.seconds < self.end_s and self.best is not None:
            start = self.best
            free = np.flatnonzero(start.patch.active_knobs & ~self.options.constraints.knobs)
            if len(free) < 2:
                return
            spread = np.clip(self.ear.spread(start.patch)[free], MIN_SPREAD, MAX_SPREAD)
            rng = np.random.default_rng(self.settings.seed + self.renders)
            strategy = cma.CMAEvolutionStrategy(
                np.clip(start.patch.knobs[free], 0.001, 0.999).astype(float), self.settings.polish_sigma,
                {"bounds": [0.0, 1.0], "popsize": self.settings.polish_population, "verbose": -9, "seed": np.nan,
                 "randn": lambda *shape, rng=rng: rng.standard_normal(shape), "CMA_diagonal": True, "CMA_stds": spread},
            )  # fmt: skip
            while self.seconds < self.end_s and not strategy.stop():
                points = strategy.ask()
                costs = self._hear([_with(start.patch, free, point) for point in points], "polished")
                strategy.tell(points, [cost if np.isfinite(cost) else 80.0 for cost in costs])
            if self.best is start:
                return


@dataclass
class _Steps:
    """`finetune.Settings` with another number of steps."""

    steps: int
    lr: float
    lambda_b: float
    clip_norm: float
    logit_limit: float
    clip_s: float

    @classmethod
    def of(cls, itf: finetune.Settings, steps: int | None) -> finetune.Settings:
        if steps is None or steps == itf.steps:
            return itf
        return cls(steps, itf.lr, itf.lambda_b, itf.clip_norm, itf.logit_limit, itf.clip_s)


def _with(patch: Patch, columns: NDArray[np.int64], point: NDArray[np.float64]) -> Patch:
    knobs = patch.knobs.copy()
    knobs[columns] = np.clip(point, 0.0, 1.0)
    return replace(patch, knobs=knobs)


def similarity(mss_db: float, chance_db: float) -> float:
    """Per cent: 100 at the same sound, 0 at what random patches reach; linear in MSS."""
    return float(np.clip(100.0 * (1.0 - mss_db / chance_db), 0.0, 100.0))
