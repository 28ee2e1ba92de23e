"""CMA-ES on the host: black-box search over knobs, choices and chain.

Within a budget of renders or seconds (Hansen, "The CMA evolution strategy: a tutorial", 2016).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cma
import numpy as np

from unmixer_core.audio import fit_length
from unmixer_core.live.host import Host, RenderFailure
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.schema import chain as chains
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK
from unmixer_core.scoring.baselines import UNHEARD_DB

#: What a search may change: everything, or the knobs of the start's devices.
Free = Literal["all", "knobs"]

#: Presence of an effect in a point: absent below PRESENT, present above it. Points that stand for a
#: patch lie half-way to either end.
PRESENT = 0.5
ABSENT_CODE = 0.25
PRESENT_CODE = 0.75
#: The start lies at least this far inside the cube: a distribution centred on a face would lose
#: half of its samples.
MARGIN = 0.02


@dataclass(frozen=True, eq=False)
class Improvement:
    """A best so far of a search on the host, and how many renders and seconds it took.

    audio: [2, time].
    """

    renders: int
    seconds: float
    mss_db: float
    patch: Patch
    audio: np.ndarray


@dataclass(frozen=True)
class SearchResult:
    """The outcome of a search on the host.

    audio: [2, time]. renders, seconds: spent. curve: rows of (renders so far, seconds so far, best
    MSS in dB). improvements: every best so far, in order.
    """

    patch: Patch
    audio: np.ndarray
    mss_db: float
    renders: int
    seconds: float
    curve: np.ndarray
    improvements: Sequence[Improvement] = ()

    def within(self, *, renders: float = np.inf, seconds: float = np.inf) -> SearchResult:
        """Return the outcome of the same search with a smaller budget of renders or seconds.

        The start is always rendered, however small the budget.
        """
        improvements: Sequence[Improvement] = [
            improvement
            for improvement in self.improvements
            if improvement.renders <= renders and improvement.seconds <= seconds
        ]
        improvements = improvements or self.improvements[:1]
        best = improvements[-1]
        curve = self.curve[(self.curve[:, 0] <= renders) & (self.curve[:, 1] <= seconds)]
        last_point = curve[-1] if len(curve) else self.curve[0]
        # a generation is one point of the curve, so a budget of renders ends inside one
        done = int(last_point[0]) if np.isinf(renders) else int(min(renders, self.renders))
        return SearchResult(
            patch=best.patch,
            audio=best.audio,
            mss_db=best.mss_db,
            renders=done,
            seconds=max(float(last_point[1]), best.seconds),
            curve=curve,
            improvements=improvements,
        )


class Genome:
    """Patches as points of the unit cube: knobs, choices, effect presence, effect order.

    `free="knobs"` keeps the start's discrete parts and searches its audible knobs only.
    """

    def __init__(self, start: Patch, free: Free = "all") -> None:
        self.start = start
        self.free = free
        if free == "all":
            self.knobs = np.arange(RACK.n_knobs)
        else:
            active, _ = RACK.active(start.choices, start.chain)
            self.knobs = np.flatnonzero(active)

    def encode(self, patch: Patch) -> np.ndarray:
        """Return the point of a patch. Order is by evenly spaced keys, absent effects last."""
        knobs = patch.knobs[self.knobs]
        if self.free == "knobs":
            return knobs.astype(np.float64)
        codes = np.arange(chains.MAX_EFFECTS)
        order = [int(code) for code in patch.chain if code != chains.END]
        absent = [int(code) for code in codes if code not in order]
        # the middles of equal cells, so that a small step changes no class and no order
        keys = np.empty(chains.MAX_EFFECTS)
        keys[order + absent] = (codes + 0.5) / chains.MAX_EFFECTS
        presence = np.where(np.isin(codes, order), PRESENT_CODE, ABSENT_CODE)
        classes = (patch.choices + 0.5) / np.array(RACK.sizes)
        return np.concatenate([knobs, classes, presence, keys]).astype(np.float64)

    def decode(self, point: np.ndarray) -> Patch:
        """Return the patch of a point; every point of the cube is a valid patch."""
        point = np.clip(np.asarray(point, dtype=np.float64), 0.0, 1.0)
        knobs = self.start.knobs.copy()
        knobs[self.knobs] = point[: len(self.knobs)]
        if self.free == "knobs":
            return replace(self.start, knobs=knobs)
        classes, presence, keys = np.split(
            point[len(self.knobs) :], [RACK.n_choices, RACK.n_choices + chains.MAX_EFFECTS]
        )
        choices = np.minimum((classes * RACK.sizes).astype(np.int64), np.array(RACK.sizes) - 1)
        present = [code for code in np.argsort(keys, kind="stable") if presence[code] > PRESENT]
        end = [chains.END] * (chains.MAX_EFFECTS - len(present))
        codes = np.array(present + end, dtype=np.int8)
        return replace(self.start, knobs=knobs, choices=choices, chain=codes)


def cma_search(
    host: Host,
    target_audio: np.ndarray,
    start: Patch,
    *,
    sample_rate: int,
    population: int,
    sigma: float,
    seed: int,
    max_renders: int | None = None,
    max_seconds: float | None = None,
    free: Free = "all",
    clock: Callable[[], float] = time.perf_counter,
) -> SearchResult:
    """Minimise the MSS of the host's renders to a target [2, time] by CMA-ES.

    The search ends at max_renders, or begins no generation after max_seconds, whichever is first.
    The start is rendered first, so the result is never worse than it.

    Raises:
        ValueError: neither limit is given.
    """
    if max_renders is None and max_seconds is None:
        raise ValueError("cma_search needs max_renders or max_seconds")
    search = _HostSearch(host, target_audio, sample_rate, start, clock)
    search.measure([start])
    genome = Genome(start, free)
    rng = np.random.default_rng(seed)
    strategy = _strategy(genome.encode(start), sigma, population, rng)
    while not _spent(search, max_renders, max_seconds) and not strategy.stop():
        points = strategy.ask()
        room = len(points)
        if max_renders is not None:
            room = max_renders - search.renders
        costs = search.measure([genome.decode(point) for point in points[:room]])
        if len(costs) < len(points):
            # the strategy can learn from a whole generation only
            break
        strategy.tell(points, costs)
    return search.result()


def _spent(search: _HostSearch, max_renders: int | None, max_seconds: float | None) -> bool:
    if max_renders is not None and search.renders >= max_renders:
        return True
    return max_seconds is not None and search.seconds() >= max_seconds


def _strategy(
    x0: np.ndarray, sigma: float, population: int, rng: np.random.Generator
) -> cma.CMAEvolutionStrategy:
    options = {
        "bounds": [0.0, 1.0],
        "popsize": population,
        "verbose": -9,  # prints nothing and writes no files
        "seed": np.nan,  # nan: leave numpy's global state alone
        "randn": lambda *shape: rng.standard_normal(shape),
        # a point has 93 dimensions: too many to learn a full covariance within these budgets
        "CMA_diagonal": True,
    }
    return cma.CMAEvolutionStrategy(np.clip(x0, MARGIN, 1.0 - MARGIN), sigma, options)


class _HostSearch:
    """Renders, costs and the best so far of one search."""

    def __init__(
        self,
        host: Host,
        target_audio: np.ndarray,
        sample_rate: int,
        start: Patch,
        clock: Callable[[], float],
    ) -> None:
        self.host = host
        self.sample_rate = sample_rate
        self.clock = clock
        self.target = metrics_sound.mss_features(target_audio, sample_rate)
        self.samples = target_audio.shape[-1]
        self.start_s = clock()
        self.renders = 0
        silence = np.zeros((2, 1), dtype=np.float32)
        self.best: tuple[float, Patch, np.ndarray] = (np.inf, start, silence)
        self.curve: list[tuple[float, float, float]] = []
        self.improvements: list[Improvement] = []

    def seconds(self) -> float:
        return self.clock() - self.start_s

    def measure(self, patches: list[Patch]) -> list[float]:
        """Render patches and return the MSS of each; failures count as UNHEARD_DB."""
        costs = []
        for patch, sound in zip(patches, self.host.render(patches), strict=True):
            self.renders += 1
            if isinstance(sound, RenderFailure):
                costs.append(UNHEARD_DB)
                continue
            cost = self._mss_db(sound)
            if cost < self.best[0]:
                self.best = (cost, patch, sound)
                improvement = Improvement(self.renders, self.seconds(), cost, patch, sound)
                self.improvements.append(improvement)
            costs.append(cost)
        self.curve.append((self.renders, self.seconds(), self.best[0]))
        return costs

    def _mss_db(self, sound: np.ndarray) -> float:
        fitted = fit_length(sound, self.samples)
        return metrics_sound.mss_to(self.target, fitted, self.sample_rate)

    def result(self) -> SearchResult:
        mss_db, patch, audio = self.best
        return SearchResult(
            patch=patch,
            audio=audio,
            mss_db=mss_db,
            renders=self.renders,
            seconds=self.seconds(),
            curve=np.array(self.curve),
            improvements=self.improvements,
        )
