"""Rendered clips on disk: int16 shards with a gain per clip, beside a parquet manifest.

Row r of shard s is clip s * shard_clips + r of the patch table next to them. The gain keeps the
level of a clip.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unmixer_core.audio import Clip, peak
from unmixer_core.dataset.patch_table import PatchTable
from unmixer_core.dataset.shards import Shard
from unmixer_core.errors import AudioError
from unmixer_core.schema.patch import Patches

INT16_PEAK = 32767.0
RERENDER = "dvc repro --force render_patches"


def to_int16(clip: Clip) -> tuple[NDArray[np.int16], float]:
    """float → (int16 at full scale, gain): clip ≈ int16 / 32767 · gain. Silence keeps gain 1."""
    gain = peak(clip) or 1.0
    return np.round(clip.astype(np.float64) * (INT16_PEAK / gain)).astype(np.int16), gain


def from_int16(samples: NDArray[np.int16], gain: float) -> Clip:
    """The inverse of to_int16, to within half a step."""
    return samples.astype(np.float32) * np.float32(gain / INT16_PEAK)


def sha256(samples: NDArray[np.int16]) -> str:
    """Digest of the stored samples, by which a damaged clip is found."""
    return hashlib.sha256(np.ascontiguousarray(samples).tobytes()).hexdigest()


def shard_name(shard: int) -> str:
    return f"shard-{shard:05d}"


@dataclass(frozen=True)
class Clips:
    """The rendered clips of a folder, read clip by clip.

    `patches` are what was really rendered, redraws included; they and the gains are read when first
    asked for.
    """

    folder: Path
    shards: tuple[Shard, ...]
    rate: int

    @classmethod
    def open(cls, folder: Path) -> Clips:
        """Raises AudioError when a shard is missing or truncated, SchemaMismatch on another
        schema.
        """
        n, shards, listed, rate = Patches.count(folder / "patches.parquet"), [], 0, 0
        for path in sorted(folder.glob("shard-*.parquet")):
            try:
                shards.append(Shard.open(path.with_suffix(".npy")))
                rows = pq.read_metadata(path).num_rows
                rate = rate or int(pq.read_table(path, columns=["rate"])["rate"][0].as_py())
            except (OSError, ValueError) as error:
                raise AudioError(
                    f"{path.with_suffix('.npy')} is missing or truncated ({error}); run "
                    f"`{RERENDER}`."
                ) from error
            listed += rows
        if listed != n or sum(map(len, shards)) != n:
            raise AudioError(
                f"{folder} holds {sum(map(len, shards))} clips for {n} patches; run `{RERENDER}`."
            )
        return cls(folder, tuple(shards), rate)

    def __len__(self) -> int:
        return sum(map(len, self.shards))

    @property
    def n(self) -> int:
        return len(self)

    @cached_property
    def patches(self) -> PatchTable:
        """What was rendered, read row by row. Raises AudioError when it is damaged."""
        try:
            return PatchTable.open(self.folder)
        except (OSError, ValueError) as error:
            raise AudioError(f"{self.folder} is incomplete ({error}); run `{RERENDER}`.") from error

    @cached_property
    def _gains(self) -> NDArray[np.float64]:
        paths = (self.folder / f"{shard_name(shard)}.parquet" for shard in range(len(self.shards)))
        return np.concatenate(
            [pq.read_table(path, columns=["gain"])["gain"].to_numpy() for path in paths]
        )

    def shard_rows(self, shard: int) -> range:
        """The clip numbers of a shard."""
        first = shard * len(self.shards[0])
        return range(first, first + len(self.shards[shard]))

    def stored(self, index: int) -> NDArray[np.int16]:
        """The int16 samples [2, time] of clip `index`."""
        shard_clips = len(self.shards[0])
        return self.shards[index // shard_clips][index % shard_clips]

    def audio(self, index: int) -> Clip:
        """Clip `index` at its true level, float32 [2, time]."""
        return from_int16(self.stored(index), float(self._gains[index]))

    def verify(self, index: int) -> None:
        """Raises AudioError naming the clip when its samples are not those that were rendered."""
        shard, row = divmod(index, len(self.shards[0]))
        digests, patches = _digests(self.folder / f"{shard_name(shard)}.parquet")
        if sha256(self.stored(index)) != digests[row]:
            raise AudioError(
                f"clip {index} (patch {patches[row]}) in {self.folder} is damaged; run "
                f"`{RERENDER}` to render it again."
            )

    def verify_all(self, indices: Iterable[int]) -> None:
        """`verify` of many clips."""
        for index in indices:
            self.verify(index)


def _digests(manifest: Path) -> tuple[list[str], list[str]]:
    """SHA-256 and patch digest of a shard's clips."""
    return _digests_as_of(manifest, manifest.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _digests_as_of(manifest: Path, changed_ns: int) -> tuple[list[str], list[str]]:
    table = pq.read_table(manifest, columns=["sha256", "digest"])
    return table["sha256"].to_pylist(), table["digest"].to_pylist()
