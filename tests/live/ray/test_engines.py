"""One contract, two engines: the same patches, the same sound, every patch exactly once, whatever
is killed meanwhile.

Real hosts, real actors, `kill -9`. The Ray half needs Ray (requirements-scale.txt) and is skipped
without it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.host.ray_cluster import actors, free_port, head, hosts
from unmixer_core import errors
from unmixer_core.live.host import RenderFailure
from unmixer_core.live.renderer import Renderer
from unmixer_core.rendering.clip_store import ClipStore
from unmixer_core.rendering.render_job import RenderJob, host_digest
from unmixer_core.schema.patch import Patch, Patches

pytestmark = pytest.mark.skipif(
    find_spec("vita") is None, reason="the embedded host sounds through vita"
)
AUDIO = SimpleNamespace(sample_rate=44100, clip_s=0.5, velocity=100)
RENDER = SimpleNamespace(min_loudness_lufs=-200.0, max_peak=100.0, max_redraws=0)
ENGINES = [
    "local",
    pytest.param(
        "ray", marks=pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
    ),
]
needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed (requirements-scale.txt)"
)


def patches(n: int) -> list[Patch]:
    chains = [[], ["Saturator"], ["Saturator", "Delay"], ["Delay", "Saturator"]]
    return [
        Patch.init(40 + i, 0.1, chains[i % 4]).with_values({"saturator.drive": 0.9})
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def right() -> list[np.ndarray]:
    with Renderer(AUDIO, 1, engine="local") as renderer:
        return renderer.render(patches(12))


@pytest.fixture(scope="module", params=ENGINES)
def renderer(request):
    """Two hosts of each engine."""
    with Renderer(AUDIO, 2, engine=request.param) as started:
        yield started


def alike(outcomes, right) -> bool:
    return all(np.array_equal(clip, wanted) for clip, wanted in zip(outcomes, right, strict=True))


def test_the_sound_is_the_same_on_both(renderer, right):
    assert alike(renderer.render(patches(12)), right)
    assert alike(renderer.render(patches(12)[::-1])[::-1], right)  # and repeatable


def test_map_may_be_left_early_and_goes_on(renderer, right):
    for index, clip in renderer.map(patches(12)):
        assert np.array_equal(clip, right[index])
        break
    assert alike(renderer.render(patches(3)), right[:3])


def test_a_killed_host_costs_no_patch(renderer, right, tmp_path):
    counts = fill(tmp_path, renderer, right, after_two=lambda: hosts()[-1].kill())
    assert counts == once(12)


@needs_ray
def test_a_killed_actor_costs_no_patch(right, tmp_path, caplog):
    others = actors()  # of the module's renderer
    with Renderer(AUDIO, 2, engine="ray") as renderer:
        victim = next(actor for actor in actors() if actor not in others)
        counts = fill(tmp_path, renderer, right, after_two=victim.kill)
    assert counts == once(12)
    assert (
        "the Ray actor of embedded host" in caplog.text
        and f"(process {victim.pid}) died" in caplog.text
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_a_patch_that_kills_its_hosts_is_put_aside(engine, right):
    wanted = patches(6)
    deadly = ["--fault", f"crash:note={wanted[2].note}"]
    with Renderer(AUDIO, 2, engine=engine, host_options=deadly) as renderer:
        outcomes = renderer.render(wanted)
    killer = outcomes.pop(2)
    assert (
        isinstance(killer, RenderFailure)
        and "all 3 tries failed" in str(killer)
        and "signal 9" in str(killer)
    )
    assert alike(outcomes, [*right[:2], *right[3:6]])


@needs_ray
def test_a_killed_head_ends_in_a_sentence_and_the_next_run_goes_on(right, tmp_path, monkeypatch):
    """The second half runs on the local engine.

    What is finished is filed by patch, not by who rendered it.
    """
    before = host_digest()
    with head(cores=2) as cluster:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        with pytest.raises(errors.HostError) as told, Renderer(AUDIO, 2, engine="ray") as renderer:
            fill(tmp_path, renderer, right, after_two=cluster.kill)
    words = str(told.value)
    assert (
        f"no Ray cluster answers at RAY_ADDRESS '{cluster.address}'" in words
        and "`ray start --head" in words
    )
    assert "of 12 clips are finished and kept, `dvc repro` goes on." in words
    kept = journal(tmp_path)
    assert kept and max(kept.values()) == 1
    assert host_digest() == before
    with Renderer(AUDIO, 2, engine="local") as renderer:
        assert fill(tmp_path, renderer, right) == once(12)


@needs_ray
def test_no_cluster_at_the_address_is_a_sentence(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    with pytest.raises(
        errors.HostError,
        match="no Ray cluster answers at RAY_ADDRESS .* start it with `ray start --head",
    ):
        with Renderer(AUDIO, 1, engine="ray"):
            pass


def test_without_ray_the_engine_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("unmixer_core.live.ray.engine.find_spec", lambda _: None)
    with (
        pytest.raises(errors.HostError, match="pip install -r requirements-scale.txt"),
        Renderer(AUDIO, 1, engine="ray"),
    ):
        pass


def test_an_unknown_engine_is_a_sentence(monkeypatch):
    monkeypatch.setenv("UNMIXER_RENDER", "dask")
    with pytest.raises(
        errors.ConfigError, match="UNMIXER_RENDER is 'dask', but local or ray is expected"
    ):
        Renderer(AUDIO, 1)


def test_the_local_engine_never_imports_ray():
    code = (
        "import sys, stages.render_patches, unmixer_core.live.push; sys.exit('ray' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[3]
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=root, env={**os.environ, "UNMIXER_RENDER": "local"}
        ).returncode
        == 0
    )


# -- a data set, and what is counted -----------------------------------------------------------


def fill(folder: Path, renderer: Renderer, right, after_two=None) -> Counter[int]:
    """Renders the table into the store of `folder`, on from where an earlier call stopped.

    How often each row was stored.
    """
    table = Patches.stack(patches(12), "full", "train")
    store = ClipStore(
        folder / "clips", 12, 5, round(AUDIO.clip_s * AUDIO.sample_rate), AUDIO.sample_rate
    )
    job = RenderJob(table, renderer, store, SimpleNamespace(), RENDER)
    for n, row in enumerate(job.run()):
        peak = np.abs(store._row(row).astype(np.float64)).max()
        stored = store._row(row).astype(np.float64) / peak
        np.testing.assert_allclose(stored, right[row] / np.abs(right[row]).max(), atol=1e-3)
        if n == 1 and after_two is not None:
            after_two()
    return journal(folder)


def journal(folder: Path) -> Counter[int]:
    lines = (folder / "clips" / "journal.jsonl").read_text().splitlines()
    return Counter(json.loads(line)["index"] for line in lines)


def once(n: int) -> Counter[int]:
    return Counter(range(n))
