"""Inputs of the training studies: some of a finished run's clips, a small model, a log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from unmixer_core import config
from unmixer_core.features.store import FeatureTable
from unmixer_core.inference import finetune, propose
from unmixer_core.model.unmixer import Unmixer
from unmixer_core.pipeline import state
from unmixer_core.system.json_types import JsonView
from unmixer_core.training.curriculum import PhaseData, Sounds
from unmixer_core.training.phase import PhaseSections

#: The default model at about a twentieth of its cost. No averaging of weights, so that the trained
#: weights are the ones measured.
SMALL = {
    "model.width": 10,
    "model.embedding": 128,
    "model.components": 4,
    "model.knob_hidden": 64,
    "model.chain_hidden": 64,
    "optim.ema": 0.0,
}
Item = TypeVar("Item")


class MemoryLog:
    """A `training.Log` that stores every row and shows nothing."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.rows.append((step or 0, dict(values)))

    def progress(
        self, items: Iterable[Item], total: int | None = None, desc: str = ""
    ) -> Iterator[Item]:
        return iter(items)

    def of(self, name: str) -> list[float]:
        """Return the values of one metric, in order."""
        return [values[name] for _, values in self.rows if name in values]


@dataclass(frozen=True)
class StudyInputs:
    """A finished run's host clips, its proxy as the spectral term, and reduced parameters.

    fingerprint: of the run's files.
    """

    features: FeatureTable
    sounds: Sounds
    params: config.Params
    fingerprint: str

    @classmethod
    def open(cls, run: Path, changes: JsonView) -> StudyInputs:
        """Open the features and renders under run/data and the proxy under run/models.

        changes: dotted names of params.yaml.
        """
        features = run / "data" / "features"
        renders = run / "data" / "renders"
        proxy = run / "models" / "proxy"
        params = config.with_values(config.load(), {**SMALL, **changes})
        return cls(
            features=FeatureTable.open(features),
            sounds=Sounds.open(proxy, renders, "cpu"),
            params=params,
            fingerprint=state.fingerprint(features, renders, proxy),
        )

    def data(self, phase: str, n_new: Mapping[str, int]) -> PhaseData:
        """Return the first n_new[phase] training clips of a phase and of each earlier one.

        Without clips of the proxy.
        """
        all_data = PhaseData.of(self.features, phase)
        patches = self.features.patches
        earlier = [np.zeros(0, np.int64)]
        for name in all_data.valid:
            if name != phase:
                earlier.append(patches.where(phase=name, split="train")[: n_new[name]])
        new = patches.where(phase=phase, split="train")[: n_new[phase]]
        return replace(all_data, new=new, earlier=np.concatenate(earlier))

    def settings(self, phase: config.TrainPhase, changes: JsonView | None = None) -> PhaseSections:
        """Return the settings of a phase; changes: dotted names of params.yaml."""
        params = config.with_values(self.params, changes or {})
        return PhaseSections(phase, params.loss, params.optim, params.augment)

    @torch.no_grad()
    def distance_db(self, model: Unmixer, rows: np.ndarray, seed: int) -> float:
        """Return the median MSS in dB, through the proxy, of the best guess for clips `rows`."""
        table = self.features.patches.select(rows)
        clips = self.sounds.clips
        note = torch.as_tensor(table.note, dtype=torch.float32)
        gate_s = torch.as_tensor(table.gate_s, dtype=torch.float32)
        guesses = propose.propose(model, self.features.batch(rows), note, gate_s, 1, seed)
        distances_db = []
        for row, guess in zip(rows, guesses, strict=True):
            target = clips.audio(int(row))
            patches = [guess[0].patch]
            ranked = finetune.rank(self.sounds.proxy, target, patches, sample_rate=clips.rate)
            distances_db.append(ranked[0])
        return float(np.median(distances_db))
