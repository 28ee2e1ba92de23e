"""The gap report: a proxy that is the host has none, the floor is the host's own, groups are by
length and device.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from unmixer_core.evaluation import proxy_gap
from unmixer_core.metrics import sound
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK
from unmixer_core.scoring.targets import ScoreTarget

RATE, SECONDS = 22050, 0.3
POSITION = RACK.knob_index["wavetable.osc_1_pos"]


class Tone(nn.Module):
    """A sine whose pitch is a knob, `gain` louder than `host` plays it."""

    sample_rate = RATE

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, knobs: torch.Tensor, *rest: torch.Tensor, clip_s: float) -> torch.Tensor:
        time_s = torch.arange(round(clip_s * RATE)) / RATE
        hertz = 220.0 * 2.0 ** (3.0 * knobs[:, POSITION, None])
        return (self.gain * 0.3 * torch.sin(2 * torch.pi * hertz * time_s))[:, None].expand(
            -1, 2, -1
        )


def patch(position: float, *effects: str) -> Patch:
    return Patch.init(60, 1.0, effects).with_values({"wavetable.osc_1_pos": position})


PATCHES = [patch(0.1), patch(0.4, "Delay"), patch(0.7, "Delay", "Reverb")]


def targets() -> list[ScoreTarget]:
    host = Tone()
    sounds = [
        host(torch.as_tensor(p.knobs)[None], clip_s=SECONDS)[0].detach().numpy() for p in PATCHES
    ]
    return [
        ScoreTarget(i, 10 + i, "full", p, s, None, baseline=False, detail=False)
        for i, (p, s) in enumerate(zip(PATCHES, sounds, strict=True))
    ]


def test_a_proxy_that_is_the_host_has_no_gap_and_random_clips_have_one() -> None:
    test = targets()
    gap = proxy_gap.measure(Tone(), test, [t.audio for t in test], RATE, keep=2)
    assert (
        gap.rows[["proxy_mss_db", "proxy_level_db", "floor_mss_db", "floor_level_db"]] < 1e-4
    ).all(axis=None)
    assert (gap.rows[["random_mss_db", "random_level_db"]] > 1.0).all(axis=None)
    assert set(gap.sounds) == {10, 12} and all(
        set(pair) == {"host", "proxy"} for pair in gap.sounds.values()
    )


def test_a_louder_proxy_is_seen_by_the_distance_that_hears_level_only() -> None:
    test = targets()
    gap = proxy_gap.measure(Tone(2.0), test, [t.audio for t in test], RATE)
    assert gap.rows["proxy_mss_db"].max() < 1e-3 and gap.rows["proxy_level_db"].min() > 0.3


def test_the_floor_is_the_hosts_second_render_and_a_failed_one_leaves_it_open() -> None:
    test = targets()
    noisy = [
        t.audio + np.random.default_rng(0).normal(0, 0.01, t.audio.shape).astype(np.float32)
        for t in test
    ]
    again = [noisy[0], SimpleNamespace(reason="refused"), noisy[2]]
    gap = proxy_gap.measure(Tone(), test, again, RATE)
    floors = gap.rows["floor_mss_db"]
    assert np.isnan(floors[1]) and floors[0] == pytest.approx(
        sound.mss(noisy[0], test[0].audio, RATE), rel=1e-4
    )
    assert proxy_gap.flat(gap)["proxy_gap.all.floor_mss_db"] == pytest.approx(
        float(np.nanmedian(floors))
    )


def test_groups_are_by_chain_length_and_device() -> None:
    lines = [
        {"chain": p.effects, **dict.fromkeys(proxy_gap.COLUMNS[1:], n + 1.0)}
        for n, p in enumerate(PATCHES)
    ]
    gap = proxy_gap.Gap(pd.DataFrame(lines, columns=proxy_gap.COLUMNS), {}, RATE)
    flat, table = proxy_gap.flat(gap), proxy_gap.table(gap)
    assert (
        flat["proxy_gap.length_0.proxy_mss_db"] == 1.0
        and flat["proxy_gap.delay.proxy_mss_db"] == 2.5
    )
    assert flat["proxy_gap.mss_db"] == 2.0 and "proxy_gap.saturator.proxy_mss_db" not in flat
    assert table.loc["with Reverb", "n"] == 1 and table.loc["2 effects", "MSS, proxy"] == 3.0


def test_no_clips_make_an_empty_report() -> None:
    gap = proxy_gap.measure(Tone(), [], [], RATE, keep=3)
    assert proxy_gap.flat(gap) == {} and not gap.sounds and not len(gap.rows)
