"""The ITF benchmark's bookkeeping, on a proxy and a host whose sound is linear in two knobs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.inference.test_finetune import RATE, LinearProxy, patch, settings
from unmixer_core.comparison import cma_es, methods
from unmixer_core.inference import finetune
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.schema import chain as chains
from unmixer_core.schema.patch import Patch, Patches
from unmixer_core.scoring.score import ScoreTarget


class LinearHost:
    """The proxy's sound, as a host that counts its renders."""

    def __init__(self) -> None:
        self.proxy, self.renders = LinearProxy(), 0

    def render(self, patches: list[Patch]) -> list[np.ndarray]:
        self.renders += len(patches)
        batch = finetune.batch(patches)
        with torch.no_grad():
            return list(batch.render(self.proxy, batch.knobs, 0.5).numpy())


class OneNeighbour:
    """Always clip 0."""

    def nearest(self, features: Any, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(k, dtype=np.int64), np.zeros(k)


@pytest.fixture()
def tools() -> methods.BenchmarkResources:
    host = LinearHost()
    known = Patches.stack([patch(0.9, 0.05)], "full", "train")
    clips = SimpleNamespace(patches=known, audio=lambda clip: host.render([known[clip]])[0])
    options = settings(
        steps=40,
        lr=0.2,
        clip_s=0.5,
        seeds=1,
        candidates=2,
        proposals=3,
        cma_population=4,
        cma_sigma=0.2,
        cma_max_seconds=1.0,
        seed=1,
    )

    def propose(target: ScoreTarget, seeds: list[Patch]) -> list[Patch]:
        return [patch(0.05, 0.9), patch(0.5, 0.5), patch(0.6, 0.4), *seeds]

    def tune(target: ScoreTarget, point: Patch) -> list[Patch]:
        return [point, patch(0.4, 0.6), patch(0.65, 0.35), patch(0.1, 0.1)]

    def search(target: ScoreTarget) -> cma_es.Found:
        found = patch(0.7, 0.31)
        return cma_es.Found(found, host.render([found])[0], 0.1, 7, 0.5, np.array([(7, 0.4, 0.1)]))

    return methods.BenchmarkResources(
        host, host.proxy, propose, tune, search, OneNeighbour(), clips, RATE, options
    )  # type: ignore[arg-type]


@pytest.fixture()
def target() -> ScoreTarget:
    sound = LinearHost().render([patch(0.7, 0.3)])[0]
    return ScoreTarget(
        5, 105, "full", patch(0.7, 0.3), sound, metrics_sound.mss_features(sound, RATE), True, True
    )


def test_every_contestant_enters_once_in_order_with_its_renders(
    tools: methods.BenchmarkResources, target: ScoreTarget
) -> None:
    entries = methods.compete(tools, target)
    assert tuple(entry.row for entry in entries) == methods.CONTESTANTS
    renders = {entry.row: entry.renders for entry in entries}
    assert (
        renders["no_itf"] == renders["itf"] == 1
        and renders["no_itf_verify"] == 2
        and renders["itf_verify"] == 4
    )
    assert (
        renders["cma_equal_renders"] == renders["itf_verify"]
        and renders["encoder_itf"] == 4
        and renders["unmix"] == 7
    )


def test_only_those_that_are_asked_compete(
    tools: methods.BenchmarkResources, target: ScoreTarget
) -> None:
    for rows in ({"nearest", "unmix"}, {"no_itf"}, {"unmix", "cma_unmix_seconds"}):
        entries = methods.compete(replace(tools, rows=rows), target)
        assert {entry.row for entry in entries} == rows


def test_cma_has_the_seconds_of_its_rival(
    tools: methods.BenchmarkResources, target: ScoreTarget
) -> None:
    """One search answers for every budget: what was heard later does not count."""
    entries = {entry.row: entry for entry in methods.compete(tools, target)}
    for row, rival in (("cma_equal_seconds", "itf_verify"), ("cma_unmix_seconds", "unmix")):
        first_s = entries[row].curve[0][1]  # the start is heard, however little time there is
        assert entries[row].seconds <= max(entries[rival].seconds, first_s)


def test_the_host_chooses_the_step_of_the_tuned_encoder(
    tools: methods.BenchmarkResources, target: ScoreTarget
) -> None:
    entry = methods.compete(replace(tools, rows={"encoder_itf"}), target)[0]
    assert np.array_equal(entry.patch.knobs, patch(0.65, 0.35).knobs)


def test_rows_count_the_audible_pairs_of_the_true_chain(
    tools: methods.BenchmarkResources, target: ScoreTarget
) -> None:
    """Two effects of which one is not linear make one pair; it is right in that order alone."""
    true = replace(
        target, patch=replace(target.patch, chain=chains.encode(["Saturator", "Reverb"]))
    )
    sound = target.audio
    entries = [
        methods.Entry(name, replace(target.patch, chain=chains.encode(names)), sound, 1.0, 1)
        for name, names in {
            "a": ["Saturator", "Reverb"],
            "b": ["Reverb", "Saturator"],
            "c": ["Reverb"],
        }.items()
    ]
    lines = methods.judged(entries, true, RATE)
    assert [(line["pairs_right"], line["pairs"]) for line in lines] == [(1, 1), (0, 1), (0, 1)]


def test_the_host_decides_so_verification_is_never_worse(
    tools: methods.BenchmarkResources, target: ScoreTarget
) -> None:
    found = {
        line["row"]: line["mss_db"]
        for line in methods.judged(methods.compete(tools, target), target, RATE)
    }
    assert found["no_itf_verify"] <= found["no_itf"]
    assert found["itf_verify"] <= min(found["no_itf_verify"], found["itf"]) + 1e-6
    assert (
        found["itf"] < 0.5 * found["no_itf"]
    )  # the proxy is the host here, so refinement finds the target


def test_only_the_candidates_that_the_proxy_ranks_first_are_refined(
    tools: methods.BenchmarkResources, target: ScoreTarget
) -> None:
    first = methods.compete(tools, target)[2]
    best = tools.renderer.render([patch(0.6, 0.4)])[0]
    assert first.row == "no_itf" and np.array_equal(first.audio, best)
