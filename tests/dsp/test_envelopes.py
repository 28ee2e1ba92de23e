"""Envelopes: they are where they should be at the ends of every segment, and every time has a
gradient.
"""

from __future__ import annotations

import math

import pytest
import torch

from unmixer_core.dsp import envelopes

TIME_S = torch.linspace(0.0, 2.0, 2001, dtype=torch.float64)


def one(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


def play(**changes: float) -> torch.Tensor:
    controls = {
        "attack_s": 0.2,
        "decay_s": 0.3,
        "sustain": 0.4,
        "release_s": 0.5,
        "gate_s": 1.0,
    } | changes
    return envelopes.adsr(
        TIME_S,
        **{key: one(value) for key, value in controls.items()},
        decay_power=-2.0,
        release_power=-2.0,
    )[0]


def test_segments_end_where_they_should() -> None:
    level = play()
    at = [0, 200, 500, 999, 1500, 2000]
    assert level[at].tolist() == pytest.approx([0.0, 1.0, 0.4, 0.4, 0.0, 0.0], abs=1e-6)


def test_release_starts_from_the_level_at_note_off() -> None:
    level = play(gate_s=0.1)  # still attacking
    assert level[100].item() == pytest.approx(0.5, abs=1e-6)
    assert (level[100:].diff() <= 1e-12).all() and level[600:].abs().max() == 0.0


def test_attack_rises_and_decay_falls() -> None:
    level = play()
    assert (level[:201].diff() > 0).all() and (level[200:501].diff() < 0).all()


@pytest.mark.parametrize("power", [-4.0, -0.009, 0.0, 0.009, 3.0])
def test_power_curve_joins_zero_to_one(power: float) -> None:
    x = torch.linspace(0.0, 1.0, 11, dtype=torch.float64)
    curve = envelopes.power_curve(x, torch.full_like(x, power))
    exact = x if power == 0 else torch.expm1(power * x) / math.expm1(power)
    assert torch.allclose(curve, exact, atol=1e-6)


def test_lfos_have_their_rate_and_phase() -> None:
    sine = envelopes.lfo_sine(TIME_S, one(2.0), phase_cycles=one(0.25))[0]
    assert sine[[0, 250, 500]].tolist() == pytest.approx([1.0, -1.0, 1.0], abs=1e-9)


def test_lagging_lfos_without_a_lag_are_a_sine_and_a_triangle() -> None:
    no_lag = torch.tensor(0.0, dtype=torch.float64)
    sine = envelopes.lagging_sine(TIME_S, one(2.0), one(0.25), no_lag)
    assert torch.equal(sine, envelopes.lfo_sine(TIME_S, one(2.0), phase_cycles=one(0.25)))
    triangle = envelopes.lagging_triangle(TIME_S, one(2.0), one(0.0), no_lag)[0]
    assert triangle[[0, 125, 250, 375]].tolist() == pytest.approx([0.0, 1.0, 0.0, -1.0], abs=0.06)


def test_a_lag_of_one_radian_halves_the_power_and_turns_by_an_eighth() -> None:
    rate_hz = 2.0
    lag_s = torch.tensor(1.0 / (2.0 * math.pi * rate_hz), dtype=torch.float64)
    lagging = envelopes.lagging_sine(TIME_S, one(rate_hz), one(0.0), lag_s)
    expected = envelopes.lfo_sine(TIME_S, one(rate_hz), phase_cycles=one(-0.125)) * 0.5**0.5
    assert torch.allclose(lagging, expected, atol=1e-9)


def test_gradcheck() -> None:
    time_s = torch.tensor([0.05, 0.13, 0.37, 0.71, 0.93], dtype=torch.float64)
    values = [
        torch.tensor([v], dtype=torch.float64, requires_grad=True)
        for v in (0.1, 0.3, 0.4, 0.5, 0.6, 1.0, -2.0, -1.0)
    ]

    def run(attack, decay, sustain, release, gate, up, down, out):
        return envelopes.adsr(
            time_s,
            attack,
            decay,
            sustain,
            release,
            gate,
            attack_power=up,
            decay_power=down,
            release_power=out,
        )

    assert torch.autograd.gradcheck(run, values)
    assert torch.autograd.gradcheck(
        lambda rate, phase: envelopes.lfo_sine(time_s, rate, phase_cycles=phase),
        (values[0], values[1]),
    )


def test_batch_equals_loop() -> None:
    many = [
        torch.tensor([a, b], dtype=torch.float64)
        for a, b in ((0.1, 0.3), (0.2, 0.5), (0.5, 0.7), (0.1, 0.9), (0.4, 1.2))
    ]
    both = envelopes.adsr(TIME_S, *many)
    for i in range(2):
        assert torch.equal(both[i : i + 1], envelopes.adsr(TIME_S, *[v[i : i + 1] for v in many]))
