"""Rendered clips on disk while a render runs.

Shards that grow row by row, a journal of finished rows, and the final move.

Killed at any moment, nothing finished is lost: a row's samples are written first, its journal line
after. A re-run checks each journaled row against its SHA-256 and renders again only what is missing
or damaged, so that the result equals an uninterrupted run byte for byte. The working folder lies
outside DVC's outs (DVC deletes those before a stage starts); `publish` links the finished shards
into the out folder, so that a forced re-run starts from them.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmixer_core import audio
from unmixer_core.dataset import clips, patch_table
from unmixer_core.schema.patch import Patches
from unmixer_core.system.journal import JsonLines


@dataclass(frozen=True)
class ClipRow:
    """One finished clip: its row, the redraw that was kept, its patch digest and what was
    measured of it.
    """

    index: int
    attempt: int
    digest: str
    rate: int
    gain: float
    peak: float
    loudness_lufs: float
    sha256: str


class ClipStore:
    """Shards of `shard_clips` clips int16 [row, 2, time] under `folder`, for n clips in all."""

    def __init__(self, folder: Path, n: int, shard_clips: int, samples: int, rate: int) -> None:
        self.folder, self.n, self.shard_clips, self.samples, self.rate = (
            folder,
            n,
            shard_clips,
            samples,
            rate,
        )
        folder.mkdir(parents=True, exist_ok=True)
        self._maps = [self._open(shard) for shard in range(-(-n // shard_clips))]
        self._journal = JsonLines(folder / "journal.jsonl")
        self.rows = self._read_journal()

    def _path(self, shard: int) -> Path:
        return self.folder / f"{clips.shard_name(shard)}.npy"

    def _open(self, shard: int) -> NDArray[np.int16]:
        count = min(self.shard_clips, self.n - shard * self.shard_clips)
        shape, path = (count, 2, self.samples), self._path(shard)
        try:
            existing = np.load(path, mmap_mode="r")
            if existing.shape == shape and existing.dtype == np.int16:
                return existing
        except (OSError, ValueError):
            pass
        path.unlink(missing_ok=True)
        return np.lib.format.open_memmap(path, mode="w+", dtype=np.int16, shape=shape)

    def _read_journal(self) -> dict[int, ClipRow]:
        """The journaled rows whose samples are still what was written.

        A torn last line is ignored.
        """
        rows: dict[int, ClipRow] = {}
        for record in self._journal.read():
            try:
                row = ClipRow(**record)
            except TypeError:  # other fields: an older version wrote it
                continue
            rows[row.index] = row
        self.damaged = sorted(
            i for i, row in rows.items() if clips.sha256(self._row(i)) != row.sha256
        )
        return {i: row for i, row in rows.items() if i not in set(self.damaged)}

    def _row(self, index: int) -> NDArray[np.int16]:
        return self._maps[index // self.shard_clips][index % self.shard_clips]

    def _writable(self, shard: int) -> NDArray[np.int16]:
        """The shard, opened for writing.

        One that is linked elsewhere is copied first, so that the link never changes.
        """
        array = self._maps[shard]
        if array.flags.writeable:
            return array
        path = self._path(shard)
        if path.stat().st_nlink > 1:
            temporary = path.with_suffix(".copy")
            shutil.copyfile(path, temporary)
            os.replace(temporary, path)
        path.chmod(0o644)
        self._maps[shard] = np.load(path, mmap_mode="r+")
        return self._maps[shard]

    def put(
        self, index: int, attempt: int, digest: str, clip: audio.Clip, loudness_lufs: float
    ) -> None:
        """Store a finished clip float32 [2, time]."""
        stored, gain = clips.to_int16(clip)
        self._writable(index // self.shard_clips)[index % self.shard_clips] = stored
        row = ClipRow(
            index,
            attempt,
            digest,
            self.rate,
            gain,
            audio.peak(clip),
            loudness_lufs,
            clips.sha256(stored),
        )
        self._journal.append(asdict(row))
        self.rows[index] = row

    def publish(self, out: Path, patches: Patches) -> None:
        """Finished shards (hard links, or copies where links do not work), manifests and patches
        → `out`.
        """
        out.mkdir(parents=True, exist_ok=True)
        for shard, array in enumerate(self._maps):
            if isinstance(array, np.memmap):
                array.flush()
            first = shard * self.shard_clips
            rows = [asdict(self.rows[i]) for i in range(first, first + len(array))]
            frame = pd.DataFrame(rows).drop(columns="index")
            frame.insert(0, "patch_id", patches.id[first : first + len(array)])
            frame.to_parquet(out / f"{clips.shard_name(shard)}.parquet", index=False)
            _link(self._path(shard), out / self._path(shard).name)
        patches.write(out / "patches.parquet")
        patch_table.write(out, out / "patches.parquet")


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
