"""Refinement rounds: ITF with a zero-order bias correction, then a line search on the host.

The proxy's error at each candidate is known from the candidate's render. It is subtracted from the
distance that ITF descends. The host then renders points between the start and the end of the
refinement, and beyond its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from unmixer_core import config
from unmixer_core.inference import finetune
from unmixer_core.model.mixture import to_logit, to_unit
from unmixer_core.schema.patch import Patch
from unmixer_core.search import refinement
from unmixer_core.search.candidates import Candidate, CandidatePool, mss_of
from unmixer_core.search.context import SearchBudget, SearchContext
from unmixer_core.search.refinement import Distances

#: Step sizes of the line search: shares of the refinement's step in logits, 1 is its end.
LINE_SEARCH_STEPS = (0.5, 1.0, 2.0, 4.0)
#: Learning rate of a refinement round, relative to the first refinement's.
LEARNING_RATE_SCALE = 0.3
#: A round that lowers the MSS by less than this share is the last one of its candidate.
MIN_RELATIVE_GAIN = 0.004


class Refiner:
    """ITF of one search. `converged`: digests of the patches that need no further round."""

    def __init__(self, context: SearchContext, budget: SearchBudget, pool: CandidatePool) -> None:
        self.context = context
        self.budget = budget
        self.pool = pool
        self.converged: set[str] = set()

    def refine(
        self,
        patches: Sequence[Patch],
        seconds: float,
        itf: config.Itf | None = None,
        distances: Distances | None = None,
    ) -> list[Patch | None]:
        """Refine patches by ITF for all its steps or for `seconds`, whichever ends first.

        None stands for a patch whose proxy distance is not finite.
        """
        context = self.context
        return refinement.refine(
            context.resources.proxy,
            context.note.clip,
            patches,
            itf or context.itf,
            context.options.constraints.knobs,
            sample_rate=context.note.rate,
            distances=distances or (lambda _: context.target_distance),
            seconds=seconds,
            threads=context.threads,
            progress=lambda: self.pool.report_progress("refine"),
        )

    def refine_round(self, starts: Sequence[Candidate], end_s: float) -> list[Candidate]:
        """Refine each candidate once and render its line search; return the nearest of each.

        A candidate that gains less than MIN_RELATIVE_GAIN has converged.
        """
        if not starts:
            return []
        itf = self.context.itf
        itf = itf.model_copy(
            update={
                "steps": min(self.context.settings.changes_steps, itf.steps),
                "lr": LEARNING_RATE_SCALE * itf.lr,
            }
        )
        patches = [start.patch for start in starts]
        seconds = end_s - self.budget.seconds
        ends = self.refine(patches, seconds, itf, self.bias_corrected(starts))
        points: list[Patch] = []
        owners: list[Candidate] = []
        for start, end in zip(starts, ends, strict=True):
            if end is None or np.array_equal(end.knobs, start.patch.knobs):
                continue
            for step in LINE_SEARCH_STEPS:
                points.append(interpolate(start.patch, end, step))
                owners.append(start)
        rendered = self.pool.render(points, "corrected")
        return [self._nearest(start, owners, rendered) for start in starts]

    def bias_corrected(self, candidates: Sequence[Candidate]) -> Distances:
        """Distances to the note with the proxy's error at each candidate subtracted."""
        context = self.context
        return finetune.corrected_distances(
            context.resources.proxy,
            context.note.clip,
            [candidate.patch for candidate in candidates],
            [candidate.audio for candidate in candidates],
            sample_rate=context.note.rate,
            clip_s=context.itf.clip_s,
        )

    def _nearest(
        self, start: Candidate, owners: Sequence[Candidate], rendered: Sequence[Candidate | None]
    ) -> Candidate:
        """The start or the nearest point of its line search."""
        line = [start]
        for owner, candidate in zip(owners, rendered, strict=True):
            if owner is start and candidate is not None:
                line.append(candidate)
        nearest = min(line, key=mss_of)
        if nearest.mss_db >= (1 - MIN_RELATIVE_GAIN) * start.mss_db:
            self.converged.update((start.patch.digest, nearest.patch.digest))
        return nearest


def interpolate(start: Patch, end: Patch, share: float) -> Patch:
    """The patch at a share of the step from start to end, in logits; a share may exceed 1."""
    start_logits = to_logit(torch.from_numpy(start.knobs))
    end_logits = to_logit(torch.from_numpy(end.knobs))
    knobs = to_unit(start_logits + share * (end_logits - start_logits)).numpy()
    # a knob that did not move keeps its exact value
    return replace(start, knobs=np.where(start.knobs == end.knobs, start.knobs, knobs))
