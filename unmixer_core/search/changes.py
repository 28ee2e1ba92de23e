"""Discrete changes of the best candidate: classes, chain and gate, ranked by the proxy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest

import numpy as np

from unmixer_core.inference import finetune
from unmixer_core.schema.patch import Patch
from unmixer_core.search import neighbourhood, ranking
from unmixer_core.search.candidates import Candidate
from unmixer_core.search.context import SearchBudget, SearchContext

#: Shares of the best patch's gate that are tried beside the gates that the note may have.
GATE_SHARES = (0.8, 0.93, 1.07, 1.25)


class DiscreteChanges:
    """The changes of one search. `tried`: digests of the changes that were rendered."""

    def __init__(self, context: SearchContext, budget: SearchBudget) -> None:
        self.context = context
        self.budget = budget
        self.tried: set[str] = set()

    def ranked(self, best: Candidate, end_s: float, distance: finetune.Distance) -> list[Patch]:
        """Changes that were not rendered yet, nearest by `distance` of the proxy first.

        Single changes and pairs of the nearest single ones alternate. Each of the two rankings
        takes at most half of the time that is left.
        """
        settings = self.context.settings
        rng = np.random.default_rng(settings.seed + self.budget.renders)
        changes = [
            *neighbourhood.changes(best.patch, self.context.options.constraints),
            *self._other_gates(best.patch),
        ]
        # ranking may run out of time: a random order favours no kind of change
        shuffled = [changes[i] for i in rng.permutation(len(changes))]
        single = self._rank_untried(shuffled, best.patch, end_s, distance)
        pairs = self._rank_untried(
            neighbourhood.both(best.patch, single[: settings.changes_paired]),
            best.patch,
            end_s,
            distance,
        )
        alternating: list[Patch] = []
        for turn in zip_longest(single, pairs):
            alternating.extend(patch for patch in turn if patch is not None)
        return alternating

    def _rank_untried(
        self, patches: Sequence[Patch], best: Patch, end_s: float, distance: finetune.Distance
    ) -> list[Patch]:
        filled = self._with_new_medians(patches, best)
        untried = [patch for patch in filled if patch.digest not in self.tried]
        seconds = 0.5 * (end_s - self.budget.seconds)
        return ranking.rank(self.context, self.budget, untried, seconds, distance)

    def _other_gates(self, patch: Patch) -> list[Patch]:
        """The patch with other gates, unless the user gave the gate."""
        note = self.context.note
        if "gate_s" in note.given:
            return []
        longest_s = note.clip.shape[1] / note.rate
        gates: set[float] = set()
        for gate_s in (*note.gates_s, *(share * patch.gate_s for share in GATE_SHARES)):
            if gate_s <= longest_s:
                gates.add(round(gate_s, 3))
        return [replace(patch, gate_s=gate_s) for gate_s in sorted(gates - {patch.gate_s})]

    def _with_new_medians(self, patches: Sequence[Patch], best: Patch) -> list[Patch]:
        """Patches whose newly audible knobs have the model's median.

        A knob is newly audible where it is audible in the patch, not in `best`, and not locked.
        """
        free = ~best.active_knobs & ~self.context.options.constraints.knobs
        masks = [patch.active_knobs & free for patch in patches]
        # one median for all patches with the same newly audible knobs: the model is slow
        examples: dict[bytes, Patch] = {}
        for mask, patch in zip(masks, patches, strict=True):
            if mask.any():
                examples[mask.tobytes()] = patch
        if not examples:
            return list(patches)
        values = self.context.posterior.medians(list(examples.values()))
        medians = dict(zip(examples, values, strict=True))
        filled: list[Patch] = []
        for mask, patch in zip(masks, patches, strict=True):
            if mask.any():
                knobs = np.where(mask, medians[mask.tobytes()], patch.knobs)
                patch = replace(patch, knobs=knobs)
            filled.append(patch)
        return filled
