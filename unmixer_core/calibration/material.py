"""The host's clips and their patches, as calibration and the gap report read them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from unmixer_core.audio import resample
from unmixer_core.dataset.clips import Clips

Rows = NDArray[np.int64]
#: Resampled clips that stay in memory: 512 clips of 2 s at 22.05 kHz are 180 MB.
CACHED_CLIPS = 512


class PatchBatch(NamedTuple):
    """The arguments of a proxy's `forward` for a batch of patches."""

    knobs: Float[Tensor, "batch knobs"]
    choices: Int[Tensor, "batch choices"]
    chain: Int[Tensor, "batch slots"]
    note: Float[Tensor, "batch"]
    gate_s: Float[Tensor, "batch"]


class Material:
    """The host's clips at the proxy's sample rate, with their patches."""

    def __init__(self, clips: Clips, sample_rate: int) -> None:
        self.clips = clips
        self.sample_rate = sample_rate
        #: Number of effects of every patch.
        self.lengths = (clips.patches.chain >= 0).sum(axis=1)
        self._resampled = lru_cache(maxsize=CACHED_CLIPS)(self._read)

    def _read(self, row: int) -> Float[Tensor, "2 time"]:
        clip = resample(self.clips.audio(row), self.clips.rate, self.sample_rate)
        return torch.from_numpy(clip)

    def rows(self, split: str, longest: int, shortest: int = 0) -> Rows:
        """Rows of a split whose chains have `shortest` to `longest` effects."""
        long_enough = self.lengths >= shortest
        short_enough = self.lengths <= longest
        return np.flatnonzero(long_enough & short_enough & (self.clips.patches.split == split))

    def held_out(self, longest: int, shortest: int = 0, *, judge: bool = False) -> Rows:
        """Validation rows whose chains have `shortest` to `longest` effects.

        Odd rows decide what calibration accepts (`judge`), even rows are only reported on.
        """
        rows = self.rows("valid", longest, shortest)
        return rows[rows % 2 == int(judge)]

    def patches(self, rows: Iterable[int], device: torch.device) -> PatchBatch:
        """The patches of these rows as tensors on a device."""
        table = self.clips.patches
        index = np.asarray(list(rows))

        def real(column: NDArray[np.number]) -> Tensor:
            return torch.as_tensor(np.asarray(column)[index], dtype=torch.float32, device=device)

        def whole(column: NDArray[np.integer]) -> Tensor:
            return torch.as_tensor(np.asarray(column)[index].astype(np.int64), device=device)

        return PatchBatch(
            knobs=real(table.knobs),
            choices=whole(table.choices),
            chain=whole(table.chain),
            note=real(table.note),
            gate_s=real(table.gate_s),
        )

    def audio(self, rows: Iterable[int], device: torch.device) -> Float[Tensor, "rows 2 time"]:
        """Host clips of these rows."""
        return torch.stack([self._resampled(int(row)) for row in rows]).to(device)
