"""Laws of the ported DDSP functions: against scipy, physics, and finite differences in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal
from torch.autograd import gradcheck

from unmixer_core.ddsp import core, effects, resampling, synths
from unmixer_core.dsp import fft

RATE = 16000


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sine(frequency_hz: float, n_samples: int) -> torch.Tensor:
    return torch.sin(
        2 * torch.pi * frequency_hz * torch.arange(n_samples, dtype=torch.float64) / RATE
    )[None]


def gain_db(output: torch.Tensor, source: torch.Tensor) -> float:
    middle = slice(output.shape[1] // 4, 3 * output.shape[1] // 4)
    return float(20 * torch.log10(output[:, middle].norm() / source[:, middle].norm()))


# Scales


def test_midi_and_hz_are_inverse():
    notes = torch.linspace(0.0, 127.0, 300)
    torch.testing.assert_close(core.hz_to_midi(core.midi_to_hz(notes)), notes, rtol=1e-5, atol=1e-4)
    assert core.midi_to_hz(torch.tensor(69.0)) == 440.0
    assert core.midi_to_hz(torch.tensor(0.0), midi_zero_silence=True) == 0.0


def test_exp_sigmoid_stays_in_its_range_with_a_finite_gradient():
    x = torch.tensor([-1e4, -200.0, 0.0, 200.0, 1e4], requires_grad=True)
    y = core.exp_sigmoid(x)
    y.sum().backward()
    assert (y >= 1e-7).all() and (y <= 2.0 + 2e-7).all()
    assert torch.isfinite(x.grad).all()


def test_exp_sigmoid_passes_gradient_to_its_scale():
    scale = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (10.0, 2.0, 1e-3)]
    assert gradcheck(core.exp_sigmoid, (noise(5).requires_grad_(), *scale))


def test_safe_log_is_finite_at_zero():
    x = torch.zeros(3, requires_grad=True)
    core.safe_log(x).sum().backward()
    assert torch.isfinite(x.grad).all()


# Phase


def test_accumulated_phase_does_not_drift():
    n = 600_000
    phase = core.accumulate_phase(torch.full((1, n), 441.0 / 44100.0), exclusive=True)
    exact = (np.arange(n) * float(np.float32(441.0 / 44100.0))) % 1.0
    error = np.abs(phase[0].numpy() - exact)
    assert np.minimum(error, 1.0 - error).max() < 1e-6


def test_phase_has_the_gradient_of_a_sum():
    step = (0.01 + 0.2 * uniform(2, 9)).requires_grad_()
    assert gradcheck(core.accumulate_phase, (step, True))
    assert gradcheck(core.sequential_cumsum, (step, 1))


def test_sequential_cumsum_rounds_like_a_float32_loop():
    values = noise(3, 500, dtype=torch.float32)
    expected, total = [], np.zeros(3, dtype=np.float32)
    for column in values.numpy().T:
        total = total + column
        expected.append(total)
    np.testing.assert_array_equal(
        core.sequential_cumsum(values, dim=1).numpy().T, np.stack(expected)
    )


# Resampling


@pytest.mark.parametrize("method", resampling.METHODS)
@pytest.mark.parametrize("n_timesteps", [40, 43])
@pytest.mark.parametrize("add_endpoint", [True, False])
def test_resampling_keeps_constants_and_the_first_frame(method, n_timesteps, add_endpoint):
    constant = resampling.resample(torch.full((2, 8, 3), 0.7), n_timesteps, method, add_endpoint)
    torch.testing.assert_close(constant, torch.full((2, n_timesteps, 3), 0.7))
    frames = noise(2, 8, 3)
    torch.testing.assert_close(
        resampling.resample(frames, n_timesteps, method, add_endpoint)[:, 0], frames[:, 0]
    )


@pytest.mark.parametrize("method", resampling.METHODS)
def test_resampling_has_an_exact_gradient(method):
    frames = noise(2, 4, 3).requires_grad_()
    for n_timesteps in (12, 13):
        assert gradcheck(lambda f, n=n_timesteps: resampling.resample(f, n, method), (frames,))


@pytest.mark.parametrize("method", resampling.METHODS)
def test_whole_and_fractional_hops_agree(method):
    frames = noise(2, 6, 1)
    left, fraction = resampling._positions(6, 48, method, True, torch.device("cpu"))
    weights, first = resampling._tap_weights(fraction, method)
    torch.testing.assert_close(
        resampling.resample(frames, 48, method),
        resampling._mix_gather(frames, left, weights, first),
    )


def test_linear_resampling_without_endpoint_equals_interp():
    frames = noise(1, 7)
    expected = np.interp(np.linspace(0, 6, 100), np.arange(7), frames[0].numpy())
    np.testing.assert_allclose(
        resampling.resample(frames, 100, add_endpoint=False)[0].numpy(), expected, atol=1e-12
    )


@pytest.mark.parametrize("shape", [(7,), (2, 7), (2, 7, 3), (2, 7, 3, 2)])
def test_resampling_keeps_the_other_axes(shape):
    axis = 0 if len(shape) == 1 else 1
    expected = list(shape)
    expected[axis] = 21
    assert list(resampling.resample(noise(*shape), 21).shape) == expected


def test_resampling_refuses_an_unknown_method():
    with pytest.raises(ValueError, match="sinc"):
        resampling.resample(noise(2, 4), 8, method="sinc")


# Oscillators


def test_wavetable_of_a_sine_is_a_sine():
    table = torch.sin(2 * torch.pi * torch.arange(2048, dtype=torch.float64) / 2048)[None]
    hz, amplitude = torch.full((1, 5, 1), 440.0).double(), torch.ones(1, 5, 1).double()
    found = synths.wavetable_synthesis(hz, amplitude, table, n_samples=4000, sample_rate=RATE)
    torch.testing.assert_close(found, sine(440.0, 4000), rtol=0.0, atol=1e-5)


def test_accurate_and_original_phase_agree_in_float64():
    controls = 100.0 + 300.0 * uniform(1, 5, 1), uniform(1, 5, 1, seed=1), noise(1, 5, 32)
    plain = synths.wavetable_synthesis(*controls, n_samples=200, sample_rate=RATE)
    accurate = synths.wavetable_synthesis(
        *controls, n_samples=200, sample_rate=RATE, use_angular_cumsum=True
    )
    torch.testing.assert_close(plain, accurate)


@pytest.mark.parametrize("accurate", [False, True])
def test_oscillators_have_exact_gradients(accurate):
    frequencies = (300.0 + 50.0 * uniform(2, 3, 1)).requires_grad_()
    amplitudes, tables = uniform(2, 3, 1, seed=1).requires_grad_(), noise(2, 3, 8).requires_grad_()
    shifts = (0.01 * noise(2, 3, 4)).requires_grad_()

    def wavetable(f, a, t):
        return synths.wavetable_synthesis(f, a, t, 12, RATE, use_angular_cumsum=accurate)

    def harmonic(f, a, s, d):
        return synths.harmonic_synthesis(f, a, s, d, 12, RATE, use_angular_cumsum=accurate)

    assert gradcheck(wavetable, (frequencies, amplitudes, tables))
    assert gradcheck(
        harmonic, (frequencies, amplitudes, shifts, uniform(2, 3, 4, seed=2).requires_grad_())
    )


def test_partials_above_nyquist_are_silent():
    hz = torch.full((1, 100, 2), 0.0)
    hz[..., 0], hz[..., 1] = 440.0, RATE / 2
    both = synths.oscillator_bank(hz, torch.ones(1, 100, 2), RATE)
    torch.testing.assert_close(
        both, synths.oscillator_bank(hz[..., :1], torch.ones(1, 100, 1), RATE)
    )


# Convolution and filters


@pytest.mark.parametrize("n_taps", [1, 7, 300])
def test_convolution_equals_scipy(n_taps):
    audio, taps = noise(2, 200), noise(2, n_taps, seed=1)
    expected = np.stack(
        [signal.convolve(a, b) for a, b in zip(audio.numpy(), taps.numpy(), strict=True)]
    )
    np.testing.assert_allclose(core.convolve(audio, taps).numpy(), expected, atol=1e-10)
    causal = core.fft_convolve(audio, taps, delay_compensation=0)
    np.testing.assert_allclose(causal.numpy(), expected[:, :200], atol=1e-10)
    valid = core.fft_convolve(audio, taps, padding="valid", delay_compensation=0)
    np.testing.assert_allclose(valid.numpy(), expected, atol=1e-10)


def test_a_constant_sequence_of_responses_equals_one_response():
    audio, taps = noise(2, 101), noise(2, 9, seed=1)
    moving = core.fft_convolve(audio, taps[:, None].expand(-1, 4, -1), delay_compensation=0)
    torch.testing.assert_close(moving, core.fft_convolve(audio, taps, delay_compensation=0))


def test_delay_compensation_aligns_a_linear_phase_response():
    audio, taps = noise(1, 100), torch.zeros(1, 21, dtype=torch.float64)
    taps[0, 9] = 1.0
    torch.testing.assert_close(core.fft_convolve(audio, taps), audio)


def test_convolution_refuses_unknown_padding():
    with pytest.raises(ValueError, match="full"):
        core.fft_convolve(noise(1, 8), noise(1, 3), padding="full")


def test_overlap_add_undoes_framing():
    audio = noise(2, 60)
    torch.testing.assert_close(fft.overlap_add(audio.unfold(1, 12, 12), 12), audio)


@pytest.mark.parametrize(("size", "hop"), [(12, 5), (12, 12), (7, 10)])
def test_overlap_add_sums_what_overlaps(size, hop):
    frames = noise(2, 4, size)
    expected = torch.zeros(2, 3 * hop + size, dtype=frames.dtype)
    for k in range(4):
        expected[:, k * hop : k * hop + size] += frames[:, k]
    torch.testing.assert_close(fft.overlap_add(frames, hop), expected)


@pytest.mark.parametrize("n", [1, 17, 4199, 132299])
def test_fast_lengths_are_5_smooth(n):
    length = fft.fast_length(n)
    for prime in (2, 3, 5):
        while length % prime == 0:
            length //= prime
    assert length == 1
    assert fft.fast_length(n) >= n


def test_convolution_has_an_exact_gradient():
    pair = noise(2, 11).requires_grad_(), noise(2, 5, seed=1).requires_grad_()
    assert gradcheck(core.fft_convolve, pair)
    assert gradcheck(core.fft_convolve, (pair[0], noise(2, 3, 5, seed=2).requires_grad_()))


def test_frequency_filter_has_the_asked_gain():
    magnitudes = torch.full((1, 1, 129), 0.5, dtype=torch.float64)
    audio = sine(1000.0, 4000)
    assert abs(gain_db(effects.frequency_filter(audio, magnitudes), audio) + 6.02) < 0.05


@pytest.mark.parametrize("window_size", [0, 5, 6])
def test_frequency_filter_has_an_exact_gradient(window_size):
    arguments = noise(2, 12).requires_grad_(), uniform(2, 3, 9).requires_grad_()
    assert gradcheck(lambda a, m: effects.frequency_filter(a, m, window_size), arguments)


def test_sinc_filter_cuts_6_db_at_its_cutoff_and_splits_the_spectrum():
    cutoff = torch.full((1, 1, 1), 2000.0, dtype=torch.float64)
    for frequency_hz, low_db in ((200.0, 0.0), (2000.0, -6.0)):
        audio = sine(frequency_hz, 8000)
        assert abs(gain_db(effects.sinc_filter(audio, cutoff, 256, RATE), audio) - low_db) < 0.3
    audio = sine(6000.0, 8000)
    assert gain_db(effects.sinc_filter(audio, cutoff, 256, RATE), audio) < -45.0
    assert abs(gain_db(effects.sinc_filter(audio, cutoff, 256, RATE, high_pass=True), audio)) < 0.1


def test_sinc_filter_has_an_exact_gradient():
    cutoff = (0.2 + 0.6 * uniform(2, 3, 1)).requires_grad_()
    assert gradcheck(
        lambda a, c: effects.sinc_filter(a, c, 9), (noise(2, 12).requires_grad_(), cutoff)
    )


# Delays and reverb


def test_delay_of_whole_samples_shifts():
    audio = noise(2, 50)
    delayed = effects.variable_length_delay(
        audio, torch.full((2, 50, 1), 7 / 32, dtype=torch.float64), max_length=32
    )
    torch.testing.assert_close(
        delayed, torch.cat([torch.zeros(2, 7, dtype=torch.float64), audio[:, :-7]], dim=1)
    )


def test_delays_have_exact_gradients():
    audio, phase = noise(2, 20).requires_grad_(), (0.05 + 0.7 * uniform(2, 20, 1)).requires_grad_()
    gain = uniform(2, 20, 1, seed=3).requires_grad_()
    center_ms, depth_ms = (
        torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.5, 0.31)
    )
    assert gradcheck(lambda a, p: effects.variable_length_delay(a, p, 8), (audio, phase))
    assert gradcheck(
        lambda *x: effects.mod_delay(*x, RATE), (audio, gain, phase, center_ms, depth_ms)
    )


def test_mod_delay_without_gain_is_dry():
    audio, phase = noise(1, 30), uniform(1, 30, 1)
    torch.testing.assert_close(
        effects.mod_delay(audio, torch.zeros(1, 30, 1).double(), phase), audio
    )


def test_reverb_masks_the_first_tap_and_adds_the_dry_sound():
    audio, response = noise(1, 30), noise(1, 12, 1, seed=1)
    wet = torch.from_numpy(
        signal.lfilter(response[0, :, 0].numpy() * (np.arange(12) > 0), [1.0], audio.numpy())
    )
    torch.testing.assert_close(effects.reverb(audio, response), audio + wet)
    torch.testing.assert_close(effects.reverb(audio, response, add_dry=False), wet)


def test_reverb_has_an_exact_gradient():
    assert gradcheck(
        effects.reverb, (noise(2, 12).requires_grad_(), noise(2, 5, 1, seed=1).requires_grad_())
    )
