"""Log-mel frames on disk, float16 shards beside the patches they belong to, or made from the
clips at every use.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmixer_core.dataset import patch_table
from unmixer_core.dataset.clips import Clips, shard_name
from unmixer_core.dataset.patch_table import PatchTable
from unmixer_core.dataset.shards import Shard
from unmixer_core.errors import AudioError, StageError
from unmixer_core.features.frames import FeatureSpec, log_mel
from unmixer_core.schema.patch import Patches
from unmixer_core.system import files

#: Clips whose frames are made at a time.
BATCH = 32
TABLE = "patches.parquet"


class FramesOnDemand:
    """Frames that are not stored but made when asked for, from the clips, on `device`.

    Rounded as stored ones are.
    """

    def __init__(self, clips: Clips, spec: FeatureSpec, device: torch.device | str = "cpu") -> None:
        self.clips, self.spec, self.device = clips, spec, device

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, rows: NDArray[np.integer] | range) -> Tensor:
        """Rows [k] → float32 [k, 2, n_mels, frames] on the device."""
        indices = [int(row) for row in rows]
        parts = [self._frames(indices[i : i + BATCH]) for i in range(0, len(indices), BATCH)]
        return torch.cat(parts)

    def _frames(self, indices: list[int]) -> Tensor:
        audio = torch.from_numpy(np.stack([self.clips.audio(index) for index in indices])).to(
            self.device
        )
        return log_mel(audio, self.spec).half().float()


def log_mel_of(
    clips: Clips, rows: range, spec: FeatureSpec, device: torch.device | str = "cpu"
) -> NDArray[np.float16]:
    """Features of some rows, float16 [n, 2, n_mels, frames].

    Raises AudioError naming a damaged clip.
    """
    clips.verify_all(rows)
    return FramesOnDemand(clips, spec, device)[rows].cpu().numpy().astype(np.float16)


class FeatureWriter:
    """Writes a feature folder shard by shard; `total` sums the clips' mean levels.

    Without `store`, only what is needed to make frames on the fly is written.
    """

    def __init__(self, folder: Path, spec: FeatureSpec, *, store: bool = True) -> None:
        self.folder, self.spec, self.store, self.total = folder, spec, store, 0.0
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, shard: int, features: NDArray[np.float16]) -> None:
        path = self.folder / f"{shard_name(shard)}.npy"
        with files.replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, features)
        self.total += float(features.astype(np.float32).mean()) * len(features)

    def finish(self, patches: Patches | Path) -> None:
        """Patches (a table, or the file that holds it) and spec, last.

        A folder without meta.json is not complete.
        """
        target = self.folder / TABLE
        if isinstance(patches, Path):
            shutil.copyfile(patches, target)
        else:
            patches.write(target)
        patch_table.write(self.folder, target)
        meta = {"spec": asdict(self.spec)} | ({} if self.store else {"stored": False})
        (self.folder / "meta.json").write_text(json.dumps(meta, indent=1, sort_keys=True) + "\n")


@dataclass(frozen=True)
class FeatureTable:
    """Features of n clips, the patches they belong to, and the spec that made them.

    The frames lie in `shards`: float16 arrays [k, 2, n_mels, frames], in memory or on disk and read
    row by row, or `FramesOnDemand`.
    """

    patches: Patches | PatchTable
    shards: tuple[NDArray[np.float16] | Shard | FramesOnDemand, ...]
    spec: FeatureSpec

    @classmethod
    def open(
        cls, folder: Path, renders: Path | None = None, device: torch.device | str = "cpu"
    ) -> FeatureTable:
        """`renders`: the clips, needed (and only read) where frames were not stored.

        Those are then made on `device`.

        Raises StageError when missing, AudioError when a shard is truncated, SchemaMismatch on
        another schema.
        """
        if not (folder / "meta.json").exists():
            raise StageError(
                f"there are no features in {folder}; run `dvc repro extract_features`."
            )
        meta = json.loads((folder / "meta.json").read_text())
        spec = FeatureSpec(**meta["spec"])
        try:
            shards: tuple[Any, ...] = tuple(
                Shard.open(path) for path in sorted(folder.glob("shard-*.npy"))
            )
        except (OSError, ValueError) as error:
            raise AudioError(
                f"a shard in {folder} is truncated ({error}); run `dvc repro --force "
                f"extract_features`."
            ) from error
        if not meta.get("stored", True):
            shards = (FramesOnDemand(_clips(folder, renders), spec, device),)
        n = Patches.count(folder / TABLE)
        try:
            table = PatchTable.open(folder)
        except (OSError, ValueError) as error:
            raise StageError(
                f"{folder} is incomplete ({error}); run `dvc repro --force extract_features`."
            ) from error
        if not sum(map(len, shards)) == len(table) == n:
            raise StageError(f"{folder} is incomplete; run `dvc repro --force extract_features`.")
        return cls(table, shards, spec)

    def __len__(self) -> int:
        return len(self.patches)

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """The first row of each shard."""
        return np.cumsum([0, *map(len, self.shards[:-1])])

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> Tensor:
        """Rows → float32 [b, 2, n_mels, frames]; on the CPU, but for frames made elsewhere."""
        rows = np.asarray(indices, dtype=np.int64)
        places = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(places, kind="stable")
        parts = []
        for place in dict.fromkeys(places[order].tolist()):
            found = self.shards[place][rows[places == place] - self._starts[place]]
            parts.append(
                found if isinstance(found, Tensor) else torch.from_numpy(found.astype(np.float32))
            )
        if len(parts) == 1:
            return parts[0]
        device = parts[0].device
        return torch.cat([part.to(device) for part in parts])[
            torch.from_numpy(np.argsort(order, kind="stable"))
        ]

    def joined(self, more: FeatureTable) -> FeatureTable:
        """These rows, then those of `more`.

        Raises StageError when they were made with other settings.
        """
        if more.spec != self.spec:
            raise StageError(
                f"frames made with other settings cannot be joined: {self.spec} and {more.spec}."
            )
        tables = [
            f.patches if isinstance(f.patches, PatchTable) else PatchTable.of(f.patches)
            for f in (self, more)
        ]
        return FeatureTable(tables[0].joined(tables[1]), self.shards + more.shards, self.spec)


def _clips(folder: Path, renders: Path | None) -> Clips:
    if renders is None:
        raise StageError(
            f"the frames of {folder} are not stored (features.store: false), and no clips were "
            f"given."
        )
    return Clips.open(renders)
