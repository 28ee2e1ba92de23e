"""From a heard note to a patch.

Propose → rank by the proxy → render → refine (ITF) → render → refine and change by turns, the
proxy's error taken off where the host has told it → polish.

Whatever proposes, the host decides: every patch that could be the answer is rendered, and the one
whose sound is nearest (MSS) wins, so no later step can make the answer worse than an earlier one.
Every step ends when its time is up, and an interrupt (Ctrl-C, or `cancel` from another thread) ends
the search with the best so far.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from unmixer_core import audio
from unmixer_core.dataset.clips import Clips
from unmixer_core.errors import HostError
from unmixer_core.features.store import FeatureTable
from unmixer_core.inference import finetune
from unmixer_core.inference.constraints import Constraints
from unmixer_core.inference.posterior import PatchPosterior
from unmixer_core.live.host import Host
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.model.mixture import to_logit, to_unit
from unmixer_core.model.unmixer import Unmixer
from unmixer_core.proxy.twin import Proxy
from unmixer_core.recording.note import RecordedNote
from unmixer_core.schema.patch import Patch
from unmixer_core.search import initial, neighbourhood, refinement
from unmixer_core.search.refinement import Distances

log = logging.getLogger(__name__)

#: Of all the time; of what is left before refinement.
SHARE_FOR_RANKING, SHARE_FOR_ITF = 0.25, 0.6
#: Shares of the best patch's gate that are tried as changes, beside the gates that the sound may
#: have.
GATES = (0.8, 0.93, 1.07, 1.25)
#: Fewer renders than this tell nothing of what the synth cannot do: the default search hears a few
#: hundred.
FEW_RENDERS = 24
#: A candidate further from the recording than the best times this is not refined any more.
REACH = 1.5
#: Points on the way from a patch to its refinement that the host hears, in logits.
WAY = (0.5, 1.0, 2.0, 4.0)
#: How much shorter than the first refinement's the steps of later ones are.
FINER = 0.3
#: A refinement that brings less than this share of the MSS is the last one of its line.
LEAST_GAIN = 0.004
MIN_SPREAD, MAX_SPREAD = 0.02, 0.3
RANK_BATCH = 8
Tell = Callable[[str, "Candidate | None"], None]


class Settings(initial.Settings, Protocol):
    """What is read of params.yaml's `unmix` section."""

    seconds: float
    itf_seconds: float
    candidates: int
    changes: int
    changes_paired: int
    changes_refined: int
    changes_steps: int
    change_share: float
    fast_candidates: int
    polish_population: int
    polish_sigma: float


@dataclass(frozen=True)
class SearchResources:
    """What a search works with.

    `known`: the training clips' features, where there are any; `clips`: their sounds.
    """

    model: Unmixer
    proxy: Proxy
    host: Host
    known: FeatureTable | None = None
    clips: Clips | None = None


