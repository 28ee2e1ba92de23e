"""What the encoder sees: log-mel spectrograms of mid and side, of the clip at peak level 1.

Mel scale after HTK (O'Shaughnessy 1987), triangular filters, power in dB, floored `floor_db` below 0 dBFS and mapped to
about [−1, 1]. Kept as float16 shards beside the patches, so that training never touches audio.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmixer_core.audio import Clips, shard_name
from unmixer_core.errors import AudioError, StageError
from unmixer_core.schema.patch import Patches


class FeatureSettings(Protocol):
    """What is read of params.yaml's `features` section."""

    n_fft: int
    hop: int
    n_mels: int
    fmin_hz: float
    fmax_hz: float
    floor_db: float


@dataclass(frozen=True)
class FeatureSpec:
    """The settings that made a set of features, as stored beside them and in model checkpoints."""

    sample_rate: int
    n_fft: int
    hop: int
    n_mels: int
    fmin_hz: float
    fmax_hz: float
    floor_db: float

    @classmethod
    def of(cls, settings: FeatureSettings, sample_rate: int) -> FeatureSpec:
        names = ("n_fft", "hop", "n_mels", "fmin_hz", "fmax_hz", "floor_db")
        return cls(sample_rate, **{name: getattr(settings, name) for name in names})


def log_mel(audio: Tensor, spec: FeatureSpec) -> Tensor:
    """audio [..., 2, time] at spec.sample_rate → [..., 2 (mid, side), n_mels, frames], level-normalised, about [−1, 1]."""
    normalised = audio / audio.abs().amax(dim=(-2, -1), keepdim=True).clamp_min(1e-9)
    left, right = normalised[..., 0, :], normalised[..., 1, :]
    pair = torch.stack([(left + right) / 2, (left - right) / 2], dim=-2)
    window = torch.hann_window(spec.n_fft, dtype=audio.dtype, device=audio.device)
    flat = pair.reshape(-1, pair.shape[-1])
    spectrum = torch.stft(flat, spec.n_fft, spec.hop, window=window, return_complex=True, pad_mode="constant")
    power = (spectrum.abs() / window.sum() * 2).square()
    mel = mel_filters(spec).to(power) @ power
    floor = 10.0 ** (spec.floor_db / 10.0)
    decibels = 10.0 * torch.log10(mel.clamp_min(floor))
    scaled = decibels * (2.0 / -spec.floor_db) + 1.0
    frames = pair.shape[-1] // spec.hop
    return scaled[..., :frames].reshape(*pair.shape[:-1], spec.n_mels, frames)


@lru_cache(maxsize=8)
def mel_filters(spec: FeatureSpec) -> Tensor:
    """Triangular HTK filters [n_mels, n_fft/2+1]."""
    from unmixer_core.torchaudio_cpu import torchaudio

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # bands above Nyquist, or narrower than a bin, are empty
        bank = torchaudio.functional.melscale_fbanks(
            spec.n_fft // 2 + 1, spec.fmin_hz, spec.fmax_hz, spec.n_mels, spec.sample_rate, mel_scale="htk"
        )
    return bank.T.contiguous()


def log_mel_of(clips: Clips, rows: range, spec: FeatureSpec, batch: int = 32) -> NDArray[np.float16]:
    """Features of some rows, float16 [n, 2, n_mels, frames]. Raises AudioError naming a damaged clip."""
    parts = []
    for start in range(rows.start, rows.stop, batch):
        indices = range(start, min(start + batch, rows.stop))
        for index in indices:
            clips.verify(index)
        audio = torch.from_numpy(np.stack([clips.audio(index) for index in indices]))
        parts.append(log_mel(audio, spec).numpy().astype(np.float16))
    return np.concatenate(parts)


class FeatureWriter:
    """Writes a feature folder shard by shard; `total` sums the clips' mean levels."""

    def __init__(self, folder: Path, spec: FeatureSpec) -> None:
        self.folder, self.spec, self.total = folder, spec, 0.0
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, shard: int, features: NDArray[np.float16]) -> None:
        path = self.folder / f"{shard_name(shard)}.npy"
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.save(file, features)
        temporary.replace(path)
        self.total += float(features.astype(np.float32).mean()) * len(features)

    def finish(self, patches: Patches) -> None:
        """Patches and spec, last: a folder without meta.json is not complete."""
        patches.write(self.folder / "patches.parquet")
        (self.folder / "meta.json").write_text(json.dumps({"spec": asdict(self.spec)}, indent=1, sort_keys=True) + "\n")


@dataclass(frozen=True)
class Features:
    """Stored features: float16 shards by memory map, the patches they belong to, and the spec that made them."""

    patches: Patches
    shards: tuple[NDArray[np.float16], ...]
    spec: FeatureSpec

    @classmethod
    def open(cls, folder: Path) -> Features:
        """Raises StageError when missing, AudioError when a shard is truncated, SchemaMismatch on another schema."""
        if not (folder / "meta.json").exists():
            raise StageError(f"there are no features in {folder}; run `dvc repro extract_features`.")
        meta = json.loads((folder / "meta.json").read_text())
        try:
            shards = tuple(np.load(path, mmap_mode="r") for path in sorted(folder.glob("shard-*.npy")))
        except (OSError, ValueError) as error:
            raise AudioError(
                f"a shard in {folder} is truncated ({error}); run `dvc repro --force extract_features`."
            ) from error
        patches = Patches.read(folder / "patches.parquet")
        if sum(map(len, shards)) != len(patches):
            raise StageError(f"{folder} is incomplete; run `dvc repro --force extract_features`.")
        return cls(patches, shards, FeatureSpec(**meta["spec"]))

    def __len__(self) -> int:
        return len(self.patches)

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """The first row of each shard."""
        return np.cumsum([0, *map(len, self.shards[:-1])])

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> Tensor:
        """Rows → float32 [b, 2, n_mels, frames]."""
        rows = np.asarray(indices, dtype=np.int64)
        places = np.searchsorted(self._starts, rows, side="right") - 1
        found = [self.shards[place][row] for place, row in zip(places, rows - self._starts[places], strict=True)]
        return torch.from_numpy(np.stack(found).astype(np.float32))

    def joined(self, more: Features) -> Features:
        """These rows, then those of `more`. Raises StageError when they were made with other settings."""
        if more.spec != self.spec:
            raise StageError(f"frames made with other settings cannot be joined: {self.spec} and {more.spec}.")
        return Features(Patches.concat([self.patches, more.patches]), self.shards + more.shards, self.spec)
