"""The pool of rendered candidates: the host renders a patch, MSS compares it with the note."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmixer_core import audio
from unmixer_core.live.host import Host
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.recording.note import RecordedNote
from unmixer_core.schema.patch import Patch
from unmixer_core.search.context import SearchBudget

log = logging.getLogger(__name__)

#: Candidates of these steps are listed in the answer, and may be refined further.
LISTED_SOURCES = ("proposal", "refined")


@dataclass(frozen=True, eq=False)
class Candidate:
    """A rendered patch: its sound [2, time], its MSS in dB, and the step it comes from."""

    patch: Patch
    audio: NDArray[np.float32]
    mss_db: float
    source: str


#: Receives the name of the current step and the best candidate, many times a second.
ReportStep = Callable[[str, Candidate | None], None]


def mss_of(candidate: Candidate) -> float:
    """MSS of a candidate in dB, as a sort key."""
    return candidate.mss_db


class CandidatePool:
    """All rendered candidates of one search. `best` improves as renders arrive."""

    def __init__(
        self, host: Host, note: RecordedNote, budget: SearchBudget, report: ReportStep
    ) -> None:
        self.host = host
        self.note = note
        self.budget = budget
        self.report = report
        self.best: Candidate | None = None
        #: Rendered proposals and refined candidates, in the order of their renders.
        self.listed: list[Candidate] = []
        #: (seconds, renders, MSS in dB) of every improvement.
        self.curve: list[tuple[float, int, float]] = []
        self._target = metrics_sound.mss_features(note.clip, note.rate)

    def report_progress(self, step: str) -> None:
        """ReportStep the current step; raise KeyboardInterrupt once the search was cancelled."""
        self.report(step, self.best)
        self.budget.raise_if_cancelled()

    def render(self, patches: Sequence[Patch], source: str) -> list[Candidate | None]:
        """Render patches; one entry a patch, None where there is no sound.

        Stop when the time is up, but not before one patch was rendered. Raises KeyboardInterrupt
        once the search was cancelled, HostError when the host fails.
        """
        candidates: list[Candidate | None] = [None] * len(patches)
        for i, sound in self.host.map(list(patches)):
            self.budget.renders += 1
            if not isinstance(sound, np.ndarray) or not np.isfinite(sound).all():
                log.info("not rendered: %s", sound)
                continue
            candidate = Candidate(patches[i], sound, self.mss_db(sound), source)
            candidates[i] = candidate
            self._add(candidate)
            self.report_progress(source)
            if self.budget.spent:
                break
        return candidates

    def mss_db(self, sound: NDArray[np.float32]) -> float:
        """MSS in dB of a sound [2, time] to the note, cut or padded to its length."""
        fitted = audio.fit_length(sound, self.note.clip.shape[1])
        return metrics_sound.mss_to(self._target, fitted, self.note.rate)

    def _add(self, candidate: Candidate) -> None:
        if candidate.source in LISTED_SOURCES:
            self.listed.append(candidate)
        if self.best is None or candidate.mss_db < self.best.mss_db:
            self.best = candidate
            self.curve.append((self.budget.seconds, self.budget.renders, candidate.mss_db))
