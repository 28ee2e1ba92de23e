"""Polish the best candidate: CMA-ES on host renders over its audible, unlocked knobs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from unmixer_core.schema.patch import Patch
from unmixer_core.search.candidates import Candidate, CandidatePool
from unmixer_core.search.context import SearchBudget, SearchContext

#: Limits in unit terms of the first step of a knob, which is the model's standard deviation.
MIN_SPREAD = 0.02
MAX_SPREAD = 0.3
#: CMA-ES starts this far inside the limits of a knob.
MARGIN = 0.001
#: Cost in dB of a patch without a sound: worse than any sound.
FAILED_RENDER_DB = 80.0


def polish(context: SearchContext, budget: SearchBudget, pool: CandidatePool) -> None:
    """Run CMA-ES from the best candidate, again from each new best, until nothing improves."""
    if budget.spent:
        return
    while not budget.spent and pool.best is not None:
        start = pool.best
        locked = context.options.constraints.knobs
        free = np.flatnonzero(start.patch.active_knobs & ~locked)
        if len(free) < 2:  # CMA-ES needs two dimensions
            return
        _run_cma_es(context, budget, pool, start, free)
        if pool.best is start:
            return


def _run_cma_es(
    context: SearchContext,
    budget: SearchBudget,
    pool: CandidatePool,
    start: Candidate,
    free: NDArray[np.int64],
) -> None:
    """One run of CMA-ES over the knobs `free` until it stops or the time is up."""
    import cma  # seconds to import

    settings = context.settings
    spread = np.clip(context.posterior.spread(start.patch)[free], MIN_SPREAD, MAX_SPREAD)
    rng = np.random.default_rng(settings.seed + budget.renders)
    strategy = cma.CMAEvolutionStrategy(
        np.clip(start.patch.knobs[free], MARGIN, 1.0 - MARGIN).astype(float),
        settings.polish_sigma,
        {
            "bounds": [0.0, 1.0],
            "popsize": settings.polish_population,
            "verbose": -9,  # prints nothing
            "seed": np.nan,  # leaves numpy's global generator alone
            "randn": lambda *shape: rng.standard_normal(shape),
            "CMA_diagonal": True,
            "CMA_stds": spread,
        },
    )
    while not budget.spent and not strategy.stop():
        points = strategy.ask()
        patches = [_with_knobs(start.patch, free, point) for point in points]
        costs: list[float] = []
        for candidate in pool.render(patches, "polished"):
            costs.append(FAILED_RENDER_DB if candidate is None else candidate.mss_db)
        strategy.tell(points, costs)


def _with_knobs(patch: Patch, columns: NDArray[np.int64], point: NDArray[np.float64]) -> Patch:
    knobs = patch.knobs.copy()
    knobs[columns] = np.clip(point, 0.0, 1.0)
    return replace(patch, knobs=knobs)
