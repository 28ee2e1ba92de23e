"""A patch (one sound's settings and the note that plays it) and a table of them, stored as
parquet with the schema digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unmixer_core.errors import SchemaMismatch, StageError
from unmixer_core.schema import chain as chains
from unmixer_core.schema.rack import RACK
from unmixer_core.system.files import replacing
from unmixer_core.system.json_types import Json, JsonView

FloatArray = NDArray[np.float32]
PHASES = ("dry", "nonlinear", "full")
SPLITS = ("train", "valid", "test")
ROW_GROUP = 65536
REBUILD = "dvc repro --force sample_patches render_patches"


@dataclass(frozen=True, eq=False)
class Patch:
    """One sound's settings and the note that plays it.

    knobs float32 [K] in unit, choices int64 [C] item indices, chain int8 [MAX_EFFECTS] effect ids
    (−1 padded), MIDI note, gate in seconds.
    """

    knobs: FloatArray
    choices: NDArray[np.int64]
    chain: NDArray[np.int8]
    note: int = 48
    gate_s: float = 1.0

    @classmethod
    def init(cls, note: int = 48, gate_s: float = 1.0, effects: Sequence[str] = ()) -> Patch:
        """Every control at its default."""
        return cls(
            RACK.knob_defaults.copy(),
            RACK.choice_defaults.copy(),
            chains.encode(effects),
            note,
            gate_s,
        )

    @property
    def effects(self) -> tuple[str, ...]:
        """Effect names in order."""
        return chains.decode(self.chain)

    @property
    def active_knobs(self) -> NDArray[np.bool_]:
        """Mask [K] of the knobs that can be heard."""
        return RACK.active(self.choices, self.chain, self.knobs)[0]

    def canonical(self) -> Patch:
        """The same sound with every control that cannot be heard at its default, integers
        rounded to a step.
        """
        knob_mask, choice_mask = RACK.active(self.choices, self.chain, self.knobs)
        knobs = np.where(knob_mask, np.clip(self.knobs, 0.0, 1.0), RACK.knob_defaults).astype(
            np.float32
        )
        for i, ref in enumerate(RACK.knobs):
            if ref.knob.integer:
                knobs[i] = ref.knob.to_unit(ref.knob.to_raw(float(knobs[i])))
        choices = np.where(choice_mask, self.choices, RACK.choice_defaults)
        return replace(self, knobs=knobs, choices=choices, chain=self.chain.astype(np.int8))

    @property
    def digest(self) -> str:
        """16 hex digits, equal for patches that sound the same by construction.

        Gate is compared in whole milliseconds.
        """
        same = self.canonical()
        timing = np.array([self.note, round(self.gate_s * 1000)], dtype=np.int64)
        parts = (
            same.knobs.tobytes(),
            same.choices.astype(np.int64).tobytes(),
            same.chain.tobytes(),
            timing.tobytes(),
        )
        return hashlib.sha256(RACK.digest.encode() + b"".join(parts)).hexdigest()[:16]

    def knob(self, key: str) -> float:
        """Unit value of a knob by id ("saturator.drive")."""
        return float(self.knobs[RACK.knob_index[key]])

    def item(self, key: str) -> str:
        """Item name of a choice by id ("wavetable.filter_1_type")."""
        index = RACK.choice_index[key]
        return RACK.choices[index].choice.items[int(self.choices[index])]

    def with_values(self, values: Mapping[str, float | str]) -> Patch:
        """A copy with some controls set: knob ids take unit values, choice ids take item names.

        Raises KeyError if unknown.
        """
        knobs, choices = self.knobs.copy(), self.choices.copy()
        for key, value in values.items():
            if isinstance(value, str):
                column = RACK.choice_index[key]
                choices[column] = RACK.choices[column].choice.index_of(value)
            else:
                knobs[RACK.knob_index[key]] = value
        return replace(self, knobs=knobs, choices=choices)

    def to_dict(self) -> Json:
        """What a person reads and a file keeps.

        Devices in order, each value in physical, raw and unit.
        """
        devices = [RACK.synth, *(RACK.effects[code] for code in self.chain if code != chains.END)]
        knob_mask, choice_mask = RACK.active(self.choices, self.chain, self.knobs)
        described = []
        for device in devices:
            knobs = {}
            for knob in device.knobs:
                column = RACK.knob_index[f"{device.key}.{knob.key}"]
                unit = float(self.knobs[column])
                knobs[knob.key] = {
                    "name": knob.name,
                    "physical": float(knob.to_physical(unit)),
                    "physical_unit": knob.unit,
                    "raw": float(knob.to_raw(unit)),
                    "unit": unit,
                    "active": bool(knob_mask[column]),
                }
            choices = {}
            for choice in device.choices:
                column = RACK.choice_index[f"{device.key}.{choice.key}"]
                choices[choice.key] = {
                    "name": choice.name,
                    "item": choice.items[int(self.choices[column])],
                    "active": bool(choice_mask[column]),
                }
            described.append(
                {"device": device.name, "key": device.key, "knobs": knobs, "choices": choices}
            )
        return {
            "schema": RACK.digest,
            "note": int(self.note),
            "gate_s": float(self.gate_s),
            "chain": list(self.effects),
            "devices": described,
        }

    @classmethod
    def from_dict(cls, data: JsonView) -> Patch:
        """The inverse of to_dict; controls that are not given keep their default.

        Raises SchemaMismatch, ValueError.
        """
        if data.get("schema") not in (None, RACK.digest):
            raise SchemaMismatch("the patch", str(data["schema"]), RACK.digest, "unmix")
        patch = cls.init(int(data["note"]), float(data["gate_s"]), data["chain"])
        values: dict[str, float | str] = {}
        for device in data["devices"]:
            values |= {
                f"{device['key']}.{key}": float(entry["unit"])
                for key, entry in device["knobs"].items()
            }
            values |= {
                f"{device['key']}.{key}": str(entry["item"])
                for key, entry in device["choices"].items()
            }
        return patch.with_values(values)


@dataclass(frozen=True, eq=False)
class Patches:
    """A table of n patches: the fields of Patch with a leading n, and where each belongs."""

    knobs: FloatArray
    choices: NDArray[np.int64]
    chain: NDArray[np.int8]
    note: NDArray[np.int64]
    gate_s: FloatArray
    id: NDArray[np.int64]
    phase: NDArray[np.str_]
    split: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.id)

    def __getitem__(self, index: int) -> Patch:
        row = int(index)
        return Patch(
            self.knobs[row],
            self.choices[row],
            self.chain[row],
            int(self.note[row]),
            float(self.gate_s[row]),
        )

    def __iter__(self) -> Iterator[Patch]:
        return (self[i] for i in range(len(self)))

    def select(self, which: NDArray[Any] | slice) -> Patches:
        """Rows by mask, index array or slice."""
        return Patches(*(getattr(self, f.name)[which] for f in fields(self)))

    def where(self, *, phase: str | None = None, split: str | None = None) -> NDArray[np.int64]:
        """Row numbers of a phase and/or split."""
        mask = np.ones(len(self), dtype=bool)
        if phase is not None:
            mask &= self.phase == phase
        if split is not None:
            mask &= self.split == split
        return np.flatnonzero(mask)

    @classmethod
    def stack(cls, patches: Sequence[Patch], phase: str, split: str, first_id: int = 0) -> Patches:
        """Single patches → table, ids counted from `first_id`."""
        n = len(patches)
        return cls(
            np.array([p.knobs for p in patches], dtype=np.float32).reshape(n, RACK.n_knobs),
            np.array([p.choices for p in patches], dtype=np.int64).reshape(n, RACK.n_choices),
            np.array([p.chain for p in patches], dtype=np.int8).reshape(n, chains.MAX_EFFECTS),
            np.array([p.note for p in patches], dtype=np.int64),
            np.array([p.gate_s for p in patches], dtype=np.float32),
            np.arange(first_id, first_id + n, dtype=np.int64),
            np.full(n, phase),
            np.full(n, split),
        )

    @classmethod
    def concat(cls, tables: Sequence[Patches]) -> Patches:
        """The rows of all tables in order; ids stay as they are."""
        return cls(*(np.concatenate([getattr(t, f.name) for t in tables]) for f in fields(cls)))

    def write(self, path: Path) -> None:
        """Parquet: one column per control id, one per chain slot; the digest in the metadata.

        Written then moved.
        """
        columns: Json = {
            "id": self.id,
            "phase": self.phase.tolist(),
            "split": self.split.tolist(),
        }
        columns |= {"note": self.note, "gate_s": self.gate_s}
        columns |= {f"chain_{i}": self.chain[:, i] for i in range(chains.MAX_EFFECTS)}
        columns |= {ref.id: self.choices[:, i] for i, ref in enumerate(RACK.choices)}
        columns |= {ref.id: self.knobs[:, i] for i, ref in enumerate(RACK.knobs)}
        table = pa.table(columns).replace_schema_metadata({"schema_digest": RACK.digest})
        with replacing(path) as temporary:
            pq.write_table(table, temporary, row_group_size=ROW_GROUP)

    @classmethod
    def read(cls, path: Path) -> Patches:
        """Raises StageError when missing or unreadable, SchemaMismatch when made with another
        list of controls.
        """
        with _opened(path) as file:
            return _from_arrow(_reading(path, file.read))

    @classmethod
    def stream(cls, path: Path, rows: int = 4096) -> Iterator[Patches]:
        """The same table, `rows` at a time, without holding the whole of it; raises as `read`."""
        with _opened(path) as file:
            batches = file.iter_batches(rows)
            while (batch := _reading(path, lambda: next(batches, None))) is not None:
                yield _from_arrow(pa.Table.from_batches([batch]))

    @staticmethod
    def count(path: Path) -> int:
        """Rows of a table, by its footer alone; raises as `read`."""
        with _opened(path) as file:
            return int(file.metadata.num_rows)


def _opened(path: Path) -> pq.ParquetFile:
    """A patch table of this schema, opened."""
    if not path.exists():
        raise StageError(f"there is no patch table at {path}; run `dvc repro sample_patches`.")
    file = _reading(path, lambda: pq.ParquetFile(path))
    found = (file.schema_arrow.metadata or {}).get(b"schema_digest", b"").decode()
    if found != RACK.digest:
        raise SchemaMismatch(str(path), found, RACK.digest, REBUILD)
    return file


def _reading(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (pa.ArrowInvalid, OSError) as error:
        raise StageError(
            f"the patch table {path} cannot be read ({error}); run `{REBUILD}`."
        ) from error


def _from_arrow(table: pa.Table) -> Patches:
    get = {name: table.column(name).to_numpy(zero_copy_only=False) for name in table.column_names}
    return Patches(
        np.stack([get[ref.id] for ref in RACK.knobs], axis=1).astype(np.float32),
        np.stack([get[ref.id] for ref in RACK.choices], axis=1).astype(np.int64),
        np.stack([get[f"chain_{i}"] for i in range(chains.MAX_EFFECTS)], axis=1).astype(np.int8),
        get["note"].astype(np.int64),
        get["gate_s"].astype(np.float32),
        get["id"].astype(np.int64),
        get["phase"].astype(str),
        get["split"].astype(str),
    )
