"""Local search around the best candidate: refinement rounds and discrete changes alternate."""

from __future__ import annotations

import numpy as np

from unmixer_core.schema.patch import Patch
from unmixer_core.search.candidates import Candidate, CandidatePool, mss_of
from unmixer_core.search.changes import DiscreteChanges
from unmixer_core.search.context import SearchBudget, SearchContext
from unmixer_core.search.line_search import MIN_RELATIVE_GAIN, Refiner

#: A candidate is refined further only while its MSS is below the best MSS times this.
MAX_MSS_RATIO = 1.5


class LocalSearch:
    """Refine the best candidate while that helps, then try discrete changes of it."""

    def __init__(
        self,
        context: SearchContext,
        budget: SearchBudget,
        pool: CandidatePool,
        refiner: Refiner,
    ) -> None:
        self.context = context
        self.budget = budget
        self.pool = pool
        self.refiner = refiner
        self.changes = DiscreteChanges(context, budget)
        #: Candidates that may still be refined.
        self.refinable: list[Candidate] = []
        self.ranked_from: Candidate | None = None
        self.ranked: list[Patch] = []

    def run(self, end_s: float) -> None:
        """Improve the best until `end_s` of the search, or until no change is left."""
        self.refinable = list(self.pool.listed)
        self.ranked_from = None
        self.ranked = []
        while self.budget.seconds < end_s and self.pool.best is not None:
            best = self.pool.best
            if self.context.refines and best.patch.digest not in self.refiner.converged:
                self._refine_best(best, end_s)
            elif not self._try_changes(best, end_s):
                return

    def _refine_best(self, best: Candidate, end_s: float) -> None:
        """A refinement round of the best and, on the other threads, of the next nearest."""
        others = [candidate for candidate in self.refinable if self._may_overtake(candidate, best)]
        others.sort(key=mss_of)
        chosen = [best, *others][: self.context.threads]
        self.refinable = [candidate for candidate in self.refinable if candidate not in chosen]
        self.refinable += self.refiner.refine_round(chosen, end_s)

    def _try_changes(self, best: Candidate, end_s: float) -> bool:
        """Render the next changes and refine the nearest of them; False when none is left."""
        settings = self.context.settings
        ranked_from = self.ranked_from
        if ranked_from is None or best.mss_db < (1 - MIN_RELATIVE_GAIN) * ranked_from.mss_db:
            self.ranked_from = best
            distance = self.refiner.bias_corrected([best])([0])
            self.ranked = self.changes.ranked(best, end_s, distance)
        patches = self.ranked[: settings.changes]
        self.ranked = self.ranked[settings.changes :]
        if not patches:
            return False
        self.changes.tried.update(patch.digest for patch in patches)
        rendered = [c for c in self.pool.render(patches, "changed") if c is not None]
        rendered.sort(key=mss_of)
        if self.context.refines and self.budget.seconds < end_s:
            assert self.pool.best is not None
            limit_db = MAX_MSS_RATIO * self.pool.best.mss_db
            nearest = rendered[: settings.changes_refined]
            near = [candidate for candidate in nearest if candidate.mss_db < limit_db]
            self.refinable += self.refiner.refine_round(near, end_s)
        return True

    def _may_overtake(self, candidate: Candidate, best: Candidate) -> bool:
        """Whether a candidate has other discrete parts, is near the best, and may still gain."""
        patch = candidate.patch
        same_choices = np.array_equal(patch.choices, best.patch.choices)
        if same_choices and patch.effects == best.patch.effects:
            return False
        near = candidate.mss_db < MAX_MSS_RATIO * best.mss_db
        return near and patch.digest not in self.refiner.converged
