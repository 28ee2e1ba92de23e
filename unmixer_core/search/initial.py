"""Where a search begins: what the network expects, for each note and gate that a sound may have,
and what sounds like it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import zip_longest
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unmixer_core.dataset.clips import Clips
from unmixer_core.features.store import FeatureTable
from unmixer_core.inference.constraints import Constraints
from unmixer_core.inference.posterior import PatchPosterior
from unmixer_core.recording.note import RecordedNote
from unmixer_core.schema.patch import Patch

#: MSS in dB of a sound [2, time] to the recording.
Distance = Callable[[NDArray[np.float32]], float]


class Settings(Protocol):
    """What is read of params.yaml's `unmix` section."""

    proposals: int
    notes: int
    gates: int
    neighbours: int
    shortlist: int
    n_retrieval: int
    fast_proposals: int
    fast_notes: int
    seed: int


def proposals(
    ear: PatchPosterior,
    heard: RecordedNote,
    settings: Settings,
    constraints: Constraints,
    known: FeatureTable | None,
    clips: Clips | None,
    distance: Distance,
    *,
    fast: bool,
    at_least: int,
) -> tuple[list[Patch], list[Patch]]:
    """The nearest training render's patch as it is, which is heard whatever the proxy thinks of
    it (so the answer is never further than what retrieval alone finds); then the network's
    (`at_least` so many) for each note and gate that the sound may have and those of the nearest
    training renders, in turns. `fast`: the network's alone, for one gate.
    """
    n = max(settings.fast_proposals if fast else settings.proposals, at_least)
    notes = heard.notes[: settings.fast_notes if fast else settings.notes]
    gates = list(dict.fromkeys((heard.gate_s, *heard.gates_s)))[: 1 if fast else settings.gates]
    mine = [
        ear.propose(note, gate_s, n, settings.seed, constraints)
        for gate_s in gates
        for note in notes
    ]
    near, neighbours = [], list[Patch]()
    if known is not None and settings.neighbours and not fast:
        rows = _nearest(ear, settings, known, clips, distance)
        played = [replace(known.patches[row], note=heard.note, gate_s=heard.gate_s) for row in rows]
        as_is = [] if heard.given else [known.patches[row] for row in rows]
        found = ear.constrained([*as_is, *played], constraints)
        near, neighbours = found[:1], found[1:]
    turns = [
        patch for turn in zip_longest(*mine, neighbours) for patch in turn if patch is not None
    ]
    others = {patch.digest: patch for patch in reversed(turns)}
    return near, [
        patch
        for digest, patch in reversed(others.items())
        if digest not in {p.digest for p in near}
    ]


def _nearest(
    ear: PatchPosterior,
    settings: Settings,
    known: FeatureTable,
    clips: Clips | None,
    distance: Distance,
) -> NDArray[np.int64]:
    """Rows of the nearest training renders.

    Of a shortlist by features those nearest by MSS, where sounds are there.
    """
    if clips is None:
        return ear.nearest(known, settings.neighbours, settings.n_retrieval)
    rows = ear.nearest(known, max(settings.shortlist, settings.neighbours), settings.n_retrieval)
    mss_db = [distance(clips.audio(int(row))) for row in rows]
    return rows[np.argsort(mss_db, kind="stable")[: settings.neighbours]]
