"""Log-mel features: where a tone lands, what level does, and the folder on disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmixer_core.errors import StageError
from unmixer_core.features.frames import FeatureSpec, log_mel
from unmixer_core.features.store import FeatureTable, FeatureWriter
from unmixer_core.schema.patch import Patch, Patches

SPEC = FeatureSpec(44100, 2048, 882, 96, 30.0, 18000.0, -80.0)


def _tone(hz, seconds=0.5):
    return torch.sin(2 * torch.pi * hz * torch.arange(int(44100 * seconds)) / 44100).repeat(2, 1)


def test_shape_range_and_level_blindness():
    features = log_mel(_tone(440.0), SPEC)
    assert features.shape == (2, 96, 25)
    assert features.min() >= -1.0 and features.max() <= 1.1
    assert torch.allclose(log_mel(0.01 * _tone(440.0), SPEC), features, atol=1e-4)


def test_a_higher_tone_lands_in_a_higher_band():
    peaks = [int(log_mel(_tone(hz), SPEC)[0].mean(-1).argmax()) for hz in (220.0, 880.0, 3520.0)]
    assert peaks == sorted(set(peaks))


def test_side_is_empty_for_mono_and_full_for_opposite_channels():
    tone = _tone(440.0)
    assert (log_mel(tone, SPEC)[1] == -1.0).all()
    opposite = log_mel(torch.stack([tone[0], -tone[0]]), SPEC)
    assert (opposite[0] == -1.0).all() and opposite[1].max() > 0.5


def test_silence_is_finite():
    assert torch.isfinite(log_mel(torch.zeros(2, 4410), SPEC)).all()


def test_batch_equals_loop():
    pair = torch.stack([_tone(300.0), _tone(700.0)])
    assert torch.allclose(log_mel(pair, SPEC)[1], log_mel(pair[1], SPEC), atol=1e-5)


def test_folder_round_trip_and_refusal(tmp_path):
    patches = Patches.stack([Patch.init(note=40 + i) for i in range(3)], "dry", "train")
    values = np.random.default_rng(0).random((3, 2, 96, 10)).astype(np.float16)
    with pytest.raises(StageError, match="extract_features"):
        FeatureTable.open(tmp_path)
    writer = FeatureWriter(tmp_path, SPEC)
    writer.write(0, values[:2])
    writer.write(1, values[2:])
    writer.finish(patches)
    features = FeatureTable.open(tmp_path)
    assert features.spec == SPEC and len(features) == 3
    assert np.array_equal(features.batch([2, 0]).numpy(), values[[2, 0]].astype(np.float32))
