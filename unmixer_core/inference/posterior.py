"""What the network believes about one heard note.

Proposals under constraints, class probabilities, intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmixer_core.features.frames import log_mel
from unmixer_core.features.store import FeatureTable
from unmixer_core.inference import marginals
from unmixer_core.inference import propose as inference_propose
from unmixer_core.inference.constraints import Constraints
from unmixer_core.model.unmixer import Unmixer
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK

CHAINS_SHOWN = 8
ROWS = 256


@dataclass(frozen=True)
class PatchPosterior:
    """The network and one clip's features [1, 2, mels, frames], as training saw them (float16 on
    disk).
    """

    model: Unmixer
    features: Tensor

    @classmethod
    def of(cls, model: Unmixer, clip: NDArray[np.float32]) -> PatchPosterior:
        """clip: [2, time] at the rate of the model's features."""
        peak = max(float(np.abs(clip).max(initial=0.0)), 1e-9)
        frames = log_mel(torch.from_numpy(clip / np.float32(peak)), model.spec).half().float()
        return cls(model, frames[None].to(next(model.parameters()).device))

    def propose(
        self, note: int, gate_s: float, n: int, seed: int, constraints: Constraints
    ) -> list[Patch]:
        """Up to n patches for a note and gate, likeliest first, every one of which keeps the
        constraints.
        """
        found = inference_propose.propose(
            self.model, self.features, *self._played(note, gate_s), n, seed
        )[0]
        patches = [
            replace(proposal.patch, gate_s=gate_s) for proposal in found
        ]  # as told, not as float32 has it
        return self.constrained(patches, constraints)

    def constrained(self, patches: Sequence[Patch], constraints: Constraints) -> list[Patch]:
        """Patches with the constraints on.

        What is only heard because of them gets the median the model expects there, given the first
        patch's classes.
        """
        if not patches or not constraints.any:
            return list(patches)
        median = self.medians([constraints.apply(patches[0])])[0]
        filled = [
            replace(p, knobs=np.where(p.active_knobs, p.knobs, median).astype(np.float32))
            for p in patches
        ]
        forced = [constraints.apply(constraints.apply(patch).canonical()) for patch in filled]
        return list({patch.digest: patch for patch in reversed(forced)}.values())[::-1]

    def intervals(self, patch: Patch) -> marginals.Intervals:
        """Central intervals of every knob given the patch's classes and chain."""
        return self._intervals([patch], (0.5, 0.9))

    def medians(self, patches: Sequence[Patch]) -> NDArray[np.float32]:
        """The middle of what the model expects of every knob given each patch's classes and
        chain [patches, K]; the note and the gate are the first one's. At once, since a call for
        each would take most of a search's time.
        """
        return self._intervals(patches, ()).median

    def spread(self, patch: Patch) -> NDArray[np.float32]:
        """About one standard deviation of every knob in unit terms [K].

        Half the width of the middle 50 % over 0.674.
        """
        found = self._intervals([patch], (0.5,))
        return (found.high[0, 0] - found.low[0, 0]) / np.float32(2.0 * 0.6745)

    def _intervals(
        self, patches: Sequence[Patch], levels: tuple[float, ...]
    ) -> marginals.Intervals:
        played = self._played(patches[0].note, patches[0].gate_s)
        return marginals.intervals(self.model, self.features, *played, patches, levels=levels)

    @torch.no_grad()
    def probabilities(self, note: int, gate_s: float) -> dict[str, Any]:
        """`choices`: id → item → probability; `present`: effect → probability; `chains`.

        The likeliest, with theirs.
        """
        belief = self.model(self.features, *self._played(note, gate_s))
        chains, scores = self.model.chain.beam(belief.vector, belief.classes.present, CHAINS_SHOWN)
        shares = [logits[0].softmax(-1).tolist() for logits in belief.classes.choices]
        names = RACK.effect_names
        return {
            "choices": {
                ref.id: dict(zip(ref.choice.items, share, strict=True))
                for ref, share in zip(RACK.choices, shares, strict=True)
            },
            "present": dict(zip(names, belief.classes.present[0].sigmoid().tolist(), strict=True)),
            "chains": [
                {
                    "chain": [names[code] for code in row.tolist() if code >= 0],
                    "probability": float(score.exp()),
                }
                for row, score in zip(chains[0], scores[0], strict=True)
                if torch.isfinite(score)
            ],
        }

    def nearest(self, known: FeatureTable, k: int, n_searched: int) -> NDArray[np.int64]:
        """Rows of the k training clips whose features differ least (mean absolute difference),
        nearest first.
        """
        rows = known.patches.where(split="train")
        if n_searched:
            rows = rows[:: max(1, -(-len(rows) // n_searched))]
        target = self.features.cpu()
        parts = [
            (known.batch(rows[i : i + ROWS]) - target).abs().mean(dim=(1, 2, 3))
            for i in range(0, len(rows), ROWS)
        ]
        distance = torch.cat(parts).numpy() if parts else np.empty(0)
        return rows[np.argsort(distance, kind="stable")[:k]]

    def _played(self, note: int, gate_s: float) -> tuple[Tensor, Tensor]:
        device = self.features.device
        return torch.tensor([float(note)], device=device), torch.tensor(
            [float(gate_s)], device=device
        )
