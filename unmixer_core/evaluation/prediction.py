"""What the trained model answers for test clips.

A point estimate, candidates ranked by the proxy, its uncertainty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unmixer_core import config
from unmixer_core.dataset.patch_table import PatchTable
from unmixer_core.features.store import FeatureTable
from unmixer_core.inference import finetune, marginals, propose
from unmixer_core.model.unmixer import Unmixer
from unmixer_core.proxy.twin import Proxy
from unmixer_core.schema.patch import Patch, Patches
from unmixer_core.scoring.baselines import at_note
from unmixer_core.scoring.neighbours import Neighbours
from unmixer_core.scoring.progress import Progress, quietly
from unmixer_core.scoring.targets import ScoreTarget

BATCH = 32  # clips a forward pass


@dataclass(frozen=True)
class Predictions:
    """Per target: the point estimate, up to K candidates (it comes first), and PIT values [n, K]
    (nan: not active).
    """

    point: list[Patch]
    candidates: list[list[Patch]]
    pit: np.ndarray


def predict(
    model: Unmixer,
    frames: FeatureTable,
    test: Sequence[ScoreTarget],
    settings: config.Evaluate,
    progress: Progress = quietly,
) -> Predictions:
    """Propose for every target, in batches.

    Note and gate are given, as they are to every baseline.
    """
    candidates: list[list[Patch]] = []
    places: list[np.ndarray] = []
    starts = range(0, len(test), BATCH)
    for start in progress(starts, len(starts), "predict"):
        part = test[start : start + BATCH]
        inputs = _inputs(model, frames, part)
        found = propose.propose(model, *inputs, settings.candidates, settings.seed)
        candidates += [[proposal.patch for proposal in proposals] for proposals in found]
        truth = frames.patches.select(np.array([target.clip for target in part]))
        places.append(marginals.pit(model, *inputs, truth, seed=settings.seed))
    return Predictions([patches[0] for patches in candidates], candidates, np.concatenate(places))


def best_by_proxy(
    proxy: Proxy,
    candidates: Sequence[Sequence[Patch]],
    test: Sequence[ScoreTarget],
    sample_rate: int,
    progress: Progress = quietly,
    *,
    threads: int = 1,
) -> list[Patch]:
    """Of each target's candidates the one whose proxy sound is closest.

    A choice that costs no host render.

    `threads` targets are worked on side by side, with one compute thread each (the proxy's many
    small steps gain less from sharing one).
    """

    def best(patches: Sequence[Patch], target: ScoreTarget) -> Patch:
        return patches[
            int(np.argmin(finetune.rank(proxy, target.audio, patches, sample_rate=sample_rate)))
        ]

    with finetune.one_thread_each(), ThreadPoolExecutor(threads) as pool:
        return list(progress(pool.map(best, candidates, test), len(test), "rank by proxy"))


def with_seeds(
    candidates: Sequence[Sequence[Patch]],
    test: Sequence[ScoreTarget],
    nearest: Mapping[int, Neighbours],
    patches: Patches | PatchTable,
    seeds: int,
) -> list[list[Patch]]:
    """The network's candidates of every target, then the patches of its nearest training renders
    at its note and gate.
    """
    pools = []
    for mine, target in zip(candidates, test, strict=True):
        near = [patches[clip] for clip in nearest[target.clip].clips[:seeds]]
        pools.append(
            [*mine, *(at_note(patch, target.patch.note, target.patch.gate_s) for patch in near)]
        )
    return pools


def share_of_network(
    best: Sequence[Patch], candidates: Sequence[Sequence[Patch]], test: Sequence[ScoreTarget]
) -> dict[str, float]:
    """`<phase>.prediction.from_network`.

    How often the chosen candidate came from the network, not from retrieval.
    """
    own = [
        any(patch is mine for mine in pool) for patch, pool in zip(best, candidates, strict=True)
    ]
    phases = [target.phase for target in test]
    return {
        f"{phase}.prediction.from_network": float(
            np.mean([o for o, p in zip(own, phases, strict=True) if p == phase])
        )
        for phase in dict.fromkeys(phases)
    }


def _inputs(
    model: Unmixer, frames: FeatureTable, part: Sequence[ScoreTarget]
) -> tuple[Tensor, Tensor, Tensor]:
    device = next(model.parameters()).device
    note = torch.tensor([float(target.patch.note) for target in part])
    gate_s = torch.tensor([float(target.patch.gate_s) for target in part])
    return (
        frames.batch([target.clip for target in part]).to(device),
        note.to(device),
        gate_s.to(device),
    )
