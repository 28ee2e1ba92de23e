"""Every function equals the original DDSP (Magenta, 3.7.0) on recorded vectors, and every
argument gets a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unmixer_core import ddsp

VECTORS = Path(__file__).resolve().parents[2] / ".." / "shared" / "golden" / "ddsp_golden.npz"
PHASE_ACCUMULATES = {"wavetable_synthesis", "harmonic_synthesis", "oscillator_bank"}
OPTIONS: dict[str, tuple[Callable[..., torch.Tensor], dict[str, Any]]] = {
    "exp_sigmoid": (ddsp.exp_sigmoid, {}),
    "midi_to_hz": (ddsp.midi_to_hz, {}),
    "resample_nearest": (ddsp.resample, {"method": "nearest"}),
    "resample_linear": (ddsp.resample, {"method": "linear"}),
    "resample_cubic": (ddsp.resample, {"method": "cubic"}),
    "resample_window": (ddsp.resample, {"method": "window"}),
    "linear_lookup": (ddsp.linear_lookup, {}),
    "wavetable_synthesis": (ddsp.wavetable_synthesis, {}),
    "harmonic_synthesis": (ddsp.harmonic_synthesis, {}),
    "oscillator_bank": (ddsp.oscillator_bank, {}),
    "frequency_filter": (ddsp.frequency_filter, {}),
    "frequency_filter_w": (ddsp.frequency_filter, {}),
    "fft_convolve": (ddsp.fft_convolve, {}),
    "fft_convolve_valid": (ddsp.fft_convolve, {"padding": "valid", "delay_compensation": 0}),
    "sinc_filter": (ddsp.sinc_filter, {}),
    "variable_length_delay": (ddsp.variable_length_delay, {}),
    "mod_delay": (ddsp.mod_delay, {}),
    "reverb": (ddsp.reverb, {}),
    "spectral_loss_default": (ddsp.spectral_loss, {}),
    "spectral_loss_log": (ddsp.spectral_loss, {"mag_weight": 1.0, "logmag_weight": 1.0}),
}


@pytest.fixture(scope="module")
def vectors() -> dict[str, np.ndarray]:
    if not VECTORS.exists():
        pytest.skip(f"the recorded vectors are not here: {VECTORS}")
    with np.load(VECTORS) as file:
        return {name: file[name] for name in file.files}


def inputs(
    vectors: dict[str, np.ndarray], name: str
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    tensors = {
        k.split("/")[2]: torch.from_numpy(v)
        for k, v in vectors.items()
        if k.startswith(f"{name}/in/")
    }
    plain = {k.split("/")[2]: v.item() for k, v in vectors.items() if k.startswith(f"{name}/arg/")}
    return tensors, plain | OPTIONS[name][1]


def test_all_vectors_are_tested(vectors):
    assert {name.split("/")[0] for name in vectors} == set(OPTIONS)


@pytest.mark.parametrize("name", OPTIONS)
def test_equals_the_original(vectors, name):
    tensors, plain = inputs(vectors, name)
    found = OPTIONS[name][0](**tensors, **plain).numpy()
    wanted = vectors[f"{name}/out"]
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    tolerance = 1e-3 if name in PHASE_ACCUMULATES else 1e-4
    assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()


@pytest.mark.parametrize("name", OPTIONS)
def test_every_tensor_argument_receives_a_finite_gradient(vectors, name):
    tensors, plain = inputs(vectors, name)
    asked = {k: v.clone().requires_grad_() for k, v in tensors.items()}
    OPTIONS[name][0](**asked, **plain).square().sum().backward()
    for argument, value in asked.items():
        assert value.grad is not None, argument
        assert torch.isfinite(value.grad).all(), argument
        assert value.grad.abs().max() > 0.0, argument


@pytest.mark.parametrize("name", [n for n in OPTIONS if not n.startswith("spectral_loss")])
def test_batch_equals_loop(vectors, name):
    tensors, plain = inputs(vectors, name)
    whole = OPTIONS[name][0](**tensors, **plain)
    rows = [
        OPTIONS[name][0](**{k: v[i : i + 1] for k, v in tensors.items()}, **plain)
        for i in range(len(whole))
    ]
    torch.testing.assert_close(torch.cat(rows), whole, rtol=1e-4, atol=1e-5)
