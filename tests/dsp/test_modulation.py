"""Moving delays and allpasses.

At rest they are the plain delays, combs and notches of the textbook.
"""

from __future__ import annotations

import math

import pytest
import torch

from unmixer_core.dsp import fft, modulation

RATE = 16000.0


def noise(n: int = 2000) -> torch.Tensor:
    return torch.randn(1, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_whole_delay_shifts() -> None:
    audio = noise()
    delayed = modulation.fractional_delay(
        audio, torch.full((1, 1, 2000), 7.0, dtype=torch.float64)
    )[:, 0]
    assert (
        torch.allclose(delayed[:, 7:], audio[:, :-7], atol=1e-9)
        and delayed[:, :7].abs().max() < 1e-9
    )


def test_half_a_sample_is_the_mean_of_two() -> None:
    audio = noise()
    delayed = modulation.fractional_delay(
        audio, torch.full((1, 1, 2000), 0.5, dtype=torch.float64)
    )[0, 0]
    assert torch.allclose(delayed[1:], 0.5 * (audio[0, 1:] + audio[0, :-1]), atol=1e-9)


def test_feedback_passes_are_a_geometric_series() -> None:
    impulse = torch.zeros(1, 200, dtype=torch.float64)
    impulse[0, 0] = 1.0
    echoes = modulation.feedback_passes(
        impulse, torch.full_like(impulse, 10.0), torch.tensor([0.5], dtype=torch.float64), passes=3
    )
    assert echoes[0, 0:80:10].tolist() == pytest.approx([0.5**k for k in range(8)])
    assert echoes[0, 80:].abs().max() < 1e-9


def test_feedback_around_a_moving_delay_is_the_recursion_itself() -> None:
    """Every echo was delayed when it went in, not all at once by today's delay."""
    n = 1200
    time = torch.arange(n, dtype=torch.float64)
    audio = torch.sin(2 * math.pi * time / 40.0)[
        None
    ]  # smooth: how each way interpolates is not what is compared
    delay = (60.0 + 25.0 * torch.sin(2 * math.pi * time / 500.0))[None]
    expected = audio[0].clone()
    for i in range(
        n
    ):  # y[i] = x[i] + g y[i − delay[i]], linear between samples, silence before the start
        place = i - float(delay[0, i])
        if place > -1:
            low = math.floor(place)
            ends = [float(expected[k]) if k >= 0 else 0.0 for k in (low, low + 1)]
            expected[i] += 0.5 * (ends[0] + (place - low) * (ends[1] - ends[0]))
    found = modulation.feedback_passes(
        audio, delay, torch.tensor([0.5], dtype=torch.float64), passes=5
    )[0]
    naive = audio.clone()
    for step in range(5):
        naive = (
            naive
            + 0.5 ** (2**step)
            * modulation.fractional_delay(naive, 2.0**step * delay[:, None])[:, 0]
        )
    error, naive_error = ((x - expected).square().mean().sqrt() for x in (found, naive[0]))
    assert error < 0.2 * naive_error and error < 0.1 * expected.square().mean().sqrt()


def test_a_still_chorus_is_the_sum_of_its_delays() -> None:
    audio = noise()[:, None].expand(1, 2, -1)
    delay_ms = torch.tensor([1.0, 2.0], dtype=torch.float64)[None, None, :, None].expand(
        1, 2, 2, 2000
    )
    wet = modulation.chorus(audio, delay_ms, torch.zeros(1, dtype=torch.float64), sample_rate=RATE)
    assert torch.allclose(wet[..., 40:], audio[..., 24:-16] + audio[..., 8:-32], atol=1e-9)


def test_a_still_flanger_has_its_peaks_at_whole_periods() -> None:
    impulse = torch.zeros(1, 2, 16000, dtype=torch.float64)
    impulse[..., 0] = 1.0
    delay_ms = torch.full_like(impulse, 2.0)
    response = torch.fft.rfft(
        modulation.flanger(
            impulse, delay_ms, torch.tensor([0.5], dtype=torch.float64), sample_rate=RATE
        )
    )[0, 0].abs()
    assert response[500].item() == pytest.approx(2.0, rel=1e-3) and response[
        250
    ].item() == pytest.approx(1 / 1.5, rel=1e-3)


def test_phaser_has_a_notch_where_the_chain_turns_half_a_cycle() -> None:
    center = torch.tensor([[1000.0]], dtype=torch.float64)
    at_hz = 1000.0 * torch.tan(
        torch.tensor([math.pi / 16, 3 * math.pi / 16, math.pi / 4], dtype=torch.float64)
    )
    response = modulation.phaser_response(
        at_hz, center, torch.zeros(1, dtype=torch.float64), stages=8
    )[0, 0].abs()
    assert response.tolist() == pytest.approx([0.0, 0.0, 1.0], abs=1e-9)
    resonant = modulation.phaser_response(
        at_hz[2:], center, torch.tensor([0.5], dtype=torch.float64), stages=8
    ).abs()
    assert resonant.item() == pytest.approx(2.0)


def test_every_argument_has_a_gradient() -> None:
    audio = torch.randn(
        1, 2, 400, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    ).requires_grad_()
    feedback = torch.tensor([0.4], dtype=torch.float64, requires_grad=True)
    delay_ms = (
        3.0
        + torch.rand(1, 2, 2, 400, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ).requires_grad_()
    center = torch.full(
        (1, 2, fft.frames_count(400, 64)), 900.0, dtype=torch.float64, requires_grad=True
    )
    outputs = {
        "chorus": (
            modulation.chorus(audio, delay_ms, feedback, sample_rate=RATE),
            (audio, delay_ms, feedback),
        ),
        "flanger": (
            modulation.flanger(audio, delay_ms[:, :, 0], feedback, sample_rate=RATE),
            (audio, delay_ms, feedback),
        ),
        "phaser": (
            modulation.phaser(audio, center, feedback, sample_rate=RATE, hop_samples=64),
            (audio, center, feedback),
        ),
    }
    for wet, arguments in outputs.values():
        for gradient in torch.autograd.grad(wet.square().sum(), arguments):
            assert torch.isfinite(gradient).all() and (gradient != 0).any()


def test_gradcheck() -> None:
    audio = torch.randn(
        1, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    ).requires_grad_()
    delay = torch.full((1, 12), 2.3, dtype=torch.float64, requires_grad=True)
    feedback = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    run = lambda a, d, f: modulation.feedback_passes(a, d, f, passes=2)  # noqa: E731
    assert torch.autograd.gradcheck(run, (audio, delay, feedback))
    center = torch.tensor([[0.8]], dtype=torch.float64, requires_grad=True)
    at = torch.tensor([0.3, 1.1], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda c, f: torch.view_as_real(modulation.phaser_response(at, c, f, stages=4)),
        (center, feedback),
    )
