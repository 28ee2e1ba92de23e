"""Exact nearest neighbours under MSS in a bank of feature vectors, in memory or on disk."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from unmixer_core.metrics.sound import RETRIEVAL_ROWS, Bank, mss_from_features

RETRIEVAL_BLOCK = 16
RETRIEVAL_READ = 256  # rows of a bank read at a time where it lies on disk


def stack_features(features: Iterable[NDArray[np.floating]]) -> NDArray[np.float16]:
    """Feature vectors of many sounds as one compact bank [n, features] for `mss_from_features`."""
    return np.stack([f.astype(np.float16) for f in features])


class MssIndex:
    """Exact nearest neighbours under MSS, without comparing the target with every clip of the bank.

    The distance of block averages bounds the distance from below (Jensen), so clips are compared in
    full in the order of that bound, until it exceeds the k-th best.
    """

    def __init__(self, bank: Bank, coarse: Bank | None = None) -> None:
        """bank: [n, features] from `stack_features`, coarse.

        Its `block_means` (made here if not given). Both may lie on disk and are then read a block
        at a time.
        """
        self.bank = bank
        parts = range(0, len(bank), RETRIEVAL_READ)
        self._coarse = (
            coarse
            if coarse is not None
            else np.concatenate([block_means(bank[i : i + RETRIEVAL_READ]) for i in parts])
        )

    def nearest(
        self, features: NDArray[np.floating], k: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows of the k nearest clips and their MSS in dB, nearest first."""
        sketch, parts = block_means(features[None])[0], range(0, len(self._coarse), RETRIEVAL_READ)
        bound = np.concatenate(
            [
                np.atleast_1d(mss_from_features(sketch, self._coarse[i : i + RETRIEVAL_READ]))
                for i in parts
            ]
        )
        order = np.argsort(bound, kind="stable")
        rows, distances_db = order[:0], np.empty(0, dtype=np.float32)
        for start in range(0, len(order), RETRIEVAL_ROWS):
            part = order[start : start + RETRIEVAL_ROWS]
            if len(rows) >= k and bound[part[0]] > distances_db[k - 1]:
                break
            rows = np.concatenate([rows, part])
            distances_db = np.concatenate(
                [distances_db, np.atleast_1d(mss_from_features(features, self.bank[part]))]
            )
            best = np.argsort(distances_db, kind="stable")[:k]
            rows, distances_db = rows[best], distances_db[best]
        return rows, distances_db


def block_means(features: NDArray[np.floating]) -> NDArray[np.float32]:
    """Means of RETRIEVAL_BLOCK neighbouring features [n, blocks], scaled so that their mean L1
    bounds the full one.
    """
    n, width = features.shape
    n_blocks = -(-width // RETRIEVAL_BLOCK)
    padded = np.zeros((n, n_blocks * RETRIEVAL_BLOCK), dtype=np.float32)
    padded[:, :width] = features
    return padded.reshape(n, n_blocks, -1).mean(2) * np.float32(padded.shape[1] / width)
