"""The search of `unmix`: from a recorded note to a patch.

Propose, rank by the proxy, render, refine (ITF), render, then a local search (refinement rounds
and discrete changes) and a polish by CMA-ES.

The host decides: every patch that could be the answer is rendered, and the one with the smallest
MSS wins. So no later step makes the answer worse. Every step ends when its time is up. An interrupt
(Ctrl-C, or `cancel` from another thread) ends the search with the best candidate so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unmixer_core import config
from unmixer_core.errors import HostError
from unmixer_core.inference.posterior import PatchPosterior
from unmixer_core.recording.note import RecordedNote
from unmixer_core.schema.patch import Patch
from unmixer_core.search import initial, ranking
from unmixer_core.search.candidates import Candidate, CandidatePool, ReportStep, mss_of
from unmixer_core.search.context import (
    SearchBudget,
    SearchContext,
    SearchOptions,
    SearchResources,
)
from unmixer_core.search.line_search import Refiner
from unmixer_core.search.local_search import LocalSearch
from unmixer_core.search.polish import polish

#: Largest share of the whole time that the first ranking takes.
RANKING_SHARE = 0.25
#: Largest share of the time left after the proposals that the first refinement takes.
ITF_SHARE = 0.6
#: With fewer renders a poor answer says nothing of the synth: the default search renders hundreds.
MIN_RENDERS_THOROUGH = 24


@dataclass(frozen=True)
class Answer:
    """The result of a search.

    `candidates`: rendered proposals and refined candidates, best first. `curve`: (seconds, renders,
    MSS in dB) of every improvement. `failure`: a sentence when the host failed before the end.
    `thorough`: no step was cut short or left out, so a poor MSS says something about the synth.
    """

    best: Candidate
    candidates: list[Candidate]
    curve: list[tuple[float, int, float]]
    seconds: float
    renders: int
    interrupted: bool
    posterior: PatchPosterior
    failure: str | None = None
    thorough: bool = True


class Search:
    """One search for one note; `run` it once."""

    def __init__(
        self,
        note: RecordedNote,
        resources: SearchResources,
        settings: config.Unmix,
        itf: config.Itf,
        options: SearchOptions,
        report: ReportStep,
    ) -> None:
        # the time runs from here: computing the posterior is a part of the search
        self.budget = SearchBudget(settings.seconds)
        self.context = SearchContext.of(note, resources, settings, itf, options)
        self.pool = CandidatePool(resources.host, note, self.budget, report)
        self.refiner = Refiner(self.context, self.budget, self.pool)
        self.local_search = LocalSearch(self.context, self.budget, self.pool, self.refiner)

    @property
    def seconds(self) -> float:
        """Seconds since the search began."""
        return self.budget.seconds

    @property
    def renders(self) -> int:
        """Renders so far."""
        return self.budget.renders

    def cancel(self) -> None:
        """End `run` within one render or one ITF step, as Ctrl-C does. Any thread may call this."""
        self.budget.cancel()

    def run(self) -> Answer:
        """Run all steps.

        KeyboardInterrupt and HostError end the search with the best candidate so far; they are
        raised when there is none yet. Raises HostError when the host rendered nothing.
        """
        interrupted = False
        failure: str | None = None
        try:
            self._run_steps()
        except KeyboardInterrupt:
            interrupted = True
            if self.pool.best is None:
                raise
        except HostError as error:
            if self.pool.best is None:
                raise
            reason = " ".join(str(error).split())
            failure = f"The search ended early, after {self.seconds:.0f} s: {reason}"
        return self._answer(interrupted, failure)

    def _answer(self, interrupted: bool, failure: str | None) -> Answer:
        if self.pool.best is None:
            raise HostError("the host rendered none of the candidates.")
        cut_short = interrupted or failure is not None or self.context.options.fast
        return Answer(
            best=self.pool.best,
            candidates=sorted(self.pool.listed, key=mss_of),
            curve=self.pool.curve,
            seconds=self.seconds,
            renders=self.renders,
            interrupted=interrupted,
            posterior=self.context.posterior,
            failure=failure,
            thorough=not cut_short and self.renders >= MIN_RENDERS_THOROUGH,
        )

    def _run_steps(self) -> None:
        options = self.context.options
        settings = self.context.settings
        budget = self.budget
        candidates = self._initial_candidates()
        self.pool.render(candidates, "proposal")
        if self.context.refines and not budget.spent:
            self._refine_initial(candidates)
        if options.polish_s == 0.0 or (options.fast and options.polish_s is None):
            return
        if options.polish_s is not None:
            budget.end_s = budget.seconds + options.polish_s
        if settings.changes:
            seconds = budget.seconds
            self.local_search.run(seconds + settings.change_share * (budget.end_s - seconds))
        polish(self.context, budget, self.pool)

    def _initial_candidates(self) -> list[Patch]:
        """The nearest training render and the proposals that the proxy ranks first."""
        options = self.context.options
        settings = self.context.settings
        count = settings.fast_candidates if options.fast else settings.candidates
        if options.candidates:
            count = options.candidates
        self.pool.report_progress("propose")
        retrieved, others = initial.proposals(self.context, self.pool.mss_db)
        seconds = RANKING_SHARE * settings.seconds
        ranked = ranking.rank(self.context, self.budget, others, seconds)
        # one proposal of the model is rendered beside the retrieved patch even if one is asked for
        return [*retrieved, *ranked][: max(count, len(retrieved) + 1)]

    def _refine_initial(self, patches: Sequence[Patch]) -> None:
        """Refine all candidates at once within the time of ITF, and render the results."""
        settings = self.context.settings
        left_s = max(settings.seconds - self.budget.seconds, 0.0)
        seconds = min(settings.itf_seconds, ITF_SHARE * left_s)
        refined = self.refiner.refine(patches, seconds)
        self.pool.render([patch for patch in refined if patch is not None], "refined")


def similarity(mss_db: float, chance_db: float) -> float:
    """Similarity in per cent: 100 at the same sound, 0 at the MSS of random patches; linear."""
    return float(np.clip(100.0 * (1.0 - mss_db / chance_db), 0.0, 100.0))
