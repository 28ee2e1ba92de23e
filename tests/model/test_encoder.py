from __future__ import annotations

import pytest
import torch

from tests.model import tiny
from unmixer_core.features.frames import FeatureSpec, mel_filters
from unmixer_core.model.encoder import (
    Encoder,
    band_mels,
    comb_of,
    harmonic_ratios,
    harmonic_view,
    held_of,
    mel_to_hz,
    note_to_hz,
)

SPEC = FeatureSpec(44100, 8192, 882, 96, 30.0, 18000.0, -80.0)


def test_band_centres_are_where_the_filters_peak() -> None:
    peak_hz = mel_filters(SPEC).argmax(-1) * SPEC.sample_rate / SPEC.n_fft
    torch.testing.assert_close(
        mel_to_hz(band_mels(SPEC)), peak_hz.float(), rtol=0.02, atol=SPEC.sample_rate / SPEC.n_fft
    )


def test_harmonic_view_reads_a_tone_at_its_harmonic_on_every_key() -> None:
    ratios = harmonic_ratios(32)
    centres_hz = mel_to_hz(band_mels(SPEC))
    for note in (40, 52, 64):
        x = torch.zeros(1, 2, 96, 3)
        tone_hz = 4 * note_to_hz(torch.tensor(float(note)))
        x[:, :, (centres_hz - tone_hz).abs().argmin()] = 1.0
        view = harmonic_view(x, torch.tensor([note]), ratios, SPEC)
        assert view.shape == (1, 2, 32, 3)
        assert view[0, 0, :, 0].argmax() == (ratios == 4).nonzero().item()


def test_harmonics_outside_the_bands_read_zero() -> None:
    view = harmonic_view(torch.ones(1, 2, 96, 1), torch.tensor([100]), harmonic_ratios(32), SPEC)
    assert (view[0, 0, -12:] == 0).all() and view[0, 0, 1] == pytest.approx(1.0)


def test_comb_is_one_on_harmonics_and_held_falls_after_the_gate() -> None:
    centres_hz = mel_to_hz(band_mels(SPEC))
    comb = comb_of(torch.tensor([57.0]), SPEC)[0]
    on = torch.stack([(centres_hz - 220.0 * k).abs().argmin() for k in (1, 2, 3, 4)])
    assert (comb[on] > 0.5).all() and comb.min() < 0.2
    held = held_of(torch.tensor([0.5]), 100, SPEC)[0]
    assert (held[:25] == 1).all() and (held[27:].diff() < 0).all()


def test_note_and_gate_change_the_vector_and_shapes_follow_the_spec() -> None:
    torch.manual_seed(0)
    encoder = Encoder(SPEC, width=4, harmonics=8, dropout=0.0).eval()
    x = torch.randn(2, 2, 96, 100, generator=torch.Generator().manual_seed(1))
    base = encoder(x, torch.tensor([48, 48]), torch.tensor([0.5, 0.5]))
    assert base.shape == (2, encoder.out_width)
    assert not torch.allclose(base, encoder(x, torch.tensor([60, 60]), torch.tensor([0.5, 0.5])))
    assert not torch.allclose(base, encoder(x, torch.tensor([48, 48]), torch.tensor([1.0, 1.0])))
    assert encoder(x[..., :61], torch.tensor([48, 48]), torch.tensor([0.5, 0.5])).shape == (
        2,
        encoder.out_width,
    )


def test_normalisation_undoes_offset_and_scale_of_the_features() -> None:
    torch.manual_seed(0)
    encoder = Encoder(tiny.SPEC, width=4, harmonics=8, dropout=0.0).eval()
    x, targets = tiny.batch(4)
    before = encoder(x, targets.note, targets.gate_s)
    encoder.normalise(torch.full((2, 32), 3.0), torch.full((2, 32), 2.0))
    torch.testing.assert_close(
        encoder(2 * x + 3, targets.note, targets.gate_s), before, rtol=1e-4, atol=1e-5
    )