@dataclass(frozen=True)
class SearchOptions:
    """What the person asked for; None = as the settings say.

    `polish_s`: seconds of the last search, 0 = none.
    """

    candidates: int | None = None
    itf: bool = True
    fast: bool = False
    polish_s: float | None = None
    constraints: Constraints = field(default_factory=Constraints)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A patch that the host rendered.

    Its sound [2, time], its MSS to the recording in dB, and where it came from.
    """

    patch: Patch
    audio: NDArray[np.float32]
    mss_db: float
    source: str


@dataclass(frozen=True)
class Answer:
    """The best candidate, the best of each refined line (best first), (seconds, renders, MSS) of
    every improvement, ...; `failure`: a sentence when the host failed before the search was
    over; `thorough`: no step was cut short or left out for speed, so that a poor best says
    something about the synth.
    """

    best: Candidate
    candidates: list[Candidate]
    curve: list[tuple[float, int, float]]
    seconds: float
    renders: int
    interrupted: bool
    ear: PatchPosterior
    failure: str | None = None
    thorough: bool = True


class Search:
    """One search. `best` and `kept` grow as the host answers."""

    def __init__(
        self,
        heard: RecordedNote,
        tools: SearchResources,
        settings: Settings,
        itf: finetune.Settings,
        options: SearchOptions,
        tell: Tell,
    ) -> None:
        self.heard, self.tools, self.settings, self.itf, self.options, self.tell = (
            heard,
            tools,
            settings,
            itf,
            options,
            tell,
        )
        self.begun = time.perf_counter()
        self.end_s = settings.seconds
        self._cancelled = threading.Event()
        on_cpu = next(tools.model.parameters()).device.type == "cpu"
        self.threads = max(1, torch.get_num_threads()) if on_cpu else 1
        self.ear = PatchPosterior.of(tools.model, heard.clip)
        self.features = metrics_sound.mss_features(heard.clip, heard.rate)
        self.best: Candidate | None = None
        self.kept: list[Candidate] = []
        self.curve: list[tuple[float, int, float]] = []
        self.renders = 0
        self.seen: set[str] = set()
        self.settled: set[str] = set()
        self.distance = finetune.target_distance(tools.proxy, heard.clip, heard.rate, itf.clip_s)

    def run(self) -> Answer:
        """All steps.

        KeyboardInterrupt and HostError end it with the best so far, or go on when there is none
        yet.
        """
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
            failure = (
                f"The search ended early, after {self.seconds:.0f} s: "
                f"{' '.join(str(error).split())}"
            )
        if self.best is None:
            raise HostError("the host rendered none of the candidates.")
        kept = sorted(self.kept, key=lambda c: c.mss_db)
        cut = interrupted or failure is not None or self.options.fast or self.renders < FEW_RENDERS
        return Answer(
            self.best,
            kept,
            self.curve,
            self.seconds,
            self.renders,
            interrupted,
            self.ear,
            failure,
            not cut,
        )

    def cancel(self) -> None:
        """From any thread: `run` ends within one render or one step of refinement, as after
        Ctrl-C.
        """
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
        count = self.options.candidates or (
            settings.fast_candidates if fast else settings.candidates
        )
        self._go_on("propose")
        near, others = initial.proposals(
            self.ear,
            self.heard,
            settings,
            self.options.constraints,
            self.tools.known,
            self.tools.clips,
            self._mss_db,
            fast=fast,
            at_least=self.options.candidates or 0,
        )
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
            self._improve(self.seconds + settings.change_share * (self.end_s - self.seconds))
        self._polish()

    # --- rank ---------------------------------------------------------------------------------

    def _ranked(
        self,
        patches: Sequence[Patch],
        seconds: float = np.inf,
        distance: finetune.Distance | None = None,
    ) -> list[tuple[Patch, float]]:
        """Patches with their proxy distance (MSS, unless another is given), nearest first.

        After `seconds` the rest is left out; one batch always runs.
        """
        begun, heard, proxy = time.perf_counter(), self.heard, self.tools.proxy
        parts = [patches[i : i + RANK_BATCH] for i in range(0, len(patches), RANK_BATCH)]

        def losses(part: Sequence[Patch]) -> list[float]:
            if self._cancelled.is_set() or (
                part is not parts[0] and time.perf_counter() - begun >= seconds
            ):
                return []
            return finetune.rank(
                proxy,
                heard.clip,
                part,
                sample_rate=heard.rate,
                clip_s=self.itf.clip_s,
                distance=distance,
            ).tolist()

        with (
            finetune.frozen(proxy),
            finetune.one_thread_each(),
            ThreadPoolExecutor(self.threads) as pool,
        ):
            found = [
                pair
                for part, known in zip(parts, pool.map(losses, parts), strict=True)
                for pair in zip(part[: len(known)], known, strict=True)
            ]
        if self._cancelled.is_set():
            raise KeyboardInterrupt
        return sorted(found, key=lambda pair: pair[1])

    # --- the host decides ---------------------------------------------------------------------

    def _hear(self, patches: Sequence[Patch], source: str) -> list[Candidate | None]:
        """Render patches; each as it was heard (None: not rendered).

        The nearest ones are kept and the best is known. Ends when the time is up, once there is an
        answer at all.
        """
        heard: list[Candidate | None] = [None] * len(patches)
        for i, sound in self.tools.host.map(list(patches)):
            self.renders += 1
            if not isinstance(sound, np.ndarray) or not np.isfinite(sound).all():
                log.info("not rendered: %s", sound)
                continue
            heard[i] = candidate = Candidate(patches[i], sound, self._mss_db(sound), source)
            if source in ("proposal", "refined"):
                self.kept.append(candidate)
            if self.best is None or candidate.mss_db < self.best.mss_db:
                self.best = candidate
                self.curve.append((self.seconds, self.renders, candidate.mss_db))
            self._go_on(source)
            if self.best is not None and self.seconds >= self.end_s:
                break
        return heard

    def _mss_db(self, sound: NDArray[np.float32]) -> float:
        n = self.heard.clip.shape[1]
        fitted = audio.fit_length(sound, n)
        return metrics_sound.mss_to(self.features, fitted, self.heard.rate)

    # --- refine, change, polish ---------------------------------------------------------------

    def _refine(self, patches: Sequence[Patch]) -> None:
        """ITF on all candidates at once, as long as its time allows.

        The host hears every result.
        """
        left_s = self.settings.seconds - self.seconds
        refined = self._refined(
            patches, min(self.settings.itf_seconds, SHARE_FOR_ITF * max(left_s, 0.0))
        )
        self._hear([patch for patch in refined if patch is not None], "refined")

    def _refined(
        self,
        patches: Sequence[Patch],
        seconds: float,
        itf: finetune.Settings | None = None,
        distances: Distances | None = None,
    ) -> list[Patch | None]:
        """Patches after ITF, for all steps or `seconds`, whichever ends first.

        None where the proxy cannot sound one.
        """
        return refinement.refine(
            self.tools.proxy,
            self.heard.clip,
            patches,
            itf or self.itf,
            self.options.constraints.knobs,
            sample_rate=self.heard.rate,
            distances=distances or (lambda _: self.distance),
            seconds=seconds,
            threads=self.threads,
            progress=lambda: self._go_on("refine"),
        )

    def _improve(self, end_s: float) -> None:
        """The best is refined as long as that helps.

        Then changes of it are heard, those first that the proxy likes most, and the nearest of them
        refined; whatever helps is where the search goes on from.
        """
        itf = self.options.itf and not self.options.fast
        changed, ranked, lines = None, list[Patch](), list(self.kept)
        while self.seconds < end_s and self.best is not None:
            if itf and self.best.patch.digest not in self.settled:
                others = sorted((c for c in lines if self._may_gain(c)), key=lambda c: c.mss_db)
                chosen = [self.best, *others][: self.threads]
                lines = [c for c in lines if c not in chosen] + self._correct(chosen, end_s)
                continue
            if changed is None or self.best.mss_db < (1 - LEAST_GAIN) * changed.mss_db:
                changed, ranked = self.best, self._changes_ranked(self.best, end_s)
            tried, ranked = ranked[: self.settings.changes], ranked[self.settings.changes :]
            if not tried:
                return
            self.seen.update(patch.digest for patch in tried)
            heard = [c for c in self._hear(tried, "changed") if c is not None]
            found = sorted(heard, key=lambda c: c.mss_db)[: self.settings.changes_refined]
            if itf and self.seconds < end_s:
                lines += self._correct(
                    [c for c in found if c.mss_db < REACH * self.best.mss_db], end_s
                )

    def _may_gain(self, candidate: Candidate) -> bool:
        """Whether a candidate is another line than the best, near enough to overtake it, and not
        refined to its end.
        """
        best = self.best
        assert best is not None
        ours, its = best.patch, candidate.patch
        same = np.array_equal(its.choices, ours.choices) and its.effects == ours.effects
        return (
            not same and candidate.mss_db < REACH * best.mss_db and its.digest not in self.settled
        )

    def _correct(self, lines: Sequence[Candidate], end_s: float) -> list[Candidate]:
        """A step of refinement of each line in which the proxy errs as it is known to err there,
        and the host's verdict on points of the way: the nearest of each. A line that gains too
        little is settled.
        """
        if not lines:
            return []
        steps = min(self.settings.changes_steps, self.itf.steps)
        itf = _Steps.of(self.itf, steps, FINER)
        ends = self._refined(
            [line.patch for line in lines], end_s - self.seconds, itf, self._corrected(lines)
        )
        ways = [
            (line, end)
            for line, end in zip(lines, ends, strict=True)
            if end is not None and not np.array_equal(end.knobs, line.patch.knobs)
        ]
        points = [(line, _between(line.patch, end, share)) for line, end in ways for share in WAY]
        found = self._hear([patch for _, patch in points], "corrected")
        nearest = []
        for line in lines:
            mine = [
                c for (of, _), c in zip(points, found, strict=True) if of is line and c is not None
            ]
            nearest.append(min([line, *mine], key=lambda c: c.mss_db))
            if nearest[-1].mss_db >= (1 - LEAST_GAIN) * line.mss_db:
                self.settled.update((line.patch.digest, nearest[-1].patch.digest))
        return nearest

    def _corrected(self, lines: Sequence[Candidate]) -> Distances:
        """Distances of the lines in which the proxy's error at each, which the host has told, is
        taken off.
        """
        return finetune.corrected_distances(
            self.tools.proxy,
            self.heard.clip,
            [line.patch for line in lines],
            [line.audio for line in lines],
            sample_rate=self.heard.rate,
            clip_s=self.itf.clip_s,
        )

    def _changes_ranked(self, best: Candidate, end_s: float) -> list[Patch]:
        """The changes that were not heard yet, nearest by proxy first, and pairs of the nearest
        ones, in turns; as many as half of the time that is left allows.
        """
        rng = np.random.default_rng(self.settings.seed + self.renders)
        changes = [
            *neighbourhood.changes(best.patch, self.options.constraints),
            *self._other_gates(best.patch),
        ]
        distance = self._corrected([best])([0])

        def new(others: Sequence[Patch]) -> list[Patch]:
            others = [
                patch for patch in self._filled(others, best.patch) if patch.digest not in self.seen
            ]
            return [
                patch for patch, _ in self._ranked(others, 0.5 * (end_s - self.seconds), distance)
            ]

        single = new([changes[i] for i in rng.permutation(len(changes))])
        pairs = new(neighbourhood.both(best.patch, single[: self.settings.changes_paired]))
        return [patch for turn in zip_longest(single, pairs) for patch in turn if patch is not None]

    def _other_gates(self, patch: Patch) -> list[Patch]:
        """The patch with the key held for another time, unless a person told it."""
        if "gate_s" in self.heard.given:
            return []
        longest_s = self.heard.clip.shape[1] / self.heard.rate
        gates = {
            round(g, 3)
            for g in (*self.heard.gates_s, *(share * patch.gate_s for share in GATES))
            if g <= longest_s
        }
        return [replace(patch, gate_s=gate_s) for gate_s in sorted(gates - {patch.gate_s})]

    def _filled(self, patches: Sequence[Patch], best: Patch) -> list[Patch]:
        """Patches in which every knob that could not be heard in `best` and now can has the
        median the model expects.
        """
        free = ~best.active_knobs & ~self.options.constraints.knobs
        news = [patch.active_knobs & free for patch in patches]
        examples = {
            new.tobytes(): patch for patch, new in zip(patches, news, strict=True) if new.any()
        }
        if not examples:
            return list(patches)
        medians = dict(zip(examples, self.ear.medians(list(examples.values())), strict=True))
        return [
            replace(patch, knobs=np.where(new, medians[new.tobytes()], patch.knobs))
            if new.any()
            else patch
            for patch, new in zip(patches, news, strict=True)
        ]

    def _polish(self) -> None:
        """CMA-ES on host renders over the audible, free knobs of the best, in steps of the
        model's own spread.
        """
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
                np.clip(start.patch.knobs[free], 0.001, 0.999).astype(float),
                self.settings.polish_sigma,
                {
                    "bounds": [0.0, 1.0],
                    "popsize": self.settings.polish_population,
                    "verbose": -9,
                    "seed": np.nan,
                    "randn": lambda *shape, rng=rng: rng.standard_normal(shape),
                    "CMA_diagonal": True,
                    "CMA_stds": spread,
                },
            )
            while self.seconds < self.end_s and not strategy.stop():
                points = strategy.ask()
                heard = self._hear(
                    [_with(start.patch, free, point) for point in points], "polished"
                )
                strategy.tell(points, [80.0 if c is None else c.mss_db for c in heard])
            if self.best is start:
                return


@dataclass
class _Steps:
    """`finetune.Settings` with other steps."""

    steps: int
    lr: float
    lambda_b: float
    clip_norm: float
    logit_limit: float
    clip_s: float

    @classmethod
    def of(cls, itf: finetune.Settings, steps: int, rate: float) -> finetune.Settings:
        return cls(steps, rate * itf.lr, itf.lambda_b, itf.clip_norm, itf.logit_limit, itf.clip_s)


def _between(start: Patch, end: Patch, share: float) -> Patch:
    """The patch a share of the way (which may be more than 1) from one to the other, in logits."""
    at, to = (to_logit(torch.from_numpy(patch.knobs)) for patch in (start, end))
    knobs = to_unit(at + share * (to - at)).numpy()
    return replace(start, knobs=np.where(start.knobs == end.knobs, start.knobs, knobs))


def _with(patch: Patch, columns: NDArray[np.int64], point: NDArray[np.float64]) -> Patch:
    knobs = patch.knobs.copy()
    knobs[columns] = np.clip(point, 0.0, 1.0)
    return replace(patch, knobs=knobs)


def similarity(mss_db: float, chance_db: float) -> float:
    """Per cent: 100 at the same sound, 0 at what random patches reach; linear in MSS."""
    return float(np.clip(100.0 * (1.0 - mss_db / chance_db), 0.0, 100.0))
