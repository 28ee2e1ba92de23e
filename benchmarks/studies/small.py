"""What the training studies share.

A finished run's clips, some of them, a smaller model, and a log that remembers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unmixer_core import config
from unmixer_core.features.store import FeatureTable
from unmixer_core.inference import finetune, propose
from unmixer_core.model.unmixer import Unmixer
from unmixer_core.pipeline import state
from unmixer_core.training.curriculum import PhaseData, Sounds
from unmixer_core.training.phase import PhaseSections

#: The default model at about a twentieth of its cost; no averaging, so that what is judged is what
#: was trained.
SMALL = {
    "model.width": 10,
    "model.embedding": 128,
    "model.components": 4,
    "model.knob_hidden": 64,
    "model.chain_hidden": 64,
    "optim.ema": 0.0,
}


class Remembering:
    """A `training.Log` that keeps every row and shows nothing."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.rows.append((step or 0, dict(values)))

    def progress(
        self, items: Iterable[Any], total: int | None = None, desc: str = ""
    ) -> Iterator[Any]:
        return iter(items)

    def of(self, name: str) -> list[float]:
        """One curve."""
        return [values[name] for _, values in self.rows if name in values]


@dataclass(frozen=True)
class StudyInputs:
    """A finished run's host clips, its proxy as the spectral term, and parameters of the reduced
    configuration.
    """

    features: FeatureTable
    sounds: Sounds
    params: config.Params
    fingerprint: str

    @classmethod
    def open(cls, run: Path, changes: Mapping[str, Any]) -> StudyInputs:
        """The features and renders under run/data, the proxy under run/models."""
        features, proxy = run / "data" / "features", run / "models" / "proxy"
        params = config.with_values(config.load(), {**SMALL, **changes})
        found = state.fingerprint(features, run / "data" / "renders", proxy)
        return cls(
            FeatureTable.open(features),
            Sounds.open(proxy, run / "data" / "renders", "cpu"),
            params,
            found,
        )

    def data(self, phase: str, n_new: Mapping[str, int]) -> PhaseData:
        """The first n_new[phase] training clips of a phase and of each earlier one.

        No clips of the proxy.
        """
        found, patches = PhaseData.of(self.features, phase), self.features.patches
        names = [name for name in found.valid if name != phase]
        first = {
            name: patches.where(phase=name, split="train")[: n_new[name]]
            for name in [*names, phase]
        }
        earlier = np.concatenate([np.zeros(0, np.int64), *(first[name] for name in names)])
        return replace(found, new=first[phase], earlier=earlier)

    def settings(
        self, phase: config.TrainPhase, changes: Mapping[str, Any] | None = None
    ) -> PhaseSections:
        """What a phase is trained by; `changes` are dotted names of params.yaml."""
        params = config.with_values(self.params, changes or {})
        return PhaseSections(phase, params.loss, params.optim, params.augment)

    @torch.no_grad()
    def distance_db(self, model: Unmixer, rows: np.ndarray, seed: int) -> float:
        """Median MSS in dB, through the proxy, of the best guess for clips `rows`."""
        table, clips, found = self.features.patches.select(rows), self.sounds.clips, []
        note, gate_s = (torch.as_tensor(x, dtype=torch.float32) for x in (table.note, table.gate_s))
        guesses = propose.propose(model, self.features.batch(rows), note, gate_s, 1, seed)
        for row, guess in zip(rows, guesses, strict=True):
            target = clips.audio(int(row))
            found.append(
                finetune.rank(self.sounds.proxy, target, [guess[0].patch], sample_rate=clips.rate)[
                    0
                ]
            )
        return float(np.median(found))
