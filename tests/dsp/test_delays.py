"""Feedback delay: echoes at their times and levels, ping-pong from side to side, endless tails
that do not wrap.
"""

from __future__ import annotations

import math

import pytest
import torch

from unmixer_core.dsp import delays

RATE = 8000.0
OPEN = (1e-3, 1e9)  # corners far outside the band: no filtering


def impulse(n: int = 8000) -> torch.Tensor:
    audio = torch.zeros(1, 2, n, dtype=torch.float64)
    audio[..., 0] = 1.0
    return audio


def play(
    audio: torch.Tensor,
    time_s: float,
    feedback: float,
    ping_pong: float,
    low_high: tuple[float, float] = OPEN,
) -> torch.Tensor:
    values = (time_s, feedback, *low_high, ping_pong)
    return delays.feedback_delay(
        audio, *[torch.tensor([v], dtype=torch.float64) for v in values], sample_rate=RATE
    )


def test_echoes_fall_by_the_feedback() -> None:
    wet = play(impulse(), 0.1, 0.5, 0.0)[0, 0]
    assert wet[[800, 1600, 2400]].tolist() == pytest.approx([1.0, 0.5, 0.25], rel=3e-3)
    assert wet[:790].abs().max() < 1e-2


def test_ping_pong_bounces_right_then_left() -> None:
    wet = play(impulse(), 0.1, 0.5, 1.0)[0]
    assert (wet[1, [800, 2400]] / math.sqrt(2)).tolist() == pytest.approx([1.0, 0.5], rel=3e-3)
    assert (wet[0, [1600, 3200]] / math.sqrt(2)).tolist() == pytest.approx([1.0, 0.5], rel=3e-3)
    assert wet[0, 790:810].abs().max() < 1e-2


def test_a_long_tail_does_not_wrap_around() -> None:
    wet = play(impulse(), 0.3, 0.95, 0.0)[0, 0]  # after 1 s the echoes are still at 0.86
    assert wet[:2000].abs().max() < 3e-3


def test_the_band_is_0_db_half_way_and_falls_outside() -> None:
    at_hz = torch.tensor([10.0, 1000.0, 100000.0], dtype=torch.float64)
    band = delays.band_response(
        at_hz,
        torch.tensor([500.0], dtype=torch.float64),
        torch.tensor([2000.0], dtype=torch.float64),
    )
    decibels = 20 * torch.log10(band.abs())[0]
    assert decibels.tolist() == pytest.approx([-32.0, 0.0, -32.0], abs=0.2)


def test_every_argument_has_a_gradient() -> None:
    audio = torch.randn(
        1, 2, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).requires_grad_()
    controls = [
        torch.tensor([v], dtype=torch.float64, requires_grad=True)
        for v in (0.0071, 0.5, 300.0, 2000.0, 0.4)
    ]
    wet = delays.feedback_delay(audio, *controls, sample_rate=RATE)
    for gradient in torch.autograd.grad(wet.square().sum(), (audio, *controls)):
        assert torch.isfinite(gradient).all() and (gradient != 0).any()


def test_batch_equals_loop() -> None:
    audio = torch.randn(2, 2, 500, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    controls = [
        torch.tensor(v, dtype=torch.float64)
        for v in ([0.01, 0.02], [0.3, 0.6], [100.0, 200.0], [2e3, 3e3], [0.0, 1.0])
    ]
    both = delays.feedback_delay(audio, *controls, sample_rate=RATE)
    alone = [
        delays.feedback_delay(audio[i : i + 1], *[c[i : i + 1] for c in controls], sample_rate=RATE)
        for i in range(2)
    ]
    assert torch.allclose(both, torch.cat(alone), atol=1e-12)
