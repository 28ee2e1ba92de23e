"""Rows of .npy files, read one by one: a data set of any size costs its readers no memory.

A memory map would count every page that was ever touched as the process's own, and keeps a file
open; a shuffled epoch over a thousand shards does both. Here a row is one `pread`, the system's
page cache does the caching, and nothing stays open (so processes and threads share a `Shard` as it
is).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = b"\x93NUMPY\x02\x00"
HEADER_ROOM = 64  # for the prefix and for a row count that grows
Index = int | np.integer | slice | NDArray[np.integer]


@dataclass(frozen=True)
class Shard:
    """The array [n, ...] of an .npy file.

    `len`, and rows by number, slice or index array, read when asked for.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int

    @classmethod
    def open(cls, path: Path) -> Shard:
        """Reads the header alone.

        Raises OSError when missing, ValueError when no whole array in C order.
        """
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = read(file)
            start = file.tell()
        size, expected = path.stat().st_size, start + prod(shape) * dtype.itemsize
        if fortran or not shape or size < expected:
            raise ValueError(f"{path.name} holds {size} bytes of {expected}")
        return cls(path, shape, dtype, start)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Index) -> NDArray[Any]:
        """One row [...], or rows [k, ...].

        Raises IndexError when there is no such row, OSError when it cannot be read.
        """
        if isinstance(rows, slice):
            first, stop, step = rows.indices(len(self))
            return (
                self._read(first, max(stop - first, 0))[::step]
                if step > 0
                else self[np.arange(len(self))[rows]]
            )
        if isinstance(rows, (int, np.integer)):
            return self._read(int(rows), 1)[0]
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for place, row in enumerate(np.asarray(rows).tolist()):
            found[place] = self._read(row, 1)[0]
        return found

    def _read(self, first: int, count: int) -> NDArray[Any]:
        first += len(self) if first < 0 else 0
        if count and not 0 <= first <= len(self) - count:
            raise IndexError(f"rows {first} to {first + count} of {len(self)} in {self.path}")
        width = prod(self.shape[1:]) * self.dtype.itemsize
        data = bytearray(count * width)
        with self.path.open("rb", buffering=0) as file:
            done = (
                os.preadv(file.fileno(), [data], self.start + first * width)
                if hasattr(os, "preadv")
                else -1
            )
            if done != len(data):  # cut short by the system, or none of it (Windows)
                file.seek(self.start + first * width)
                data = bytearray(_exactly(file, len(data), self.path))
        return np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])


def _exactly(file: Any, size: int, path: Path) -> bytes:
    parts, left = [], size
    while left:
        part = file.read(left)
        if not part:
            raise OSError(f"{path} ended {left} bytes early")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


class ShardWriter:
    """An .npy file [n, ...] that grows by blocks.

    `close` writes its final length and gives the `Shard`.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any] | type) -> None:
        """shape: of one row."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.shape, self.dtype, self.count = path, shape, np.dtype(dtype), 0
        self._size = -(-(len(self._words()) + HEADER_ROOM) // 64) * 64
        self._file = path.with_suffix(".tmp").open("wb")
        self._file.write(self._header())

    def _words(self) -> str:
        descr, shape = np.lib.format.dtype_to_descr(self.dtype), (self.count, *self.shape)
        return repr({"descr": descr, "fortran_order": False, "shape": shape})

    def _header(self) -> bytes:
        """As NumPy's format version 2.0 has it, of a fixed size whatever the number of rows."""
        length = self._size - len(MAGIC) - 4
        return (
            MAGIC
            + length.to_bytes(4, "little")
            + self._words().ljust(length - 1).encode("latin1")
            + b"\n"
        )

    def add(self, rows: NDArray[Any]) -> None:
        """Append rows [k, ...]."""
        self._file.write(np.ascontiguousarray(rows, self.dtype).tobytes())
        self.count += len(rows)

    def close(self) -> Shard:
        """Finish the file under its name."""
        header = self._header()
        self._file.seek(0)
        self._file.write(header)
        self._file.close()
        os.replace(self._file.name, self.path)
        return Shard.open(self.path)
