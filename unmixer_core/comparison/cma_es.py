"""Black-box search on the host.

CMA-ES over knobs, choices and chain, within a budget of renders or seconds.
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


@dataclass(frozen=True, eq=False)
class Improvement:
    """A best so far of a search on the host.

    After how many renders and seconds it was heard, and what it is.
    """

    renders: int
    seconds: float
    mss_db: float
    patch: Patch
    audio: np.ndarray


@dataclass(frozen=True)
class Found:
    """The outcome of a search on the host.

    `curve`: rows of (renders so far, seconds so far, best MSS in dB); `improvements`: every best so
    far, in order.
    """

    patch: Patch
    audio: np.ndarray
    mss_db: float
    renders: int
    seconds: float
    curve: np.ndarray
    improvements: Sequence[Improvement] = ()

    def within(self, *, renders: float = np.inf, seconds: float = np.inf) -> Found:
        """The outcome of the same search, had it been given this many renders and seconds.

        Its start is always heard.
        """
        kept = [
            i for i in self.improvements if i.renders <= renders and i.seconds <= seconds
        ] or self.improvements[:1]
        part = self.curve[(self.curve[:, 0] <= renders) & (self.curve[:, 1] <= seconds)]
        best, spent_s = kept[-1], float(part[-1, 1]) if len(part) else float(self.curve[0, 1])
        done = int(part[-1, 0]) if len(part) else int(self.curve[0, 0])
        done = done if np.isinf(renders) else int(min(renders, self.renders))
        return Found(
            best.patch, best.audio, best.mss_db, done, max(spent_s, best.seconds), part, kept
        )


class Genome:
    """Patches as points of the unit cube for a black-box search.

    Knobs, class positions, effect presence, effect order.

    `free="knobs"` keeps the start's discrete parts and searches its audible knobs only.
    """

    def __init__(self, start: Patch, free: Literal["all", "knobs"] = "all") -> None:
        self.start, self.free = start, free
        active, _ = RACK.active(start.choices, start.chain)
        self.knobs = np.arange(RACK.n_knobs) if free == "all" else np.flatnonzero(active)

    def encode(self, patch: Patch) -> np.ndarray:
        """Patch → point. Presence 0.25 / 0.75; order by evenly spaced keys, absent effects last."""
        point: list[np.ndarray] = [patch.knobs[self.knobs]]
        if self.free == "all":
            order = [int(code) for code in patch.chain if code != chains.END]
            absent = [code for code in range(chains.MAX_EFFECTS) if code not in order]
            keys = np.empty(chains.MAX_EFFECTS)
            keys[order + absent] = (np.arange(chains.MAX_EFFECTS) + 0.5) / chains.MAX_EFFECTS
            presence = np.where(np.isin(np.arange(chains.MAX_EFFECTS), order), 0.75, 0.25)
            point += [(patch.choices + 0.5) / np.array(RACK.sizes), presence, keys]
        return np.concatenate(point).astype(np.float64)

    def decode(self, point: np.ndarray) -> Patch:
        """Point → patch; every point of the cube is a valid patch."""
        point = np.clip(np.asarray(point, dtype=np.float64), 0.0, 1.0)
        knobs = self.start.knobs.copy()
        knobs[self.knobs] = point[: len(self.knobs)]
        if self.free == "knobs":
            return replace(self.start, knobs=knobs)
        classes, presence, keys = np.split(
            point[len(self.knobs) :], [RACK.n_choices, RACK.n_choices + chains.MAX_EFFECTS]
        )
        choices = np.minimum((classes * RACK.sizes).astype(np.int64), np.array(RACK.sizes) - 1)
        present = [code for code in np.argsort(keys, kind="stable") if presence[code] > 0.5]
        codes = np.array(
            present + [chains.END] * (chains.MAX_EFFECTS - len(present)), dtype=np.int8
        )
        return replace(self.start, knobs=knobs, choices=choices, chain=codes)


def cma_search(
    renderer: Host,
    target_audio: np.ndarray,
    start: Patch,
    *,
    sample_rate: int,
    population: int,
    sigma: float,
    seed: int,
    max_renders: int | None = None,
    max_seconds: float | None = None,
    free: Literal["all", "knobs"] = "all",
    clock: Callable[[], float] = time.perf_counter,
) -> Found:
    """CMA-ES (Hansen) on true renders by MSS, within a number of renders or of seconds, whichever
    ends first.

    The start is rendered first, so the result is never worse than it. `max_seconds`: no generation
    begins after it.
    """
    if max_renders is None and max_seconds is None:
        raise ValueError("cma_search needs max_renders or max_seconds")
    search = _HostSearch(renderer, target_audio, sample_rate, start, clock)
    search.measure([start])
    genome, rng = Genome(start, free), np.random.default_rng(seed)
    strategy = _strategy(genome.encode(start), sigma, population, rng)
    while not _spent(search, max_renders, max_seconds) and not strategy.stop():
        points = strategy.ask()
        room = len(points) if max_renders is None else max_renders - search.renders
        costs = search.measure([genome.decode(point) for point in points[:room]])
        if len(costs) < len(points):
            break
        strategy.tell(points, costs)
    return search.found()


def _spent(search: _HostSearch, max_renders: int | None, max_seconds: float | None) -> bool:
    by_renders = max_renders is not None and search.renders >= max_renders
    return by_renders or (max_seconds is not None and search.seconds() >= max_seconds)


def _strategy(
    x0: np.ndarray, sigma: float, population: int, rng: np.random.Generator
) -> cma.CMAEvolutionStrategy:
    options = {
        "bounds": [0.0, 1.0],
        "popsize": population,
        "verbose": -9,
        "seed": np.nan,  # nan: leave numpy's global state alone
        "randn": lambda *shape: rng.standard_normal(shape),
        "CMA_diagonal": True,
    }
    return cma.CMAEvolutionStrategy(np.clip(x0, 0.02, 0.98), sigma, options)


class _HostSearch:
    """Renders, costs and the best so far of one search."""

    def __init__(
        self,
        renderer: Host,
        target_audio: np.ndarray,
        sample_rate: int,
        start: Patch,
        clock: Callable[[], float],
    ) -> None:
        self.renderer, self.sample_rate, self.clock = renderer, sample_rate, clock
        self.target, self.samples = (
            metrics_sound.mss_features(target_audio, sample_rate),
            target_audio.shape[-1],
        )
        self.begun, self.renders = clock(), 0
        self.best: tuple[float, Patch, np.ndarray] = (
            np.inf,
            start,
            np.zeros((2, 1), dtype=np.float32),
        )
        self.curve: list[tuple[float, float, float]] = []
        self.improvements: list[Improvement] = []

    def seconds(self) -> float:
        return self.clock() - self.begun

    def measure(self, patches: list[Patch]) -> list[float]:
        """MSS of each patch's render; failures count as UNHEARD_DB."""
        costs = []
        for patch, sound in zip(patches, self.renderer.render(patches), strict=True):
            self.renders += 1
            if isinstance(sound, RenderFailure):
                costs.append(UNHEARD_DB)
                continue
            cost = self._cost(sound)
            if cost < self.best[0]:
                self.best = (cost, patch, sound)
                self.improvements.append(
                    Improvement(self.renders, self.seconds(), cost, patch, sound)
                )
            costs.append(cost)
        self.curve.append((self.renders, self.seconds(), self.best[0]))
        return costs

    def _cost(self, sound: np.ndarray) -> float:
        fitted = fit_length(sound, self.samples)
        return metrics_sound.mss_to(self.target, fitted, self.sample_rate)

    def found(self) -> Found:
        mss_db, patch, audio = self.best
        return Found(
            patch,
            audio,
            mss_db,
            self.renders,
            self.seconds(),
            np.array(self.curve),
            self.improvements,
        )
