"""Early reflections read back from bursts: what was put in comes out, whatever the notes."""

from __future__ import annotations

import math

import numpy as np
import torch

from unmixer_core.dsp.fft import circle
from unmixer_core.proxy import reflections

LENGTH = round(reflections.LENGTH_S * reflections.RATE)


def bursts() -> list[np.ndarray]:
    """Short noises instead of notes: [2, 0.6 s]."""
    rng = np.random.default_rng(0)
    sounds = []
    for _ in reflections.NOTES:
        mono = np.zeros(round(0.6 * reflections.RATE))
        mono[:400] = rng.normal(size=400)
        sounds.append(np.stack([mono, mono]).astype(np.float32))
    return sounds


def test_a_known_response_is_read_back() -> None:
    rng = np.random.default_rng(1)
    response = np.zeros((2, LENGTH))
    response[:, 300:3000] = rng.normal(size=(2, 2700)) * np.exp(-np.arange(2700) / 700.0)
    dry, share = bursts(), 0.7  # the schema's largest dry/wet
    mixed = []
    for sound in dry:
        wet = np.stack([np.convolve(sound[0], side)[: sound.shape[1]] for side in response])
        mixed.append(
            (math.cos(math.pi / 2 * share) * sound + math.sin(math.pi / 2 * share) * wet).astype(
                np.float32
            )
        )
    found = reflections.from_clips([*dry, *mixed], reflections.RATE).numpy()
    assert found.shape == (2, LENGTH)
    assert np.abs(found - response).max() < 0.05 * np.abs(response).max()


def test_its_spectrum_is_the_same_at_every_rate() -> None:
    early = torch.zeros(2, LENGTH)
    early[:, 441] = 1.0  # 10 ms
    for rate in (8000.0, 22050.0, 44100.0):
        on = circle(4000, like=early)
        found = reflections.spectrum(early, on, rate)
        expected = torch.polar(torch.ones_like(on.omega), -on.omega * rate * 0.01)
        assert found.shape == (2, len(on.omega))
        assert (found[0] - expected)[: len(on.omega) // 2].abs().max() < 0.05


def test_bursts_come_dry_first_and_wet_in_the_same_order() -> None:
    patches = reflections.patches()
    half = len(patches) // 2
    assert (
        [p.note for p in patches[:half]]
        == [p.note for p in patches[half:]]
        == list(reflections.NOTES)
    )
    assert all(p.effects == () for p in patches[:half]) and all(
        p.effects == ("Reverb",) for p in patches[half:]
    )
