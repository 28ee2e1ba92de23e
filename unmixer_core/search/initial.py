"""Initial candidates: the model's proposals for each likely note and gate, and retrieval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from unmixer_core.features.store import FeatureTable
from unmixer_core.schema.patch import Patch
from unmixer_core.search.context import SearchContext

#: MSS in dB of a sound [2, time] to the note.
SoundDistance = Callable[[NDArray[np.float32]], float]


def proposals(context: SearchContext, distance: SoundDistance) -> tuple[list[Patch], list[Patch]]:
    """The nearest training render's patch, unchanged, and all other initial candidates.

    The first one is rendered whatever its rank by the proxy is. So the answer is never further from
    the note than retrieval alone. The others are the model's proposals for each likely note and
    gate, and the patches of the nearest training renders; the groups alternate. A fast search takes
    the model's proposals alone, for one gate.
    """
    groups = _model_proposals(context)
    retrieved, neighbours = _retrieved(context, distance)
    alternating: list[Patch] = []
    for turn in zip_longest(*groups, neighbours):
        alternating.extend(patch for patch in turn if patch is not None)
    first_of = {patch.digest: patch for patch in reversed(alternating)}
    for patch in retrieved:
        first_of.pop(patch.digest, None)
    # a patch that occurs more than once stands at its last place
    return retrieved, list(reversed(first_of.values()))


def _model_proposals(context: SearchContext) -> list[list[Patch]]:
    """The model's proposals, a list for each gate and note."""
    note = context.note
    settings = context.settings
    gates = list(dict.fromkeys((note.gate_s, *note.gates_s)))
    if context.options.fast:
        count = settings.fast_proposals
        notes = note.notes[: settings.fast_notes]
        gates = gates[:1]
    else:
        count = settings.proposals
        notes = note.notes[: settings.notes]
        gates = gates[: settings.gates]
    # a user who asks for more candidates gets at least so many proposals
    count = max(count, context.options.candidates or 0)
    groups: list[list[Patch]] = []
    for gate_s in gates:
        for pitch in notes:
            patches = context.posterior.propose(
                pitch, gate_s, count, settings.seed, context.options.constraints
            )
            groups.append(patches)
    return groups


def _retrieved(context: SearchContext, distance: SoundDistance) -> tuple[list[Patch], list[Patch]]:
    """The nearest training patch [0 or 1], and the other near ones.

    Each near patch occurs with its own note and gate, unless the user gave one of them, and with
    the note and gate of the recording.
    """
    features = context.resources.training_features
    note = context.note
    if features is None or not context.settings.neighbours or context.options.fast:
        return [], []
    patches = [features.patches[row] for row in _nearest_rows(context, features, distance)]
    at_note = [replace(patch, note=note.note, gate_s=note.gate_s) for patch in patches]
    unchanged = [] if note.given else patches
    constraints = context.options.constraints
    near = context.posterior.constrained([*unchanged, *at_note], constraints)
    return near[:1], near[1:]


def _nearest_rows(
    context: SearchContext, features: FeatureTable, distance: SoundDistance
) -> NDArray[np.int64]:
    """Rows of the nearest training renders.

    Where the sounds of the training set are there, the nearest by MSS of a shortlist by features.
    """
    settings = context.settings
    posterior = context.posterior
    clips = context.resources.training_clips
    if clips is None:
        return posterior.nearest(features, settings.neighbours, settings.n_retrieval)
    shortlist = max(settings.shortlist, settings.neighbours)
    rows = posterior.nearest(features, shortlist, settings.n_retrieval)
    mss_db = [distance(clips.audio(int(row))) for row in rows]
    return rows[np.argsort(mss_db, kind="stable")[: settings.neighbours]]
