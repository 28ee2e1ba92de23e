"""Laws of the spectral losses.

Zero at equality, right about level, finite everywhere, fast path = slow path.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.autograd import gradcheck

from unmixer_core.ddsp import losses
from unmixer_core.dsp import spectral
from unmixer_core.dsp.spectral import SpectralSettings

RATE = 22050
SMALL = SpectralSettings(fft_sizes=(16, 32))
VARIANTS = [
    SpectralSettings(),
    SpectralSettings(fft_sizes=(512, 2048), mel=False),
    SpectralSettings(stereo="left_right"),
    SpectralSettings(stereo="mono", hop_divisor=2),
]


def clips(
    batch: int, n: int = 4000, seed: int = 0, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    return 0.2 * torch.randn(
        batch, 2, n, generator=torch.Generator().manual_seed(seed), dtype=dtype
    )


# Short-time spectra


@pytest.mark.parametrize(("size", "hop"), [(64, 16), (64, 24), (63, 31), (50, 50)])
def test_magnitudes_and_their_gradient_equal_torch_stft(size, hop):
    audio = clips(2, 300, dtype=torch.float64)[:, 0].requires_grad_()
    window = torch.hann_window(size, dtype=torch.float64)
    slow = (
        torch.stft(audio, size, hop, window=window, pad_mode="constant", return_complex=True)
        .abs()
        .transpose(1, 2)
    )
    fast = spectral.stft_magnitude(audio, size, hop)
    torch.testing.assert_close(fast, slow)
    weight = torch.rand(slow.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    slow_grad, fast_grad = (torch.autograd.grad((weight * x).sum(), audio)[0] for x in (slow, fast))
    torch.testing.assert_close(fast_grad, slow_grad)


def test_magnitude_has_an_exact_gradient():
    audio = clips(2, 40, dtype=torch.float64)[:, 0].requires_grad_()
    assert gradcheck(lambda a: spectral.stft_magnitude(a, 9, 4), (audio,))


def test_amplitude_of_a_full_scale_sine_is_one():
    t = torch.arange(RATE) / RATE
    tone = torch.sin(2 * torch.pi * (RATE / 64) * t)[None]
    magnitudes = spectral.stft_magnitude(tone, 1024, 256, amplitude=True)
    assert abs(float(magnitudes[0, 10:-10].max()) - 1.0) < 1e-3


def test_mel_bands_are_triangles_of_equal_area_over_the_whole_range():
    bank = spectral.mel_bank(4096, 64, 44100, torch.float64)
    area = bank.sum(0) * 44100 / 4096
    torch.testing.assert_close(area, torch.ones_like(area), rtol=0.02, atol=0.0)
    assert (bank.argmax(0).diff() > 0).all()


# The original loss


def test_original_loss_is_zero_at_equality_and_positive_elsewhere():
    a, b = clips(2)[:, 0], clips(2, seed=1)[:, 0]
    assert losses.spectral_loss(a, a, logmag_weight=1.0) == 0.0
    assert losses.spectral_loss(a, b) > 0.0


def test_original_loss_is_finite_at_silence():
    silent = torch.zeros(1, 4000, requires_grad=True)
    losses.spectral_loss(clips(1)[:, 0], silent, logmag_weight=1.0).backward()
    assert torch.isfinite(silent.grad).all()


# The training loss


@pytest.mark.parametrize("settings", VARIANTS)
def test_distance_is_zero_only_at_equality(settings):
    a, b = clips(3), clips(3, seed=1)
    assert (spectral.multiscale_spectral(a, a, RATE, settings) == 0.0).all()
    assert (spectral.multiscale_spectral(a, b, RATE, settings) > 0.1).all()


@pytest.mark.parametrize("settings", VARIANTS)
def test_prepared_target_equals_audio_and_is_shared_by_the_batch(settings):
    audio, target = clips(3), clips(1, seed=1)
    prepared = spectral.prepare(target, RATE, settings)
    shared = spectral.multiscale_spectral(audio, prepared)
    each = [spectral.multiscale_spectral(a[None], target, RATE, settings) for a in audio]
    torch.testing.assert_close(shared, torch.cat(each))


def test_distance_grows_with_the_level_error():
    audio = clips(1)
    losses = [
        float(spectral.multiscale_spectral(g * audio, audio, RATE)) for g in (1.0, 1.1, 1.5, 3.0)
    ]
    assert losses == sorted(losses)
    assert losses[1] > 0.1


def test_log_term_reads_a_gain_in_nepers():
    only_log = SpectralSettings(linear_weight=0.0, floor=1e-9, mel=False)
    loss = spectral.multiscale_spectral(2.0 * clips(1), clips(1), RATE, only_log)
    assert abs(float(loss) - 0.6931) < 1e-3


def test_only_the_stereo_settings_hear_swapped_channels():
    audio = clips(1)
    swapped = audio.flip(1)
    assert (
        spectral.multiscale_spectral(swapped, audio, RATE, SpectralSettings(stereo="mono")) < 1e-5
    )
    assert (
        spectral.multiscale_spectral(swapped, audio, RATE, SpectralSettings(stereo="left_right"))
        > 0.1
    )
    assert spectral.multiscale_spectral(audio * torch.tensor([[1.0], [-1.0]]), audio, RATE) > 0.1


def test_unknown_stereo_setting_is_refused():
    with pytest.raises(ValueError, match="quad"):
        spectral.multiscale_spectral(clips(1), clips(1), RATE, SpectralSettings(stereo="quad"))


@pytest.mark.parametrize("settings", VARIANTS)
def test_gradient_is_finite_at_silence(settings):
    silent = torch.zeros(2, 2, 4000, requires_grad=True)
    spectral.multiscale_spectral(silent, clips(2), RATE, settings).sum().backward()
    assert torch.isfinite(silent.grad).all()


@pytest.mark.parametrize(
    "settings", [SMALL, replace(SMALL, mel=False), replace(SMALL, stereo="left_right")]
)
def test_distance_has_an_exact_gradient(settings):
    audio, target = (
        clips(2, 60, dtype=torch.float64).requires_grad_(),
        clips(2, 60, seed=1, dtype=torch.float64),
    )
    assert gradcheck(lambda a: spectral.multiscale_spectral(a, target, 1000, settings), (audio,))


def test_descent_finds_the_gain():
    target, source = 0.5 * clips(1), clips(1)
    prepared, gain = spectral.prepare(target, RATE), torch.tensor(0.1, requires_grad=True)
    adam = torch.optim.Adam([gain], lr=0.05)
    for _ in range(60):
        adam.zero_grad()
        spectral.multiscale_spectral(gain * source, prepared).sum().backward()
        adam.step()
    assert abs(gain.item() - 0.5) < 0.05


# MSS


def test_mss_is_a_level_blind_symmetric_distance():
    a, b = clips(2), clips(2, seed=1)
    assert (spectral.mss(a, a, RATE) == 0.0).all()
    torch.testing.assert_close(spectral.mss(a, b, RATE), spectral.mss(b, a, RATE))
    torch.testing.assert_close(
        spectral.mss(0.01 * a, b, RATE), spectral.mss(a, b, RATE), rtol=1e-4, atol=1e-4
    )


def test_mss_of_a_prepared_target_is_the_same():
    a, b = clips(2), clips(1, seed=1)
    spectra = spectral.mss_spectra(spectral.mix_down(b), RATE)
    torch.testing.assert_close(spectral.mss(a, spectra, RATE), spectral.mss(a, b, RATE))


def test_soft_floor_stays_within_3_db_and_keeps_a_gradient_below_the_floor():
    t = torch.arange(8000) / RATE
    quiet = torch.tensor(1e-6, requires_grad=True)
    audio = (torch.sin(2 * torch.pi * 200 * t) + quiet * clips(1, 8000)[0, 0])[None]
    for hard, soft in zip(
        spectral.mss_spectra(audio, RATE), spectral.mss_spectra(audio, RATE, True), strict=True
    ):
        assert (soft - hard).min() > -1e-3
        assert (soft - hard).max() < 3.02
    target = clips(1, 8000, seed=2)[:, 0]
    grad = torch.autograd.grad(spectral.mss(audio, target, RATE, soft_floor=True).sum(), quiet)[0]
    assert torch.isfinite(grad) and grad < 0.0


def test_mss_is_finite_at_silence():
    silent = torch.zeros(1, 2, 4000, requires_grad=True)
    distance = spectral.mss(silent, clips(1), RATE, soft_floor=True)
    distance.sum().backward()
    assert torch.isfinite(distance).all() and torch.isfinite(silent.grad).all()
    assert spectral.mss(torch.zeros(1, 4000), torch.zeros(1, 4000), RATE) == 0.0
