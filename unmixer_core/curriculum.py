"""The three phases of the curriculum and what they read: dry synth -> non-linear effects -> full chain.

A phase is its new clips, the earlier ones it replays, and the validation clips of every phase so far.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmixer_core import audio, losses
from unmixer_core.audio import Clips
from unmixer_core.ddsp import spectral
from unmixer_core.errors import StageError
from unmixer_core.features import Features
from unmixer_core.model.targets import Targets
from unmixer_core.model.unmixer import Draw
from unmixer_core.proxy.proxy import Proxy
from unmixer_core.schema.patch import PHASES


@dataclass(frozen=True)
class PhaseData:
    """Rows of the features: new training clips of a phase, earlier ones to replay, validation clips by phase."""

    features: Features
    targets: Targets
    new: NDArray[np.int64]
    earlier: NDArray[np.int64]
    valid: dict[str, NDArray[np.int64]]

    @property
    def phase(self) -> str:
        """The phase that is trained: the last of those validated."""
        return list(self.valid)[-1]

    @classmethod
    def of(cls, features: Features, phase: str) -> PhaseData:
        """Raises StageError when the phase has no training or no validation clips."""
        patches = features.patches
        known = PHASES[: PHASES.index(phase) + 1]
        rows = {name: patches.where(phase=name, split="train") for name in known}
        valid = {name: patches.where(phase=name, split="valid") for name in known}
        if not len(rows[phase]) or not len(valid[phase]):
            raise StageError(
                f"the features hold no training or no validation clips of phase {phase}; see params.yaml `sample`."
            )
        earlier = np.concatenate([np.zeros(0, np.int64), *(rows[name] for name in known[:-1])])
        return cls(features, Targets.of(patches), rows[phase], earlier, {n: v for n, v in valid.items() if len(v)})

    def statistics(self, at_most: int = 1000) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (at least 0.1) per channel and mel band [2, m] over training clips of every phase."""
        rows = self.features.patches.where(split="train")
        x = self.features.batch(rows[:: max(1, len(rows) // at_most)])
        return x.mean((0, 3)), x.std((0, 3)).clamp_min(0.1)

    def epoch_rows(self, epoch: int, *, seed: int, replay: float) -> NDArray[np.int64]:
        """The shuffled rows of one epoch: all new clips, and `replay` times as many earlier ones (as far as there are)."""
        rng = np.random.default_rng([seed, epoch])
        count = min(len(self.earlier), round(replay * len(self.new)))
        return rng.permutation(np.concatenate([self.new, rng.choice(self.earlier, count, replace=False)]))


@dataclass(frozen=True)
class Sounds:
    """The spectral loss (`training.ProxyTerm`): predicted samples through the frozen proxy, beside the true sound.

    `clips` are aligned with the features. Both sounds are compared at one level, which is not the model's to predict.
    """

    proxy: Proxy
    clips: Clips

    @classmethod
    def open(cls, proxy: Path, renders: Path, device: torch.device | str) -> Sounds:
        """Raises StageError, SchemaMismatch, AudioError when the proxy or the clips are missing or do not fit."""
        frozen = Proxy.load(proxy).to(device).eval().requires_grad_(False)
        return cls(frozen, Clips.open(renders))

    def __call__(self, draw: Draw, targets: Targets, rows: NDArray[np.int64]) -> Tensor:
        """Distance [b] of samples to clips `rows` [b]."""
        rate = int(self.proxy.sample_rate)
        true = np.stack([audio.resample(self.clips.audio(int(row)), self.clips.rate, rate) for row in rows])
        wanted = losses.level_matched(torch.from_numpy(true).to(draw.knobs))
        found = losses.level_matched(losses.rendered(self.proxy, draw, targets.note, targets.gate_s))
        length = min(wanted.shape[-1], found.shape[-1])
        return spectral.multiscale_spectral(found[..., :length], wanted[..., :length], rate)


def fingerprint(*folders: Path) -> str:
    """SHA-256 over what identifies the folders a phase depends on: their JSON, parquet and safetensors files."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".parquet", ".safetensors")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
