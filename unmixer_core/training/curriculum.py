"""The three phases of the curriculum and what they read.

Dry synth -> non-linear effects -> full chain.

A phase is its new clips, the earlier ones it replays, the proxy's clips that it rehearses on first,
and the validation clips of every phase so far.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from unmixer_core import audio, config
from unmixer_core.dataset.clips import Clips
from unmixer_core.dsp import spectral
from unmixer_core.errors import ConfigError, StageError
from unmixer_core.features.store import FeatureTable
from unmixer_core.model.targets import Targets
from unmixer_core.model.unmixer import Draw
from unmixer_core.proxy.proxy import RackProxy
from unmixer_core.proxy.twin import ProxyModule
from unmixer_core.schema.patch import PHASES
from unmixer_core.training import losses


@dataclass(frozen=True)
class PhaseData:
    """Rows of the features: new training clips of a phase, earlier ones to replay, validation
    clips by phase; rows from `n_host` on are the proxy's: `rehearsal` those of this phase,
    `rehearsed` those of earlier ones.
    """

    features: FeatureTable
    new: NDArray[np.int64]
    earlier: NDArray[np.int64]
    valid: dict[str, NDArray[np.int64]]
    n_host: int
    rehearsal: NDArray[np.int64]
    rehearsed: NDArray[np.int64]

    @property
    def counts(self) -> dict[str, int]:
        """How many training clips of the host and of the proxy the phase is given, earlier ones
        included.
        """
        return {
            "host": len(self.new) + len(self.earlier),
            "proxy": len(self.rehearsal) + len(self.rehearsed),
        }

    @property
    def phase(self) -> str:
        """The phase that is trained: the last of those validated."""
        return list(self.valid)[-1]

    @classmethod
    def of(cls, host: FeatureTable, phase: str, proxy: FeatureTable | None = None) -> PhaseData:
        """`proxy`: frames of the proxy's clips, if any.

        Raises StageError when the phase has no training or no validation clips, or the proxy's
        frames do not fit the host's.
        """
        features, patches = host.joined(proxy) if proxy is not None else host, host.patches
        known = PHASES[: PHASES.index(phase) + 1]
        rows = {name: patches.where(phase=name, split="train") for name in known}
        valid = {name: patches.where(phase=name, split="valid") for name in known}
        if not len(rows[phase]) or not len(valid[phase]):
            raise StageError(
                f"the features hold no training or no validation clips of phase {phase}; see "
                f"params.yaml `sample`."
            )
        made = {name: _after(len(host), features.patches.where(phase=name)) for name in known}
        return cls(
            features,
            rows[phase],
            _together(rows[name] for name in known[:-1]),
            {name: found for name, found in valid.items() if len(found)},
            len(host),
            made[phase],
            _together(made[name] for name in known[:-1]),
        )

    def targets(self, rows: NDArray[np.integer]) -> Targets:
        """What there is to be learned of rows [b], every tensor contiguous."""
        return Targets.of(self.features.patches.select(rows))[torch.arange(len(rows))]

    def statistics(
        self, at_most: int = 1000
    ) -> tuple[Float[Tensor, "2 mels"], Float[Tensor, "2 mels"]]:
        """Mean and standard deviation (at least 0.1) per channel and mel band [2, m] over the
        host's training clips of every phase.
        """
        rows = self.features.patches.where(split="train")
        rows = rows[rows < self.n_host]
        x = self.features.batch(rows[:: max(1, len(rows) // at_most)])
        return x.mean((0, 3)), x.std((0, 3)).clamp_min(0.1)

    def epoch_rows(
        self, epoch: int, *, seed: int, replay: float, rehearsal: bool = False
    ) -> NDArray[np.int64]:
        """The shuffled rows of one epoch.

        All new clips of the host (or, in a rehearsal, of the proxy), and `replay` times as many
        earlier ones, as far as there are.
        """
        new, earlier = (self.rehearsal, self.rehearsed) if rehearsal else (self.new, self.earlier)
        rng = np.random.default_rng([seed, epoch])
        count = min(len(earlier), round(replay * len(new)))
        return rng.permutation(np.concatenate([new, rng.choice(earlier, count, replace=False)]))


@dataclass(frozen=True)
class Schedule:
    """The epochs of a phase: `rehearsals` on the proxy's clips first, then those on the host's.

    A batch has a clip for each of `ranks`.
    """

    data: PhaseData
    settings: config.TrainPhase
    ranks: int = 1

    def __len__(self) -> int:
        return self.rehearsals + self.settings.epochs

    @property
    def rehearsals(self) -> int:
        """Epochs on the proxy's clips: none when there are none."""
        return self.settings.proxy_epochs if len(self.data.rehearsal) else 0

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """An epoch's rows in shuffled batches; equal for equal seed and epoch."""
        s = self.settings
        rows = self.data.epoch_rows(
            epoch, seed=s.seed, replay=s.replay, rehearsal=epoch < self.rehearsals
        )
        if len(rows) < self.ranks or s.batch < self.ranks:
            raise ConfigError(
                f"{self.ranks} ranks cannot share batches of {min(len(rows), s.batch)} clips; "
                f"start fewer."
            )
        return batches_of(rows, s.batch, max(2, self.ranks))

    @cached_property
    def steps(self) -> int:
        """Optimiser steps of all epochs."""
        first, last = (len(self.batches(epoch)) if len(self) else 0 for epoch in (0, len(self) - 1))
        return self.rehearsals * first + self.settings.epochs * last

    def title(self, epoch: int) -> str:
        """What a progress bar is called."""
        sound = "proxy" if epoch < self.rehearsals else "host"
        return f"{self.data.phase}, epoch {epoch + 1} of {len(self)} ({sound})"


def batches_of(rows: NDArray[np.int64], size: int, least: int = 2) -> list[NDArray[np.int64]]:
    """Chunks of at least `least` rows (batch normalisation needs two).

    Fewer last rows join the chunk before them.
    """
    count = max(1, math.ceil((len(rows) - least + 1) / size))
    return [rows[i * size : (i + 1) * size if i < count - 1 else len(rows)] for i in range(count)]


def _after(first: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows[rows >= first]


def _together(parts: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(0, np.int64), *parts])


@dataclass(frozen=True)
class Sounds:
    """The spectral loss (`training.ProxyTerm`).

    Predicted samples through the frozen proxy, beside the true sound.

    `clips` are aligned with the features. Both sounds are compared at one level, which is not the
    model's to predict.
    """

    proxy: ProxyModule
    clips: Clips

    @classmethod
    def open(cls, proxy: Path, renders: Path, device: torch.device | str) -> Sounds:
        """Raises StageError, SchemaMismatch, AudioError when the proxy or the clips are missing
        or do not fit.
        """
        frozen = RackProxy.load(proxy).to(device).eval().requires_grad_(False)
        return cls(frozen, Clips.open(renders))

    def __call__(
        self, draw: Draw, targets: Targets, rows: NDArray[np.int64]
    ) -> Float[Tensor, "batch"]:
        """Distance [b] of samples to clips `rows` [b]."""
        rate = int(self.proxy.sample_rate)
        true = np.stack(
            [audio.resample(self.clips.audio(int(row)), self.clips.rate, rate) for row in rows]
        )
        wanted = losses.level_matched(torch.from_numpy(true).to(draw.knobs))
        found = losses.level_matched(
            losses.rendered(self.proxy, draw, targets.note, targets.gate_s)
        )
        length = min(wanted.shape[-1], found.shape[-1])
        return spectral.multiscale_spectral(found[..., :length], wanted[..., :length], rate)
