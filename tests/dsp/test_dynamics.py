"""Dynamics: curves and their folds, aliasing, the smoother against its own recursion, and the
compressor's static law.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.signal
import torch

from unmixer_core.dsp import dynamics

RATE = 16000.0


def one(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


def test_curves_are_odd_limited_and_straight_at_zero() -> None:
    x = torch.linspace(-6.0, 6.0, 121, dtype=torch.float64)
    for curve, slope in (
        (dynamics.soft_clip, 1.0),
        (dynamics.hard_clip, 1.0),
        (dynamics.linear_fold, 1.0),
        (dynamics.sine_fold, math.pi / 2),
    ):
        y = curve(x)
        assert torch.allclose(y, -curve(-x), atol=1e-12) and y.abs().max() <= 1.0 + 1e-12
        assert (curve(one(1e-6)) / 1e-6).item() == pytest.approx(slope, rel=1e-4)


def test_folds_come_back() -> None:
    assert dynamics.linear_fold(torch.tensor([1.0, 1.5, 2.0, 3.0])).tolist() == pytest.approx(
        [1.0, 0.5, 0.0, -1.0], abs=1e-6
    )
    assert dynamics.sine_fold(torch.tensor([1.0, 2.0, 3.0])).tolist() == pytest.approx(
        [1.0, 0.0, -1.0], abs=1e-6
    )


def test_oversampling_lowers_aliasing() -> None:
    tone = torch.sin(2 * math.pi * 2300.0 * torch.arange(16000, dtype=torch.float64) / RATE)

    def folded(factor: int) -> float:
        spectrum = torch.fft.rfft(
            dynamics.oversampled(3.0 * tone, dynamics.hard_clip, factor=factor)
            * torch.hann_window(16000)
        ).abs()
        spectrum[[k + d for k in (2300, 6900) for d in (-1, 0, 1)]] = 0.0
        return float(spectrum.max())

    assert folded(4) < 0.5 * folded(1)


def test_linear_recurrence_equals_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    keep, value = (
        torch.rand(2, 3, 37, generator=generator),
        torch.randn(2, 3, 37, generator=generator),
    )
    level, expected = torch.zeros(2, 3), []
    for n in range(37):
        level = keep[..., n] * level + value[..., n]
        expected.append(level)
    assert torch.allclose(
        dynamics.linear_recurrence(keep, value), torch.stack(expected, dim=-1), atol=1e-5
    )


def test_smoother_equals_its_recursion() -> None:
    power = (
        torch.rand(2, 1, 300, generator=torch.Generator().manual_seed(3), dtype=torch.float64) ** 4
    )
    attack, release, floor = (
        torch.tensor(v, dtype=torch.float64) for v in ([0.3, 0.8], [0.99, 0.9], [0.05, 0.2])
    )
    found = dynamics.branching_smoother(power, attack, release, floor=floor)
    for row in range(2):
        level = float(floor[row])
        for n in range(300):
            now = float(power[row, 0, n])
            keep = float(attack[row] if now > level else release[row])
            level = max(keep * level + (1 - keep) * now, float(floor[row]))
            assert found[row, 0, n].item() == pytest.approx(level, abs=1e-12)


def test_one_pole_smoother_equals_scipy() -> None:
    power = torch.rand(1, 1, 200, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found = dynamics.branching_smoother(power, one(0.9), one(0.9), floor=one(1e-9))[0, 0]
    expected, _ = scipy.signal.lfilter([0.1], [1.0, -0.9], power[0, 0].numpy(), zi=[0.9e-9])
    assert np.allclose(found, expected)


def test_steady_tone_is_lowered_by_the_ratio() -> None:
    tone = torch.sin(2 * math.pi * 1000.0 * torch.arange(16000, dtype=torch.float64) / RATE).expand(
        1, 2, -1
    )
    level_db = -3.01
    for ratio in (2.0, 4.0):
        pressed = dynamics.compressor(
            tone, one(-20.0), one(1 - 1 / ratio), one(5.0), one(50.0), sample_rate=RATE
        )
        loud = 10 * math.log10(pressed[..., 8000:].square().mean())
        assert loud == pytest.approx(-20.0 + (level_db + 20.0) / ratio, abs=0.3)


def test_below_the_threshold_nothing_happens() -> None:
    quiet = 0.01 * torch.randn(1, 2, 4000, generator=torch.Generator().manual_seed(5))
    args = [torch.tensor([v]) for v in (-20.0, 0.8, 1.0, 50.0)]
    assert torch.allclose(dynamics.compressor(quiet, *args, sample_rate=RATE), quiet, atol=1e-7)


def test_attack_time_is_the_smoothing_constant() -> None:
    step = torch.ones(1, 1, 16000, dtype=torch.float64)
    pressed = dynamics.compressor(
        step, one(-40.0), one(1.0), one(100.0), one(100.0), sample_rate=RATE
    )[0, 0]
    level = (10 ** (-40.0 / 20) / pressed[1600]) ** 2  # limiter: gain = threshold / level
    assert level.item() == pytest.approx(1 - math.exp(-1), rel=0.02)


def test_every_argument_has_a_gradient() -> None:
    audio = torch.randn(
        1, 2, 160, generator=torch.Generator().manual_seed(6), dtype=torch.float64
    ).requires_grad_()
    controls = [
        torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (-20.0, 0.7, 2.0, 10.0)
    ]
    run = lambda *a: dynamics.compressor(*a, sample_rate=RATE, hop_samples=8)  # noqa: E731
    assert torch.autograd.gradcheck(run, (audio, *controls))
    for argument in (audio, *controls):
        (gradient,) = torch.autograd.grad(run(audio, *controls).square().sum(), argument)
        assert (gradient != 0).any()


def test_batch_equals_loop() -> None:
    audio = torch.randn(2, 2, 1000, generator=torch.Generator().manual_seed(7))
    controls = [torch.tensor(v) for v in ([-20.0, -30.0], [0.5, 0.9], [1.0, 5.0], [20.0, 80.0])]
    both = dynamics.compressor(audio, *controls, sample_rate=RATE)
    alone = [
        dynamics.compressor(audio[i : i + 1], *[c[i : i + 1] for c in controls], sample_rate=RATE)
        for i in range(2)
    ]
    assert torch.allclose(both, torch.cat(alone), atol=1e-6)
