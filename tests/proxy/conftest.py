"""Patches and a small proxy for the tests of this folder, in which shapes are checked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.shapes import CHECKED
from unmixer_core import config, sampling
from unmixer_core.calibration.material import PatchBatch
from unmixer_core.proxy.proxy import RackProxy
from unmixer_core.schema.patch import Patch

RATE, CLIP_S = 8000, 0.4


@pytest.fixture(autouse=True)
def shapes_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the functions and methods of dsp and proxy for the length of a test."""
    for owner, name, function in CHECKED:
        monkeypatch.setattr(owner, name, function)


def batch(patches: list[Patch]) -> PatchBatch:
    """Patches as Proxy.forward takes them."""

    def column(name: str, dtype: torch.dtype) -> torch.Tensor:
        return torch.as_tensor(np.stack([getattr(p, name) for p in patches])).to(dtype)

    whole, real = torch.int64, torch.float32
    return PatchBatch(
        column("knobs", real),
        column("choices", whole),
        column("chain", whole),
        column("note", real),
        column("gate_s", real),
    )


@pytest.fixture(scope="session")
def proxy() -> RackProxy:
    return RackProxy(RATE, CLIP_S)


@pytest.fixture(scope="session")
def full_patches(params: config.Params) -> list[Patch]:
    """Ten patches with chains of several lengths, short notes."""
    drawn = [sampling.draw("full", "train", i, 11, params.sample) for i in range(10)]
    return [Patch(p.knobs, p.choices, p.chain, p.note, 0.2) for p in drawn]
