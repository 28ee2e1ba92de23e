"""Sounds for the tests of the embedded host, rendered as its workers do.

A fork of one pristine Vital each time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("vita")

from unmixer_core.headless.sound import worker
from unmixer_core.headless.sound.device_state import DeviceState
from unmixer_core.headless.sound.job import SoundJob
from unmixer_core.headless.sound.voice import preset
from unmixer_core.headless.sound.worker import Pristine

Sound = Callable[..., np.ndarray]


@pytest.fixture(scope="session")
def pristine() -> Pristine:
    return Pristine()


@pytest.fixture
def sound(pristine: Pristine, tmp_path: Path) -> Sound:
    """sound([DeviceState, ...], note=.., gate_s=.., duration_s=..) → float32 [2, samples]."""

    def render(
        devices,
        *,
        note=57,
        gate_s=0.22,
        duration_s=0.3,
        velocity=1.0,
        sample_rate=44100,
        start_s=0.0,
    ):
        job = SoundJob(
            [d.to_dict() for d in devices],
            note,
            velocity,
            start_s,
            gate_s,
            duration_s,
            120.0,
            sample_rate,
            str(tmp_path / "take.wav"),
        )
        text = preset(devices, for_render=True)
        error = worker.record(job, pristine if worker.CAN_FORK else Pristine(), text)
        assert not error, error
        audio, rate = soundfile.read(tmp_path / "take.wav", dtype="float32", always_2d=True)
        assert rate == sample_rate
        return audio.T

    return render


@pytest.fixture
def synth() -> Callable[..., DeviceState]:
    """A plain bright Wavetable: sawtooth of Basic Shapes, no filter, immediate full level.

    Keywords override (`Osc_1_Pos`=…).
    """

    def make(properties=None, modulation=None, **values):
        plain = {
            "Osc 1 Pos": 2 / 3,
            "Filter 1 On": 0.0,
            "Amp Attack": 0.0,
            "Amp Sustain": 1.0,
            "Amp Release": 0.2,
            "Volume": 0.7,
        }
        return DeviceState(
            "Wavetable",
            plain | {k.replace("_", " "): v for k, v in values.items()},
            properties or {},
            modulation or {},
        )

    return make
