"""Oscillators: harmonics where they belong, none above Nyquist, warps with the shape they
promise.
"""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import jv

from unmixer_core.dsp import oscillators

RATE = 16000
SINE = torch.tensor([[[-1j] + [0j] * 63]], dtype=torch.complex64)  # one table, one frame: sin


def amplitudes(sound: torch.Tensor, bins: list[int]) -> torch.Tensor:
    """Amplitudes at FFT bins of a signal that is periodic in its window."""
    return torch.fft.rfft(sound).abs()[..., bins] * 2.0 / sound.shape[-1]


def saw(harmonics: int = 200) -> torch.Tensor:
    number = torch.arange(1, harmonics + 1)
    return (-1j / number).to(torch.complex64)[None, None]


def test_a_sine_table_gives_a_sine() -> None:
    frequency = torch.tensor([250.0])
    table = oscillators.band_limited_tables(SINE, frequency, sample_rate=RATE)
    phase = oscillators.phase_cycles(frequency[:, None], n_samples=RATE, sample_rate=RATE)
    sound = oscillators.wavetable_oscillator(table, torch.zeros(1, 1, 1), phase)[0, 0]
    expected = torch.sin(2 * math.pi * 250 * torch.arange(RATE, dtype=torch.float64) / RATE)
    assert (sound - expected).abs().max() < 1e-4


def test_nothing_is_above_nyquist() -> None:
    frequency = torch.tensor([1000.0])
    table = oscillators.band_limited_tables(saw(), frequency, sample_rate=RATE)
    phase = oscillators.phase_cycles(frequency[:, None], n_samples=RATE, sample_rate=RATE)
    sound = oscillators.wavetable_oscillator(table, torch.zeros(1, 1, 1), phase)[0, 0]
    spectrum = torch.fft.rfft(sound).abs() * 2 / RATE
    harmonics = spectrum[1000:8000:1000].clone()
    assert torch.allclose(harmonics, 1.0 / torch.arange(1, 8), rtol=0.02)
    spectrum[1000:8000:1000] = 0.0
    assert spectrum.max() < 1e-3  # what folds back is 60 dB down


def test_position_blends_neighbours_linearly() -> None:
    spectra = torch.cat([SINE, 3.0 * SINE], dim=1)
    table = oscillators.band_limited_tables(spectra, torch.tensor([100.0]), sample_rate=RATE)
    peak = oscillators.wavetable_oscillator(
        table, torch.full((1, 1, 1), 0.25), torch.full((1, 1, 1), 0.25)
    )
    assert peak.item() == pytest.approx(1.5, abs=1e-4)


def test_phase_stays_exact_over_seconds() -> None:
    phase = oscillators.phase_cycles(torch.tensor([3999.0]), n_samples=4 * RATE, sample_rate=RATE)[
        0
    ]
    exact = (3999.0 * torch.arange(4 * RATE, dtype=torch.float64) / RATE) % 1.0
    difference = (phase - exact + 0.5) % 1.0 - 0.5
    assert difference.abs().max() < 1e-6


@pytest.mark.parametrize("amount", [-1.0, -0.4, 0.0, 0.7, 1.0])
def test_bend_is_monotone_and_keeps_the_ends(amount: float) -> None:
    phase = torch.linspace(0.0, 1.0, 101, dtype=torch.float64)
    bent = oscillators.bend_phase(phase, torch.tensor(amount, dtype=torch.float64))
    mirrored = 1.0 - oscillators.bend_phase(1.0 - phase, torch.tensor(-amount, dtype=torch.float64))
    assert (bent.diff() >= 0).all() and bent[0] == 0 and bent[-1] == pytest.approx(1.0)
    assert torch.allclose(bent, mirrored)
    if amount == 0.0:
        assert torch.allclose(bent, phase)


