from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.model.tiny import PRIOR
from unmixer_core import config, proxy_clips
from unmixer_core.errors import StageError
from unmixer_core.features.frames import FeatureSpec, log_mel
from unmixer_core.features.store import FeatureTable, FeatureWriter
from unmixer_core.proxy.proxy import RackProxy
from unmixer_core.schema.patch import Patches

SPEC = FeatureSpec(44100, 2048, 1764, 32, 30.0, 18000.0, -80.0)
LIMITS = config.Render(min_loudness_lufs=-50.0, max_peak=8.0, max_redraws=20, shard_clips=500)
CPU = torch.device("cpu")


def plan(**changes: object) -> proxy_clips.Plan:
    settings = config.ProxyClips(
        seed=8, n_dry=3, n_nonlinear=0, n_full=5, batch=2, shard_clips=3
    ).model_copy(update=changes)
    return proxy_clips.Plan(settings, PRIOR, LIMITS, SPEC)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("proxy")
    RackProxy(22050, 0.5).save(folder)
    return folder


def test_shards_cover_every_patch_of_every_phase_once() -> None:
    found = [(s.phase, i) for s in plan().shards() for i in range(s.start, s.stop)]
    assert found == [("dry", i) for i in range(3)] + [("full", i) for i in range(5)]
    assert [s.number for s in plan().shards()] == [0, 1, 2]


def test_frames_are_those_of_the_proxys_sound(proxy: Path) -> None:
    twin, shard = RackProxy.load(proxy).eval(), plan().shards()[1]
    table, found = proxy_clips.frames_of(twin, shard, plan())
    with torch.inference_mode():
        sound = proxy_clips._played(twin, [table[i] for i in range(len(table))])
    expected = log_mel(sound, proxy_clips.at_rate(SPEC, 22050)).numpy()
    assert found.shape == (3, 2, 32, 12) and np.abs(found - expected).max() < 2e-3
    assert set(table.phase) == {"full"} and set(table.split) == {"train"}


def test_the_same_sound_has_the_same_frames_at_half_the_rate() -> None:
    rng, n = np.random.default_rng(0), 44100
    spectrum = np.fft.rfft(rng.normal(size=(2, n)))
    spectrum[:, int(0.2 * n) :] = 0.0  # nothing above 8.8 kHz
    whole = torch.from_numpy(np.fft.irfft(spectrum, n)).float()
    half = log_mel(whole[:, ::2].contiguous(), proxy_clips.at_rate(SPEC, 22050))
    full = log_mel(whole, SPEC)
    centres = 700.0 * (
        10
        ** (np.linspace(*(2595 * np.log10(1 + np.array([30.0, 18000.0]) / 700)), 34)[1:-1] / 2595)
        - 1
    )
    low = centres < 8000.0
    assert full.shape == half.shape
    assert (full - half)[:, low, 1:-1].abs().mean() < 0.02
    assert (half[:, centres > 12500.0] == -1.0).all()


def test_seeds_and_splits_make_different_patches(proxy: Path) -> None:
    twin = RackProxy.load(proxy).eval()
    shard = plan().shards()[0]
    first, again, other = (
        proxy_clips.frames_of(twin, shard, plan(seed=seed))[0] for seed in (8, 8, 9)
    )
    assert np.array_equal(first.knobs, again.knobs) and not np.array_equal(first.knobs, other.knobs)


def test_unusable_sounds_are_redrawn_and_a_hopeless_prior_is_named(proxy: Path) -> None:
    twin, shard = RackProxy.load(proxy).eval(), plan().shards()[0]
    usual, _ = proxy_clips.frames_of(twin, shard, plan())
    with torch.inference_mode():
        peaks = proxy_clips._played(twin, [usual[i] for i in range(len(usual))]).abs().amax((1, 2))
    strict = replace(
        plan(),
        limits=LIMITS.model_copy(update={"max_peak": float(peaks.max()) * 0.99, "max_redraws": 50}),
    )
    redrawn, _ = proxy_clips.frames_of(twin, shard, strict)
    loudest = int(peaks.argmax())
    assert not np.array_equal(redrawn.knobs[loudest], usual.knobs[loudest])
    assert sum(np.array_equal(a, b) for a, b in zip(redrawn.knobs, usual.knobs, strict=True)) >= 1
    silent = LIMITS.model_copy(update={"min_loudness_lufs": 90.0, "max_redraws": 1})
    hopeless = replace(plan(), limits=silent)
    with pytest.raises(StageError, match="silent or runaway"):
        proxy_clips.frames_of(twin, shard, hopeless)


def test_a_stopped_run_goes_on_and_equals_an_uninterrupted_one(proxy: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "a", tmp_path / "b"
    for folder in (whole, broken):
        folder.mkdir()
    assert {s.number for s in proxy_clips.make(proxy, plan(), whole, CPU, 1)} == {0, 1, 2}
    next(iter(proxy_clips.make(proxy, plan(), broken, CPU, 1)))
    kept = {path: path.stat().st_mtime_ns for path in broken.glob("*.npy")}
    assert len(kept) == 1
    assert len(list(proxy_clips.make(proxy, plan(), broken, CPU, 1))) == 3
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    for path in sorted(whole.iterdir()):
        assert path.read_bytes() == (broken / path.name).read_bytes(), path.name


def test_workers_make_what_one_process_makes_and_none_is_left(proxy: Path, tmp_path: Path) -> None:
    alone, together = tmp_path / "a", tmp_path / "b"
    for folder, workers in ((alone, 1), (together, 2)):
        folder.mkdir()
        list(proxy_clips.make(proxy, plan(), folder, CPU, workers))
    for shard in plan().shards():
        (table, found), (same_table, same) = (
            proxy_clips.read(alone, shard),
            proxy_clips.read(together, shard),
        )
        assert np.array_equal(table.knobs, same_table.knobs) and np.abs(found - same).max() < 5e-3
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if children.exists():
        names = [Path(f"/proc/{pid}/cmdline").read_text() for pid in children.read_text().split()]
        assert not any("spawn_main" in name for name in names)


def test_frames_join_the_hosts(proxy: Path, tmp_path: Path) -> None:
    twin, tables = RackProxy.load(proxy).eval(), []
    writer = FeatureWriter(tmp_path / "frames", SPEC)
    for shard in plan().shards():
        table, found = proxy_clips.frames_of(twin, shard, plan())
        writer.write(shard.number, found)
        tables.append(table)
    writer.finish(Patches.concat(tables))
    made = FeatureTable.open(tmp_path / "frames")
    both = made.joined(made)
    rows = [7, 3, 8, 15]  # shards of 3, 3 and 2 clips
    assert len(both) == 16 and torch.equal(both.batch(rows), made.batch([7, 3, 0, 7]))
    other = FeatureTable(made.patches, made.shards, replace(SPEC, n_mels=48))
    with pytest.raises(StageError, match="other settings"):
        made.joined(other)
