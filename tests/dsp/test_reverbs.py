"""Reverb: bands that sum to the noise they came from, T60 at the decay time, a predelay that
delays.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmixer_core.dsp import reverbs
from unmixer_core.dsp.fft import delay_response, filter_on_circle

RATE = 16000.0


def reverberated(
    audio: torch.Tensor, response: torch.Tensor, predelay_s: torch.Tensor
) -> torch.Tensor:
    """Audio through a response, as the proxy's reverb convolves them: later by predelay_s."""
    longest = float(predelay_s.detach().max()) * RATE
    on = reverbs.reverb_circle(audio, response.shape[-1], longest)
    delay = delay_response(predelay_s * RATE, on)[:, None]
    return filter_on_circle(audio, torch.fft.rfft(response, n=on.n_fft) * delay, on)


def bands(n: int = 16000) -> torch.Tensor:
    return reverbs.noise_bands(n, sample_rate=RATE, n_bands=6, seed=1)


def test_bands_sum_to_white_noise() -> None:
    generator = torch.Generator().manual_seed(1)
    assert torch.allclose(bands().sum(dim=0), torch.randn(2, 16000, generator=generator), atol=1e-4)


@pytest.mark.parametrize("decay_time_s", [0.3, 1.2])
def test_the_response_falls_by_60_db_in_the_decay_time(decay_time_s: float) -> None:
    decay = torch.full((1, 6), decay_time_s)
    response = reverbs.impulse_response(
        bands(), decay, torch.ones(1, 6), torch.tensor([1e-4]), sample_rate=RATE
    )[0, 0]
    remaining = torch.flip(
        torch.cumsum(torch.flip(response.square(), [0]), 0), [0]
    )  # Schroeder's integral
    curve = 10 * np.log10(remaining.numpy() / remaining[0].item())
    first, last = np.searchsorted(-curve, [5.0, 25.0])
    assert (last - first) / RATE * 3.0 == pytest.approx(decay_time_s, rel=0.1)


def test_a_steep_build_up_is_silent_before_it_and_changes_nothing_after_it() -> None:
    decay, gain, build_up = torch.full((1, 6), 1.0), torch.ones(1, 6), torch.tensor([0.1])
    soft, steep = (
        reverbs.impulse_response(
            bands(), decay, gain, build_up, sample_rate=RATE, build_up_power=power
        )[0, 0]
        for power in (1.0, 4.0)
    )
    early, late = slice(0, 400), slice(9000, 16000)
    assert steep[early].abs().max() < 0.05 * soft[early].abs().max()
    assert steep[late].square().mean().item() == pytest.approx(
        soft[late].square().mean().item(), rel=0.1
    )


def test_predelay_moves_the_response() -> None:
    audio = torch.zeros(1, 2, 4000)
    audio[..., 0] = 1.0
    response = torch.zeros(1, 2, 4000)
    response[..., 0] = 1.0
    wet = reverberated(audio, response, torch.tensor([0.05]))
    assert wet[0, 0].argmax() == 800 and wet[0, 0, 800].item() == pytest.approx(1.0, abs=1e-3)


def test_every_argument_has_a_gradient() -> None:
    audio = torch.randn(1, 2, 500, generator=torch.Generator().manual_seed(2)).requires_grad_()
    decay, gain = torch.full((1, 6), 0.1, requires_grad=True), torch.ones(1, 6, requires_grad=True)
    build_up, predelay = (
        torch.tensor([0.005], requires_grad=True),
        torch.tensor([0.003], requires_grad=True),
    )
    response = reverbs.impulse_response(bands(500), decay, gain, build_up, sample_rate=RATE)
    wet = reverberated(audio, response, predelay)
    for gradient in torch.autograd.grad(
        wet.square().sum(), (audio, decay, gain, build_up, predelay)
    ):
        assert torch.isfinite(gradient).all() and (gradient != 0).all(dim=-1).any()


def test_gradcheck() -> None:
    noise = bands(20).double()
    arguments = [
        torch.rand(shape, dtype=torch.float64).add_(0.2).requires_grad_()
        for shape in ((1, 6), (1, 6), (1,))
    ]
    run = lambda d, g, b: reverbs.impulse_response(noise, d, g, b, sample_rate=RATE)  # noqa: E731
    assert torch.autograd.gradcheck(run, arguments)


def test_the_tail_of_a_late_sound_does_not_come_back_at_the_start() -> None:
    """An impulse at the clip's end, through a response that is as long as the clip, later by a
    predelay.
    """
    n = 2000
    audio, response = torch.zeros(1, 2, n), torch.zeros(1, 2, n)
    audio[..., -1] = response[..., -1] = 1.0
    wet = reverberated(audio, response, torch.tensor([0.05]))
    assert wet.abs().max() < 1e-4
