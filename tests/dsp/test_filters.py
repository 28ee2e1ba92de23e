"""Filters: gains and slopes at the frequencies that define them, scipy's responses, and
filtering by FFT itself.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.signal
import torch

from unmixer_core.dsp import fft, filters

RATE = 16000.0


def one(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


def kind(index: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor([index]), 4).double()


def decibels(response: torch.Tensor) -> list[float]:
    return (20.0 * torch.log10(response.abs() + 1e-30))[0].tolist()


def respond(
    index: int, at_hz: list[float], damping: float = 2**0.5, steepness: float = 0.0
) -> torch.Tensor:
    return filters.state_variable_response(
        torch.tensor(at_hz, dtype=torch.float64),
        one(1000.0),
        one(damping),
        kind(index),
        steepness=one(steepness),
    )


def test_lowpass_and_highpass_are_3_db_down_at_cutoff() -> None:
    assert decibels(respond(filters.LOWPASS, [1000.0])) == pytest.approx([-3.01], abs=0.01)
    assert decibels(respond(filters.HIGHPASS, [1000.0])) == pytest.approx([-3.01], abs=0.01)


@pytest.mark.parametrize(("steepness", "slope"), [(0.0, -12.04), (1.0, -24.08)])
def test_slopes_are_12_and_24_db_per_octave(steepness: float, slope: float) -> None:
    low = decibels(respond(filters.LOWPASS, [32000.0, 64000.0], steepness=steepness))
    high = decibels(respond(filters.HIGHPASS, [32.0, 16.0], steepness=steepness))
    assert low[1] - low[0] == pytest.approx(slope, abs=0.05)
    assert high[1] - high[0] == pytest.approx(slope, abs=0.05)


def test_bandpass_peaks_at_one_over_damping_and_notch_is_silent_there() -> None:
    assert decibels(respond(filters.BANDPASS, [1000.0], damping=0.1)) == pytest.approx(
        [20.0], abs=1e-6
    )
    assert decibels(respond(filters.NOTCH, [1000.0]))[0] < -100.0


@pytest.mark.parametrize(
    ("index", "numerator"), [(0, [1.0]), (1, [1.0, 0, 0]), (2, [1.0, 0]), (3, [1.0, 0, 1.0])]
)
def test_two_pole_equals_scipy(index: int, numerator: list[float]) -> None:
    at_hz = np.geomspace(20.0, 8000.0, 50)
    _, expected = scipy.signal.freqs(numerator, [1.0, 0.3, 1.0], at_hz / 1000.0)
    found = respond(index, at_hz.tolist(), damping=0.3)[0].numpy()
    assert np.allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gain_db", [-12.0, 9.0])
def test_equaliser_gains(gain_db: float) -> None:
    at_hz = torch.tensor([1.0, 1000.0, 1e6], dtype=torch.float64)
    bell = decibels(filters.bell_response(at_hz, one(1000.0), one(gain_db), one(2.0)))
    low = decibels(filters.low_shelf_response(at_hz, one(1000.0), one(gain_db), one(0.7)))
    high = decibels(filters.high_shelf_response(at_hz, one(1000.0), one(gain_db), one(0.7)))
    assert bell == pytest.approx([0.0, gain_db, 0.0], abs=0.01)
    assert low == pytest.approx([gain_db, gain_db / 2, 0.0], abs=0.01)
    assert high == pytest.approx([0.0, gain_db / 2, gain_db], abs=0.01)


def test_one_pole_is_3_db_down_at_its_corner() -> None:
    at_hz = torch.tensor([500.0], dtype=torch.float64)
    assert decibels(filters.one_pole_response(at_hz, one(500.0))) == pytest.approx(
        [-3.01], abs=0.01
    )
    assert decibels(filters.one_pole_response(at_hz, one(500.0), high=True)) == pytest.approx(
        [-3.01], abs=0.01
    )


def test_gradcheck() -> None:
    at_hz = torch.tensor([100.0, 900.0, 3000.0], dtype=torch.float64)
    arguments = [
        torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (1.1, 0.5, 0.6)
    ]
    weights = torch.tensor([[0.2, 0.3, 0.4, 0.1]], dtype=torch.float64, requires_grad=True)

    def resonant(cutoff, damping, steepness, weights):
        return torch.view_as_real(
            filters.state_variable_response(
                at_hz / 1000, cutoff, damping, weights, steepness=steepness
            )
        )

    assert torch.autograd.gradcheck(resonant, (*arguments, weights))
    for response in (
        filters.bell_response,
        filters.low_shelf_response,
        filters.high_shelf_response,
    ):
        assert torch.autograd.gradcheck(
            lambda c, g, q, f=response: torch.view_as_real(f(at_hz / 1000, c, g, q)), arguments
        )


def test_filtering_on_the_damped_circle_equals_recursion() -> None:
    """A one-pole with a tail far longer than the clip.

    The wrapped tail stays below the promised level.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4000, generator=generator, dtype=torch.float64)
    on = fft.circle(4000, alias_db=80.0, like=noise)
    once = fft.delay_response(torch.tensor(1.0, dtype=torch.float64), on)
    found = fft.filter_on_circle(noise, 1.0 / (1.0 - 0.9999 * once), on)
    expected = scipy.signal.lfilter([1.0], [1.0, -0.9999], noise.numpy())
    assert np.abs(found.numpy() - expected).max() < 2e-4 * np.abs(expected).max()


def test_frames_with_no_filter_are_the_identity() -> None:
    noise = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    response = torch.ones(2, fft.frames_count(1000, 64), 65)
    assert torch.allclose(fft.filter_frames(noise, response, hop_samples=64), noise, atol=1e-5)


def test_a_still_filter_by_frames_equals_the_whole_clip() -> None:
    time_s = torch.arange(8000, dtype=torch.float64) / RATE
    tone = torch.sin(2 * math.pi * 700.0 * time_s)
    hop = 256
    at_hz = torch.arange(hop + 1, dtype=torch.float64) * (RATE / 2 / hop)
    still = filters.state_variable_response(at_hz, one(1000.0), one(0.5), kind(0)).expand(
        fft.frames_count(8000, hop), -1
    )
    moved = fft.filter_frames(tone, still, hop_samples=hop)[2000:6000]
    gain = abs(respond(filters.LOWPASS, [700.0], damping=0.5).item())
    assert moved.abs().max().item() == pytest.approx(gain, rel=0.05)


@pytest.mark.parametrize("n", [1, 2, 3, 97, 44100, 65537])
def test_fast_length_is_even_smooth_and_enough(n: int) -> None:
    length = fft.fast_length(n)
    rest = length
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    assert length >= n and length % 2 == 0 and rest == 1 and length <= max(2, 1.2 * n + 2)


def test_the_damping_shelf_leaves_lows_and_cuts_highs_by_its_gain() -> None:
    frequency_hz = torch.tensor([1.0, 1000.0, 1e6], dtype=torch.float64)
    response = filters.damping_shelf_response(
        frequency_hz,
        torch.tensor([1000.0], dtype=torch.float64),
        torch.tensor(0.5, dtype=torch.float64),
    )[0].abs()
    assert response[0].item() == pytest.approx(1.0, abs=1e-4) and response[
        2
    ].item() == pytest.approx(0.5, abs=1e-4)
    assert response[1].item() == pytest.approx((1.25 / 2.0) ** 0.5)
