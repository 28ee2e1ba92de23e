"""The compared methods, on a proxy and a host whose sound is linear in two knobs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from tests.inference.test_finetune import RATE, LinearProxy, patch
from unmixer_core.comparison import entry, methods
from unmixer_core.comparison.resources import BenchmarkResources
from unmixer_core.inference import finetune
from unmixer_core.schema import chain as chains
from unmixer_core.schema.patch import Patch
from unmixer_core.scoring.targets import ScoreTarget


class LinearHost:
    """The proxy's sound, as a host that counts its renders."""

    def __init__(self) -> None:
        self.proxy = LinearProxy()
        self.renders = 0

    def render(self, patches: list[Patch]) -> list[np.ndarray]:
        self.renders += len(patches)
        batch = finetune.batch(patches)
        with torch.no_grad():
            return list(batch.render(self.proxy, batch.knobs, 0.5).numpy())


def test_every_method_has_one_entry_in_order_with_its_renders(
    resources: BenchmarkResources, target: ScoreTarget
) -> None:
    entries = methods.run_methods(resources, target)
    assert tuple(one.method for one in entries) == entry.METHODS
    renders = {one.method: one.renders for one in entries}
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


def test_only_the_wanted_methods_have_entries(
    resources: BenchmarkResources, target: ScoreTarget
) -> None:
    for rows in ({"nearest", "unmix"}, {"no_itf"}, {"unmix", "cma_unmix_seconds"}):
        entries = methods.run_methods(replace(resources, methods=rows), target)
        assert {one.method for one in entries} == rows


def test_cma_gets_the_seconds_of_its_rival(
    resources: BenchmarkResources, target: ScoreTarget
) -> None:
    """One search serves every budget: later renders do not count."""
    entries = {one.method: one for one in methods.run_methods(resources, target)}
    for row, rival in (("cma_equal_seconds", "itf_verify"), ("cma_unmix_seconds", "unmix")):
        first_s = entries[row].curve[0][1]  # the start is rendered, however small the budget
        assert entries[row].seconds <= max(entries[rival].seconds, first_s)


def test_the_host_chooses_the_step_of_the_tuned_encoder(
    resources: BenchmarkResources, target: ScoreTarget
) -> None:
    tuned = methods.run_methods(replace(resources, methods={"encoder_itf"}), target)[0]
    assert np.array_equal(tuned.patch.knobs, patch(0.65, 0.35).knobs)


def test_rows_count_the_audible_pairs_of_the_true_chain(
    resources: BenchmarkResources, target: ScoreTarget
) -> None:
    """Two effects of which one is not linear make one pair; it is right in that order alone."""
    true = replace(
        target, patch=replace(target.patch, chain=chains.encode(["Saturator", "Reverb"]))
    )
    sound = target.audio
    entries = [
        entry.Entry(name, replace(target.patch, chain=chains.encode(names)), sound, 1.0, 1)
        for name, names in {
            "a": ["Saturator", "Reverb"],
            "b": ["Reverb", "Saturator"],
            "c": ["Reverb"],
        }.items()
    ]
    lines = entry.table_rows(entries, true, RATE)
    assert [(line["pairs_right"], line["pairs"]) for line in lines] == [(1, 1), (0, 1), (0, 1)]


def test_the_host_decides_so_verification_is_never_worse(
    resources: BenchmarkResources, target: ScoreTarget
) -> None:
    found = {
        line["row"]: line["mss_db"]
        for line in entry.table_rows(methods.run_methods(resources, target), target, RATE)
    }
    assert found["no_itf_verify"] <= found["no_itf"]
    assert found["itf_verify"] <= min(found["no_itf_verify"], found["itf"]) + 1e-6
    assert (
        found["itf"] < 0.5 * found["no_itf"]
    )  # the proxy is the host here, so refinement finds the target


def test_only_the_candidates_that_the_proxy_ranks_first_are_refined(
    resources: BenchmarkResources, target: ScoreTarget
) -> None:
    first = methods.run_methods(resources, target)[2]
    best = resources.host.render([patch(0.6, 0.4)])[0]
    assert first.method == "no_itf" and np.array_equal(first.audio, best)