def test_sync_at_an_integer_ratio_transposes() -> None:
    frequency = torch.tensor([200.0])
    table = oscillators.band_limited_tables(SINE, frequency, sample_rate=RATE)
    phase = oscillators.phase_cycles(frequency[:, None], n_samples=RATE, sample_rate=RATE)
    synced = oscillators.wavetable_oscillator(
        table, torch.zeros(1, 1, 1), oscillators.sync_phase(phase, torch.tensor(3.0))
    )
    assert amplitudes(synced[0, 0], [200, 400, 600]).tolist() == pytest.approx(
        [0.0, 0.0, 1.0], abs=1e-3
    )


def test_phase_modulation_follows_bessel() -> None:
    depth = 0.2
    phase = oscillators.phase_cycles(torch.tensor([1000.0]), n_samples=RATE, sample_rate=RATE)
    slow = oscillators.phase_cycles(torch.tensor([100.0]), n_samples=RATE, sample_rate=RATE)
    sound = oscillators.sine(phase + depth * oscillators.sine(slow))[0]
    expected = [abs(jv(n, 2 * math.pi * depth)) for n in (0, 1, 2)]
    assert amplitudes(sound, [1000, 1100, 1200]).tolist() == pytest.approx(expected, abs=1e-4)


def test_sub_tones_are_sine_triangle_and_square() -> None:
    frequency = torch.full((3,), 50.0)
    phase = oscillators.phase_cycles(frequency, n_samples=RATE, sample_rate=RATE)
    sound = oscillators.sub_oscillator(
        phase, torch.tensor([0.0, 0.5, 1.0]), frequency, sample_rate=RATE
    )
    third = amplitudes(sound, [150]) / amplitudes(sound, [50])
    assert third[:, 0].tolist() == pytest.approx([0.0, 1 / 9, 1 / 3], abs=2e-3)


def test_every_argument_has_a_gradient() -> None:
    generator = torch.Generator().manual_seed(1)
    spectra = torch.randn(2, 3, 20, 2, generator=generator).requires_grad_()
    frequency = torch.tensor([110.0, 220.0], requires_grad=True)
    position = torch.tensor([[[0.3]], [[0.6]]], requires_grad=True)
    ratio = torch.tensor([[[1.7]], [[1.2]]], requires_grad=True)
    tone = torch.tensor([0.3, 0.8], requires_grad=True)
    table = oscillators.band_limited_tables(
        torch.view_as_complex(spectra), frequency, sample_rate=RATE
    )
    phase = oscillators.phase_cycles(frequency[:, None], n_samples=500, sample_rate=RATE)
    bent = oscillators.bend_phase(oscillators.sync_phase(phase, ratio) % 1.0, ratio - 1.5)
    sound = oscillators.wavetable_oscillator(table, position, bent)
    sub = oscillators.sub_oscillator(phase[:, 0], tone, frequency, sample_rate=RATE)
    (sound[:, 0] * sub).square().sum().backward()
    for argument in (spectra, frequency, position, ratio, tone):
        assert (
            argument.grad is not None
            and torch.isfinite(argument.grad).all()
            and (argument.grad != 0).any()
        )


def test_reading_passes_gradcheck() -> None:
    generator = torch.Generator().manual_seed(2)
    tables = torch.randn(1, 3, 8, generator=generator, dtype=torch.float64).requires_grad_()
    position = torch.tensor([[[0.3, 0.7]]], dtype=torch.float64, requires_grad=True)
    phase = torch.tensor([[[0.21, 1.43]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(oscillators.wavetable_oscillator, (tables, position, phase))


def test_batch_equals_loop() -> None:
    frequency = torch.tensor([110.0, 313.0])
    phase = oscillators.phase_cycles(frequency[:, None], n_samples=800, sample_rate=RATE)
    position = torch.tensor([0.2, 0.9])[:, None, None]

    def play(rows: slice) -> torch.Tensor:
        spectra = torch.cat([saw(), 2 * saw()], dim=1).expand(len(frequency[rows]), -1, -1)
        table = oscillators.band_limited_tables(spectra, frequency[rows], sample_rate=RATE)
        return oscillators.wavetable_oscillator(table, position[rows], phase[rows])

    assert torch.allclose(
        play(slice(None)), torch.cat([play(slice(0, 1)), play(slice(1, 2))]), atol=1e-6
    )
