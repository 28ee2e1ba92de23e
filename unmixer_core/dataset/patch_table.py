"""A patch table on disk that is read row by row, so that a million clips cost a trainer two bytes
each.

`patches.npy` holds one record a patch and `places.npy` its phase and split as two bytes; both are
made from the parquet table, which stays the file that people and other programs read. A
`PatchTable` answers what `Patches` does: `where`, `select`, `table[i]`, and whole columns for those
who can afford them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmixer_core.dataset.shards import Shard, ShardWriter
from unmixer_core.schema import chain as chains
from unmixer_core.schema.patch import PHASES, SPLITS, Patch, Patches
from unmixer_core.schema.rack import RACK
from unmixer_core.system.json_types import Json

BLOCK = 4096
RECORDS, PLACES = "patches.npy", "places.npy"
RECORD = np.dtype(
    [
        ("knobs", "<f4", (RACK.n_knobs,)),
        ("choices", "<i2", (RACK.n_choices,)),
        ("chain", "i1", (chains.MAX_EFFECTS,)),
        ("note", "<i2"),
        ("gate_s", "<f4"),
        ("id", "<i8"),
    ]
)


@dataclass(frozen=True)
class PatchTable:
    """n patches: their records in parts (on disk or in memory), and places int8 [n, 2].

    Phase and split of each.
    """

    parts: tuple[Shard | NDArray[np.void], ...]
    places: NDArray[np.int8]

    @classmethod
    def of(cls, patches: Patches) -> PatchTable:
        """The same in memory."""
        return cls((records_of(patches),), places_of(patches))

    @classmethod
    def open(cls, folder: Path) -> PatchTable:
        """Raises OSError, ValueError when the files are missing, truncated or of another schema."""
        records = Shard.open(folder / RECORDS)
        if records.dtype != RECORD:
            raise ValueError(f"{RECORDS} holds other controls")
        places = np.load(folder / PLACES)
        if len(places) != len(records):
            raise ValueError(f"{PLACES} holds {len(places)} rows of {len(records)}")
        return cls((records,), places)

    def __len__(self) -> int:
        return len(self.places)

    def where(self, *, phase: str | None = None, split: str | None = None) -> NDArray[np.int64]:
        """Row numbers of a phase and/or split."""
        mask = np.ones(len(self), dtype=bool)
        if phase is not None:
            mask &= self.places[:, 0] == PHASES.index(phase)
        if split is not None:
            mask &= self.places[:, 1] == SPLITS.index(split)
        return np.flatnonzero(mask)

    def select(self, rows: NDArray[np.integer] | Sequence[int] | slice) -> Patches:
        """Those rows, read."""
        wanted = (
            np.arange(len(self))[rows]
            if isinstance(rows, slice)
            else np.asarray(rows, dtype=np.int64)
        )
        starts = np.cumsum([0, *map(len, self.parts)])
        part = np.searchsorted(starts, wanted, side="right") - 1
        found = np.empty(len(wanted), RECORD)
        for number in np.unique(part).tolist():
            mine = part == number
            found[mine] = self.parts[number][wanted[mine] - starts[number]]
        return _patches(found, self.places[wanted])

    def _column(self, name: str) -> NDArray[Any]:
        """One field of all patches, read a few thousand rows at a time."""
        parts = [
            getattr(self.select(slice(i, i + BLOCK)), name)
            for i in range(0, max(len(self), 1), BLOCK)
        ]
        return np.concatenate(parts)

    @cached_property
    def id(self) -> NDArray[np.int64]:
        """[n]; this and the columns below are read as a whole when first asked for, and kept."""
        return self._column("id")

    @cached_property
    def note(self) -> NDArray[np.int64]:
        return self._column("note")

    @cached_property
    def gate_s(self) -> NDArray[np.float32]:
        return self._column("gate_s")

    @cached_property
    def chain(self) -> NDArray[np.int8]:
        return self._column("chain")

    @cached_property
    def choices(self) -> NDArray[np.int64]:
        return self._column("choices")

    @cached_property
    def knobs(self) -> NDArray[np.float32]:
        return self._column("knobs")

    @property
    def phase(self) -> NDArray[np.str_]:
        return np.array(PHASES)[self.places[:, 0]]

    @property
    def split(self) -> NDArray[np.str_]:
        return np.array(SPLITS)[self.places[:, 1]]

    def __getitem__(self, row: int) -> Patch:
        return self.select([int(row)])[0]

    def __iter__(self) -> Iterator[Patch]:
        return (self[row] for row in range(len(self)))

    def joined(self, more: PatchTable) -> PatchTable:
        """These rows, then those of `more`."""
        return PatchTable(self.parts + more.parts, np.concatenate([self.places, more.places]))


def write(folder: Path, source: Path) -> None:
    """A parquet table → the two files, a few thousand rows at a time.

    Raises StageError, SchemaMismatch as Patches.read.
    """
    records, places = (
        ShardWriter(folder / RECORDS, (), RECORD),
        ShardWriter(folder / PLACES, (2,), np.int8),
    )
    for patches in Patches.stream(source):
        records.add(records_of(patches))
        places.add(places_of(patches))
    records.close()
    places.close()


def records_of(patches: Patches) -> NDArray[np.void]:
    """Patches → RECORD [n]."""
    found = np.empty(len(patches), RECORD)
    for name in RECORD.names or ():
        found[name] = getattr(patches, name)
    return found


def places_of(patches: Patches) -> NDArray[np.int8]:
    """Phase and split as places in PHASES and SPLITS, int8 [n, 2]."""
    columns = [
        np.argmax(np.asarray(values)[:, None] == np.array(names), axis=1)
        for values, names in ((patches.phase, PHASES), (patches.split, SPLITS))
    ]
    return np.stack(columns, axis=1).astype(np.int8).reshape(-1, 2)


def _patches(records: NDArray[np.void], places: NDArray[np.int8]) -> Patches:
    columns: Json = {name: records[name].copy() for name in RECORD.names or ()}
    columns["choices"], columns["note"] = (
        columns["choices"].astype(np.int64),
        columns["note"].astype(np.int64),
    )
    return Patches(
        **columns, phase=np.array(PHASES)[places[:, 0]], split=np.array(SPLITS)[places[:, 1]]
    )
