"""Rows on disk are the rows that were written, and reading them keeps nothing.

No memory, no open file.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.model import tiny
from unmixer_core.dataset import clips as dataset_clips
from unmixer_core.dataset import patch_table
from unmixer_core.dataset.patch_table import PatchTable
from unmixer_core.dataset.shards import Shard, ShardWriter
from unmixer_core.errors import StageError
from unmixer_core.features.frames import FeatureSpec
from unmixer_core.features.store import (
    TABLE,
    FeatureTable,
    FeatureWriter,
    FramesOnDemand,
    log_mel_of,
)
from unmixer_core.model.targets import Targets
from unmixer_core.rendering.clip_store import ClipStore
from unmixer_core.schema.patch import Patches
from unmixer_core.training.curriculum import PhaseData

SPEC = FeatureSpec(8000, 256, 160, 20, 30.0, 3900.0, -80.0)


@pytest.mark.parametrize("dtype", ["<f2", "<i2", [("a", "<f4", (3,)), ("b", "i1")]])
def test_rows_by_number_slice_and_list_are_numpys(tmp_path: Path, dtype: object) -> None:
    kind = np.dtype(dtype)  # type: ignore[call-overload]
    noise = np.random.default_rng(0).integers(0, 100, 40 * kind.itemsize, dtype=np.uint8)
    values = noise.view(kind).reshape((10, 4) if kind.names is None else 40)
    np.save(tmp_path / "x.npy", values)
    shard = Shard.open(tmp_path / "x.npy")
    assert len(shard) == len(values) and shard.dtype == kind
    for index in (
        3,
        -1,
        slice(2, 7),
        slice(None),
        slice(1, 9, 3),
        slice(None, None, -2),
        np.array([5, 0, 5]),
        np.array([], int),
    ):
        assert shard[index].tobytes() == values[index].tobytes()
    for row in (len(values), -len(values) - 1):
        with pytest.raises(IndexError):
            shard[row]


def test_a_truncated_or_missing_shard_is_refused_when_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 5), np.float16))
    whole = (tmp_path / "x.npy").read_bytes()
    for data in (whole[:-1], b"torn", b""):
        (tmp_path / "x.npy").write_bytes(data)
        with pytest.raises(ValueError):
            Shard.open(tmp_path / "x.npy")
    with pytest.raises(OSError):
        Shard.open(tmp_path / "none.npy")
    np.save(tmp_path / "x.npy", np.asfortranarray(np.zeros((4, 5))))
    with pytest.raises(ValueError):
        Shard.open(tmp_path / "x.npy")


def test_a_shard_that_grows_is_an_npy_file_whatever_its_length(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for blocks in ([], [0], [3], [1, 2000, 1]):
        writer, kept = ShardWriter(tmp_path / "x.npy", (2,), np.int16), [np.zeros((0, 2), np.int16)]
        for count in blocks:
            kept.append(rng.integers(-9, 9, (count, 2)).astype(np.int16))
            writer.add(kept[-1])
        assert not (tmp_path / "y.npy").exists()
        assert np.array_equal(writer.close()[:], np.concatenate(kept))
        assert np.array_equal(np.load(tmp_path / "x.npy"), np.concatenate(kept))


def test_no_file_stays_open_and_threads_may_share_a_shard(tmp_path: Path) -> None:
    values = np.random.default_rng(2).random((64, 500))
    np.save(tmp_path / "x.npy", values)
    shards = [Shard.open(tmp_path / "x.npy") for _ in range(50)]
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    wrong: list[int] = []

    def read(seed: int) -> None:
        for row in np.random.default_rng(seed).integers(0, 64, 200).tolist():
            wrong.extend([row] * (not np.array_equal(shards[row % 50][row], values[row])))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert (len(os.listdir("/proc/self/fd")) if before else 0) == before


def test_a_table_on_disk_answers_what_patches_do(tmp_path: Path) -> None:
    table = tiny.patches(n_train=7, n_valid=3)
    table.write(tmp_path / TABLE)
    patch_table.write(tmp_path, tmp_path / TABLE)
    rows = np.array([4, 0, 17, 4])
    for found in (PatchTable.open(tmp_path), PatchTable.of(table)):
        assert len(found) == len(table)
        for where in (
            {},
            {"phase": "full"},
            {"split": "valid"},
            {"phase": "dry", "split": "train"},
        ):
            assert np.array_equal(found.where(**where), table.where(**where))
        for index in (rows, slice(None), slice(3, 9)):
            mine, theirs = found.select(index), table.select(index)
            assert all(
                np.array_equal(getattr(mine, n), getattr(theirs, n))
                for n in Patches.__dataclass_fields__
            )
            assert (
                mine.knobs.dtype == theirs.knobs.dtype
                and mine.choices.dtype == theirs.choices.dtype
            )
        assert found[5].digest == table[5].digest
        both = found.joined(PatchTable.of(table.select(rows)))
        assert both[len(table) + 2].digest == table[17].digest and len(both) == len(table) + 4


def test_a_table_of_other_controls_or_lengths_is_refused(tmp_path: Path) -> None:
    table = tiny.patches(n_train=2, n_valid=1)
    writer = FeatureWriter(tmp_path, SPEC)
    writer.write(0, np.zeros((len(table), 2, 20, 5), np.float16))
    writer.finish(table)
    assert len(FeatureTable.open(tmp_path)) == len(table)
    for name, data in (
        (patch_table.PLACES, np.zeros((2, 2), np.int8)),
        (patch_table.RECORDS, np.zeros(9, "i4")),
    ):
        kept = (tmp_path / name).read_bytes()
        np.save(tmp_path / name, data)
        with pytest.raises(StageError, match="incomplete.*extract_features"):
            FeatureTable.open(tmp_path)
        (tmp_path / name).write_bytes(kept)


@pytest.fixture
def renders(tmp_path: Path) -> tuple[Path, Patches]:
    """Nine clips in shards of four, of noise at different levels."""
    table = tiny.patches(n_train=2, n_valid=1)
    store, rng = ClipStore(tmp_path / "state", len(table), 4, 4000, 8000), np.random.default_rng(3)
    for row in range(len(table)):
        clip = (rng.standard_normal((2, 4000)) * 0.1 * (row + 1)).astype(np.float32)
        store.put(row, 0, table[row].digest, clip, -20.0)
    store.publish(tmp_path / "renders", table)
    return tmp_path / "renders", table


def test_frames_made_on_the_fly_are_those_that_would_have_been_stored(
    tmp_path: Path, renders: tuple[Path, Patches]
) -> None:
    folder, table = renders
    clips = dataset_clips.Clips.open(folder)
    stored, heard = (
        FeatureWriter(tmp_path / "stored", SPEC),
        FeatureWriter(tmp_path / "heard", SPEC, store=False),
    )
    for shard in range(len(clips.shards)):
        stored.write(shard, log_mel_of(clips, clips.shard_rows(shard), SPEC))
    stored.finish(folder / TABLE)
    heard.finish(folder / TABLE)
    assert not list((tmp_path / "heard").glob("shard-*"))
    one, two = FeatureTable.open(tmp_path / "stored"), FeatureTable.open(tmp_path / "heard", folder)
    rows = np.array([8, 0, 3, 4, 3])
    assert torch.equal(one.batch(rows), two.batch(rows)) and len(one) == len(two) == len(table)
    assert isinstance(two.shards[0], FramesOnDemand)
    more = FeatureTable(
        table.select(rows), (np.full((5, *one.batch([0]).shape[1:]), 0.5, np.float16),), SPEC
    )
    mixed = np.array([10, 2, 13, 7])
    assert torch.equal(one.joined(more).batch(mixed), two.joined(more).batch(mixed))
    assert (two.joined(more).batch(mixed)[[0, 2]] == 0.5).all()
    with pytest.raises(StageError, match="not stored"):
        FeatureTable.open(tmp_path / "heard")


def test_targets_read_batch_by_batch_are_those_of_the_whole_table(tmp_path: Path) -> None:
    data = tiny.with_proxy()
    rows = np.random.default_rng(1).permutation(len(data.features))[:17]
    whole = Targets.of(data.features.patches.select(slice(None)))[torch.as_tensor(rows)]
    found = data.targets(rows)
    for name in Targets.__dataclass_fields__:
        assert (
            torch.equal(getattr(found, name), getattr(whole, name))
            and getattr(found, name).is_contiguous()
        )
    assert isinstance(data, PhaseData)
