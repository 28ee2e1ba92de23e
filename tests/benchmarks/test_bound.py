"""Benchmarks tell a figure beside its bar."""

from __future__ import annotations

import importlib
import math

import pytest

from benchmarks.bound import SIGNS, held

WITH_BARS = (
    "host.live",
    "host.render",
    "host.scale",
    "proxy.speed",
    "unmix.bars",
    "unmix.command",
    "unmix.inference",
)


def test_each_figure_stands_beside_what_is_wanted():
    figures = {"a": 1.0, "flag": True, "deep": {"b": {"c": 3}}, "flat.name": 2.0, "none": None}
    bounds = {
        "a": ("<=", 1.0),
        "flag": ("==", 1.0),
        "deep.b.c": ("<", 3.0),
        "flat.name": (">=", 1.0),
    }
    assert held(figures, bounds) == {
        "a": {"value": 1.0, "wanted": "<= 1", "met": True},
        "flag": {"value": 1.0, "wanted": "== 1", "met": True},
        "deep.b.c": {"value": 3.0, "wanted": "< 3", "met": False},
        "flat.name": {"value": 2.0, "wanted": ">= 1", "met": True},
    }
    assert (
        held(
            figures,
            {"none": ("<", 1.0), "absent": ("<", 1.0), "deep.x": ("<", 1.0), "a.b": ("<", 1.0)},
        )
        == {}
    )


@pytest.mark.parametrize("sign", SIGNS)
def test_what_is_no_number_meets_nothing(sign: str):
    assert not held({"a": math.nan}, {"a": (sign, math.nan)})["a"]["met"]


@pytest.mark.parametrize("name", WITH_BARS)
def test_every_bar_of_a_benchmark_can_be_judged(name: str):
    for sign, bar in importlib.import_module(f"benchmarks.{name}").BARS.values():
        assert sign in SIGNS and math.isfinite(bar)
