"""The model's posterior for one recorded note: proposals, class probabilities, intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from unmixer_core.system.json_types import Json

#: Chains whose probabilities are reported.
CHAINS_SHOWN = 8
#: Rows of the training features that are compared at once.
ROWS = 256


@dataclass(frozen=True)
class PatchPosterior:
    """The model and the features of one clip [1, 2, mels, frames], rounded as in training."""

    model: Unmixer
    features: Tensor

    @classmethod
    def of(cls, model: Unmixer, clip: NDArray[np.float32]) -> PatchPosterior:
        """clip: [2, time] at the rate of the model's features."""
        # training read float16 features of clips at unit peak
        peak = max(float(np.abs(clip).max(initial=0.0)), 1e-9)
        frames = log_mel(torch.from_numpy(clip / np.float32(peak)), model.spec).half().float()
        return cls(model, frames[None].to(next(model.parameters()).device))

    def propose(
        self, note: int, gate_s: float, n: int, seed: int, constraints: Constraints
    ) -> list[Patch]:
        """Up to n patches for a note and gate that meet the constraints, likeliest first."""
        inputs = self._note_inputs(note, gate_s)
        (proposals,) = inference_propose.propose(self.model, self.features, *inputs, n, seed)
        # the exact gate: the proposal's was rounded to float32
        patches = [replace(proposal.patch, gate_s=gate_s) for proposal in proposals]
        return self.constrained(patches, constraints)

    def constrained(self, patches: Sequence[Patch], constraints: Constraints) -> list[Patch]:
        """Different patches that meet the constraints.

        Knobs that only the constraints make audible get the model's median, given the first patch's
        classes.
        """
        if not patches or not constraints.any:
            return list(patches)
        median = self.medians([constraints.apply(patches[0])])[0]
        forced: list[Patch] = []
        for patch in patches:
            knobs = np.where(patch.active_knobs, patch.knobs, median).astype(np.float32)
            constrained = constraints.apply(replace(patch, knobs=knobs))
            # a canonical patch has defaults where nothing is audible, so the locks are set again
            forced.append(constraints.apply(constrained.canonical()))
        return list({patch.digest: patch for patch in reversed(forced)}.values())[::-1]

    def intervals(self, patch: Patch) -> marginals.Intervals:
        """Central intervals of every knob given the patch's classes and chain."""
        return self._intervals([patch], (0.5, 0.9))

    def medians(self, patches: Sequence[Patch]) -> NDArray[np.float32]:
        """Medians of every knob given each patch's classes and chain [patches, K].

        The note and the gate are the first patch's. One call for all patches, since a call for each
        would take most of a search's time.
        """
        return self._intervals(patches, ()).median

    def spread(self, patch: Patch) -> NDArray[np.float32]:
        """About one standard deviation of every knob in unit terms [K]."""
        half = self._intervals([patch], (0.5,))
        # of a normal distribution: the central half is 2 x 0.6745 standard deviations wide
        return (half.high[0, 0] - half.low[0, 0]) / np.float32(2.0 * 0.6745)

    def _intervals(
        self, patches: Sequence[Patch], levels: tuple[float, ...]
    ) -> marginals.Intervals:
        inputs = self._note_inputs(patches[0].note, patches[0].gate_s)
        return marginals.intervals(self.model, self.features, *inputs, patches, levels=levels)

    @torch.no_grad()
    def probabilities(self, note: int, gate_s: float) -> Json:
        """Probabilities of the discrete parts, as JSON.

        `choices`: id → item → probability; `present`: effect → probability; `chains`: the likeliest
        chains with their probabilities.
        """
        belief = self.model(self.features, *self._note_inputs(note, gate_s))
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
        """Rows of the k training clips with the nearest features, nearest first.

        The distance is the mean absolute difference. `n_searched`: evenly spaced training clips
        that are compared at most, 0 = all.
        """
        rows = known.patches.where(split="train")
        if n_searched:
            rows = rows[:: max(1, -(-len(rows) // n_searched))]
        target = self.features.cpu()
        parts: list[Tensor] = []
        for i in range(0, len(rows), ROWS):
            difference = known.batch(rows[i : i + ROWS]) - target
            parts.append(difference.abs().mean(dim=(1, 2, 3)))
        distance = torch.cat(parts).numpy() if parts else np.empty(0)
        return rows[np.argsort(distance, kind="stable")[:k]]

    def _note_inputs(self, note: int, gate_s: float) -> tuple[Tensor, Tensor]:
        """Note and gate as the model takes them [1]."""
        device = self.features.device
        notes = torch.tensor([float(note)], device=device)
        gates_s = torch.tensor([float(gate_s)], device=device)
        return notes, gates_s
