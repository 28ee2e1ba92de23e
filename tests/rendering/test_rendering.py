"""The render job: redraws, resumption, failures that keep what was finished."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unmixer_core import config
from unmixer_core.errors import StageError
from unmixer_core.live.host import RenderFailure
from unmixer_core.live.track.frozen import FrozenTrack
from unmixer_core.rendering.clip_store import ClipStore
from unmixer_core.rendering.render_job import RenderJob
from unmixer_core.sampling import draw, sample

RATE, SAMPLES = 8000, 8000
PARAMS = config.load(Path(__file__).resolve().parents[2] / "params.yaml")
SAMPLE = PARAMS.sample.model_copy(
    update={
        "seed": 1,
        "test_seed": 2,
        "chain_length_weights": (0.2, 0.4, 0.4),
        "order_audible_bias": 0.5,
        "p_osc_2": 0.3,
        "p_sub": 0.3,
        "p_filter": 0.7,
        "p_unison": 0.3,
        "p_effect_mode": 0.4,
        "p_modulation": 0.4,
        "p_stop": 0.0,
        "note_low": 36,
        "note_high": 72,
        "gate_low_s": 0.3,
        "gate_high_s": 1.0,
    }
)
RENDER = PARAMS.render.model_copy(
    update={"min_loudness_lufs": -50.0, "max_peak": 4.0, "max_redraws": 2}
)


class FakeHost:
    """Renders noise seeded by the patch digest; `spoil` maps a digest to what comes instead."""

    def __init__(self, spoil=None, stop_after=None):
        self.spoil, self.stop_after, self.rendered = spoil or {}, stop_after, []

    def map(self, patches):
        for i in reversed(range(len(patches))):  # out of order, as a pool of hosts is
            if self.stop_after is not None and len(self.rendered) >= self.stop_after:
                raise KeyboardInterrupt
            digest = patches[i].digest
            self.rendered.append(digest)
            noise = (
                np.random.default_rng(int(digest, 16))
                .uniform(-0.5, 0.5, (2, SAMPLES))
                .astype(np.float32)
            )
            yield i, self.spoil.get(digest, noise)


def _run(folder, table, host, name="state"):
    store = ClipStore(folder / name, len(table), 3, SAMPLES, RATE)
    job = RenderJob(table, host, store, SAMPLE, RENDER)
    finished = list(job.run())
    store.publish(folder / f"{name}_out", job.patches())
    return (
        job,
        finished,
        {p.name: p.read_bytes() for p in sorted((folder / f"{name}_out").iterdir())},
    )


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    table = sample(7, "full", "train", SAMPLE.seed, SAMPLE)
    _, _, whole = _run(tmp_path, table, FakeHost(), "whole")
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, table, FakeHost(stop_after=3), "torn")
    host = FakeHost()
    job, finished, resumed = _run(tmp_path, table, host, "torn")
    assert resumed == whole and job.tally.resumed == 3 and len(host.rendered) == 4
    assert sorted(finished) == list(range(7))


def test_two_kills_that_tear_the_journal_cost_the_torn_rows_alone(tmp_path):
    table = sample(7, "full", "train", SAMPLE.seed, SAMPLE)
    _, _, whole = _run(tmp_path, table, FakeHost(), "whole")
    journal = tmp_path / "torn" / "journal.jsonl"
    for stop_after in (
        3,
        2,
    ):  # of three finished the last is torn, then two more, the last of which is torn
        with pytest.raises(KeyboardInterrupt):
            _run(tmp_path, table, FakeHost(stop_after=stop_after), "torn")
        journal.write_bytes(journal.read_bytes()[:-20])
    host = FakeHost()
    job, _, resumed = _run(tmp_path, table, host, "torn")
    assert job.tally.resumed == 3 and len(host.rendered) == 4
    assert resumed == whole


def test_silent_and_clipped_renders_are_redrawn_counted_and_repeatable(tmp_path):
    table = sample(4, "full", "train", SAMPLE.seed, SAMPLE)
    spoil = {
        table[1].digest: np.zeros((2, SAMPLES), np.float32),
        table[2].digest: np.full((2, SAMPLES), np.nan, np.float32),
    }
    job, _, _ = _run(tmp_path, table, FakeHost(spoil))
    patches = job.patches()
    assert (job.tally.silent, job.tally.clipped) == (1, 1)
    assert patches[0].digest == table[0].digest
    assert patches[1].digest == draw("full", "train", 1, SAMPLE.seed, SAMPLE, attempt=1).digest


def test_always_silent_ends_in_a_sentence(tmp_path):
    table = sample(1, "dry", "train", SAMPLE.seed, SAMPLE)
    silence = np.zeros((2, SAMPLES), np.float32)
    host = FakeHost(
        {draw("dry", "train", 0, SAMPLE.seed, SAMPLE, attempt=a).digest: silence for a in range(4)}
    )
    with pytest.raises(StageError, match="silent or clipped after 2 redraws"):
        _run(tmp_path, table, host)


def test_a_failed_patch_is_named_and_the_rest_is_kept(tmp_path):
    table = sample(3, "dry", "train", SAMPLE.seed, SAMPLE)
    failure = RenderFailure(patch=table[1], reason="the host died")
    with pytest.raises(StageError, match="the host died"):
        _run(tmp_path, table, FakeHost({table[1].digest: failure}))
    assert len(ClipStore(tmp_path / "state", 3, 3, SAMPLES, RATE).rows) == 2


def test_what_a_host_cannot_set_is_in_the_patches_as_rendered_and_may_not_change_between_runs(
    tmp_path,
):
    table = sample(5, "full", "train", SAMPLE.seed, SAMPLE)
    items = {
        "wavetable.osc_1_wavetable": "Bell",
        "wavetable.osc_1_effect_mode": "None",
        "wavetable.unison_mode": "None",
    }
    host = FakeHost()
    host.frozen = FrozenTrack(items)
    job, _, _ = _run(tmp_path, table, host)
    assert all(patch.item("wavetable.osc_1_wavetable") == "Bell" for patch in job.patches())
    assert sorted(host.rendered) == sorted(patch.digest for patch in job.patches())
    host.frozen = FrozenTrack(items | {"wavetable.osc_1_wavetable": "Organ"})
    with pytest.raises(StageError, match="other frozen choices"):
        _run(tmp_path, table, host)
