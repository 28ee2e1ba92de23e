"""Clips in and out: sound files, resampling, loudness, and the shards that hold rendered clips.

A clip is float32 [channel, time]. Rendered clips are kept as int16 shards with a gain per clip (so that level is not
lost), beside a parquet manifest; row r of shard s is clip s · shard_clips + r of the patch table next to them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from numpy.typing import NDArray

from unmixer_core.errors import AudioError
from unmixer_core.schema.patch import Patches

Clip = NDArray[np.float32]
INT16_PEAK = 32767.0
SILENCE_LUFS = -120.0
RERENDER = "dvc repro --force render_patches"


def read(path: Path) -> tuple[Clip, int]:
    """A sound file → (float32 [channel, time], rate in Hz). Raises AudioError when it cannot be decoded or is empty."""
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise AudioError(f"{path} cannot be read as audio ({error}).") from error
    if samples.size == 0 or not np.isfinite(samples).all():
        raise AudioError(f"{path} holds {'no samples' if samples.size == 0 else 'samples that are not numbers'}.")
    return np.ascontiguousarray(samples.T), int(rate)


def write(path: Path, clip: Clip, rate: int, subtype: str | None = None) -> None:
    """float32 [channel, time] → a file whose format follows its suffix; written to a temporary name, then moved."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    soundfile.write(temporary, clip.T, rate, subtype=subtype, format=path.suffix.lstrip(".").upper())
    temporary.replace(path)


def resample(clip: Clip, rate_in: int, rate_out: int) -> Clip:
    """Polyphase resampling along the last axis (scipy); exact copy when the rates are equal."""
    if rate_in == rate_out:
        return clip.copy()
    from scipy.signal import resample_poly  # 1 s to import, and most processes never resample

    factor = gcd(rate_in, rate_out)
    return resample_poly(clip, rate_out // factor, rate_in // factor, axis=-1).astype(np.float32)


def loudness_lufs(clip: Clip, rate: int) -> float:
    """Integrated loudness (ITU-R BS.1770-4, by pyloudnorm) of [channel, time]; SILENCE_LUFS for silence."""
    value = float(_meter(rate).integrated_loudness(clip.T.astype(np.float64)))
    return value if np.isfinite(value) else SILENCE_LUFS


@lru_cache(maxsize=4)
def _meter(rate: int) -> Any:
    import pyloudnorm

    return pyloudnorm.Meter(rate)


def peak(clip: Clip) -> float:
    """Largest absolute sample."""
    return float(np.abs(clip).max(initial=0.0))


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
    """The rendered clips of a folder, opened by memory map. `patches` are what was really rendered, redraws included."""

    folder: Path
    patches: Patches
    manifest: pd.DataFrame
    shards: tuple[NDArray[np.int16], ...]
    rate: int

    @classmethod
    def open(cls, folder: Path) -> Clips:
        """Raises AudioError when a shard is missing or truncated, SchemaMismatch on another schema."""
        patches = Patches.read(folder / "patches.parquet")
        manifests, shards = [], []
        for path in sorted(folder.glob("shard-*.parquet")):
            manifests.append(pd.read_parquet(path))
            try:
                shards.append(np.load(path.with_suffix(".npy"), mmap_mode="r"))
            except (OSError, ValueError) as error:
                raise AudioError(
                    f"{path.with_suffix('.npy')} is missing or truncated ({error}); run `{RERENDER}`."
                ) from error
        manifest = pd.concat(manifests, ignore_index=True) if manifests else pd.DataFrame()
        if len(manifest) != len(patches) or sum(map(len, shards)) != len(patches):
            raise AudioError(
                f"{folder} holds {sum(map(len, shards))} clips for {len(patches)} patches; run `{RERENDER}`."
            )
        return cls(folder, patches, manifest, tuple(shards), int(manifest["rate"].iloc[0]))

    def __len__(self) -> int:
        return len(self.patches)

    @property
    def n(self) -> int:
        return len(self)

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
        return from_int16(self.stored(index), float(self.manifest["gain"].iloc[index]))

    def verify(self, index: int) -> None:
        """Raises AudioError naming the clip when its samples are not those that were rendered."""
        if sha256(self.stored(index)) != self.manifest["sha256"].iloc[index]:
            patch = self.manifest["digest"].iloc[index]
            raise AudioError(
                f"clip {index} (patch {patch}) in {self.folder} is damaged; run `{RERENDER}` to render it again."
            )
