"""torchaudio behind the shim computes what its formulas say."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from unmixer_core.dsp.spectral import mel_bank, stft_magnitude
from unmixer_core.features import torchaudio_cpu
from unmixer_core.features.torchaudio_cpu import torchaudio

RATE, SIZE, HOP, N_MELS = 44100, 2048, 512, 64


@pytest.fixture
def audio() -> torch.Tensor:
    return torch.randn(2, RATE // 2, generator=torch.Generator().manual_seed(0))


def htk_filters() -> np.ndarray:
    """Triangles evenly spaced on mel = 2595 log10(1 + f / 700), [bins, mels], height 1."""
    edges = 700.0 * (
        10.0 ** (np.linspace(0.0, 2595.0 * np.log10(1.0 + RATE / 2.0 / 700.0), N_MELS + 2) / 2595.0)
        - 1.0
    )
    bins = np.linspace(0.0, RATE / 2.0, SIZE // 2 + 1)
    return np.stack(
        [np.interp(bins, edges[m : m + 3], [0.0, 1.0, 0.0]) for m in range(N_MELS)], axis=1
    )


def test_log_mel_equals_stft_times_htk_filterbank(audio):
    mel = torchaudio.transforms.MelSpectrogram(RATE, n_fft=SIZE, hop_length=HOP, n_mels=N_MELS)
    window = torch.hann_window(SIZE)
    power = torch.stft(audio, SIZE, HOP, window=window, return_complex=True).abs().square()
    expected = torch.einsum("bft,fm->bmt", power, torch.from_numpy(htk_filters()).float())
    torch.testing.assert_close(
        torch.log(mel(audio) + 1e-5), torch.log(expected + 1e-5), rtol=1e-4, atol=1e-4
    )


def test_slaney_filters_equal_ours():
    theirs = torchaudio.functional.melscale_fbanks(
        SIZE // 2 + 1, 0.0, RATE / 2.0, 128, RATE, "slaney", "slaney"
    )
    torch.testing.assert_close(mel_bank(SIZE, 128, RATE), theirs, rtol=1e-4, atol=1e-7)


def test_spectrogram_equals_ours(audio):
    spectrogram = torchaudio.transforms.Spectrogram(
        SIZE, hop_length=HOP, power=1.0, pad_mode="constant"
    )
    torch.testing.assert_close(
        stft_magnitude(audio, SIZE, HOP).transpose(1, 2), spectrogram(audio), rtol=1e-4, atol=1e-4
    )


def test_resampling_keeps_a_tone():
    t = torch.arange(RATE) / RATE
    down = torchaudio.functional.resample(torch.sin(2 * torch.pi * 440.0 * t), RATE, RATE // 2)
    expected = torch.sin(2 * torch.pi * 440.0 * torch.arange(RATE // 2) / (RATE // 2))
    torch.testing.assert_close(down[500:-500], expected[500:-500], rtol=0.0, atol=2e-3)


def test_stub_is_not_wanted_once_an_extension_is_there():
    assert torchaudio_cpu.EXTENSION in sys.modules
    assert not torchaudio_cpu.needs_stub()


def test_stub_refuses_native_functions_by_name():
    def forced_align() -> None: ...

    with pytest.raises(RuntimeError, match="forced_align"):
        torchaudio_cpu.extension_stub().fail_if_no_align(forced_align)()
