"""Nearest training renders of a target: exhaustive, by the MSS of the renders themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unmixer_core.dataset.shards import ShardWriter
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.scoring import mss_index

#: Clips whose features a retrieval keeps in memory: half a gigabyte.
IN_MEMORY = 8192


@dataclass(frozen=True)
class Retrieval:
    """Nearest neighbours under MSS among clips whose features were computed once.

    `indices` [n] number them.
    """

    index: mss_index.MssIndex
    indices: np.ndarray

    @classmethod
    def build(
        cls,
        audio_of: Callable[[int], np.ndarray],
        indices: Sequence[int] | np.ndarray,
        sample_rate: int,
        *,
        threads: int = 1,
        progress: Callable[[Iterable[np.ndarray]], Iterable[np.ndarray]] = iter,
        spool: Path | None = None,
    ) -> Retrieval:
        """Features of the clips `audio_of(index)` ([2, time]) for every index.

        62 KB for two seconds, in memory, or beyond IN_MEMORY clips in files in the folder `spool`.
        """
        rows = np.asarray(indices)
        with ThreadPoolExecutor(max(1, threads)) as pool:
            features = progress(_features(pool, audio_of, rows, sample_rate))
            if spool is None or len(rows) <= IN_MEMORY:
                return cls(mss_index.MssIndex(mss_index.stack_features(features)), rows)
            return cls(_spooled(features, spool), rows)

    def nearest(self, features: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest clips of a target given by its features.

        (clip indices [k], MSS in dB [k]), nearest first.
        """
        rows, mss_db = self.index.nearest(features, k)
        return self.indices[rows], mss_db


def _features(
    pool: ThreadPoolExecutor,
    audio_of: Callable[[int], np.ndarray],
    rows: np.ndarray,
    sample_rate: int,
) -> Iterator[np.ndarray]:
    """Features of each clip as float16, a block of clips at a time."""
    for start in range(0, len(rows), mss_index.RETRIEVAL_READ):
        part = rows[start : start + mss_index.RETRIEVAL_READ].tolist()
        yield from pool.map(
            lambda i: metrics_sound.mss_features(audio_of(i), sample_rate).astype(np.float16), part
        )


def _spooled(features: Iterable[np.ndarray], folder: Path) -> mss_index.MssIndex:
    bank: ShardWriter | None = None
    for row in features:
        if bank is None:
            bank = ShardWriter(folder / "bank.npy", row.shape, np.float16)
            coarse = ShardWriter(
                folder / "coarse.npy", mss_index.block_means(row[None]).shape[1:], np.float32
            )
        bank.add(row[None])
        coarse.add(mss_index.block_means(row[None]))
    if bank is None:
        raise ValueError("there are no clips to search")
    return mss_index.MssIndex(bank.close(), coarse.close())
