"""What is kept from call to call serves listening and learning alike."""

from __future__ import annotations

import torch

from unmixer_core.dsp import spectral


def test_listening_in_inference_mode_first_does_not_spoil_learning() -> None:
    spectral.mel_bank.cache_clear()
    spectral._hann.cache_clear()
    sound, other = torch.randn(2, 1, 2, 4000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        spectral.mss(sound, other, 8000)
    learned = sound.clone().requires_grad_()
    spectral.mss(learned, other, 8000).sum().backward()
    assert (
        learned.grad is not None
        and torch.isfinite(learned.grad).all()
        and (learned.grad != 0).any()
    )
