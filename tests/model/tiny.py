"""A model, features and a proxy small enough for tests, all from explicit seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unmixer_core import config, sampling
from unmixer_core.features.frames import FeatureSpec
from unmixer_core.features.store import FeatureTable
from unmixer_core.model.targets import Targets
from unmixer_core.model.unmixer import Unmixer
from unmixer_core.schema.patch import PHASES, Patches
from unmixer_core.training.curriculum import PhaseData
from unmixer_core.training.phase import PhaseSections, new_model

SPEC = FeatureSpec(44100, 2048, 1764, 32, 30.0, 18000.0, -80.0)
FRAMES = 25
MODEL = dict(
    width=4,
    embedding=24,
    harmonics=8,
    dropout=0.1,
    components=3,
    rank=2,
    sigma_floor=0.015,
    stops=True,
    knob_hidden=16,
    manifold="poincare",
    ball_dim=6,
    curvature=0.3,
    radius=1.0,
    chain_hidden=16,
)
LOSS = dict(
    lambda_p=1.0,
    lambda_c=1.0,
    lambda_o=1.0,
    lambda_e=1.0,
    lambda_s=0.5,
    nll_cap=6.0,
    label_smoothing=0.0,
    spectral_clips=2,
    spectral_every=2,
    spectral_start=0.0,
    spectral_ramp=0.1,
    temperature_start=1.0,
    temperature_end=0.5,
    audio_to_choices=True,
    audio_to_chain=True,
)
OPTIM = dict(
    lr=0.005,
    warmup=0.2,
    beta1=0.9,
    beta2=0.99,
    eps=1e-8,
    weight_decay=0.01,
    clip="norm",
    threshold=1.0,
    percentile=None,
    manifold_lr=1.0,
    ema=0.9,
)
AUGMENT = dict(noise_db=0.5, gain_db=0.5, shift_frames=1, mask_mels=2, mask_frames=2)
PHASE = dict(seed=5, epochs=3, proxy_epochs=1, batch=8, replay=0.5, lr_scale=1.0)
COUNTS = {
    f"{split}{phase}": 0
    for split in ("n_", "n_valid_", "n_test_")
    for phase in ("dry", "nonlinear", "full")
}
PRIOR = config.Sample(
    seed=0,
    test_seed=0,
    **COUNTS,
    chain_length_weights=(0.1, 0.2, 0.3, 0.2, 0.2),
    order_audible_bias=0.5,
    p_osc_2=0.3,
    p_sub=0.3,
    p_filter=0.7,
    p_unison=0.3,
    p_effect_mode=0.4,
    p_modulation=0.4,
    p_stop=0.05,
    note_low=36,
    note_high=72,
    gate_low_s=0.2,
    gate_high_s=0.8,
)


KINDS = (config.Model, config.Loss, config.Optim, config.Augment, config.TrainPhase)


def section(values: dict[str, Any], **changes: Any) -> Any:
    """The section of params.yaml that has these keys."""
    kind = next(kind for kind in KINDS if set(kind.model_fields) == set(values))
    return kind(**(values | changes))


def settings(**changes: dict[str, Any]) -> PhaseSections:
    """Changes by section: settings(phase={"epochs": 1})."""
    parts = {"phase": PHASE, "loss": LOSS, "optim": OPTIM, "augment": AUGMENT}
    return PhaseSections(
        **{name: section(values, **changes.get(name, {})) for name, values in parts.items()}
    )


def patches(
    n_train: int = 20, n_valid: int = 6, phases: tuple[str, ...] = ("dry", "nonlinear", "full")
) -> Patches:
    tables: list[Patches] = []
    for phase in phases:
        for split, n in (("train", n_train), ("valid", n_valid)):
            tables.append(sampling.sample(n, phase, split, 3, PRIOR, sum(map(len, tables))))
    return Patches.concat(tables)


def features(table: Patches, seed: int = 1) -> FeatureTable:
    """Noise whose level in some bands tells the chain, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 0, (len(table), 2, SPEC.n_mels, FRAMES))
    for effect in range(8):
        x[:, :, 4 * effect : 4 * effect + 4] += (table.chain == effect).any(1)[:, None, None, None]
    return FeatureTable(table, (x.astype(np.float16),), SPEC)


def data(phase: str = "full", **sizes: int) -> PhaseData:
    return PhaseData.of(features(patches(**sizes)), phase)


def with_proxy(phase: str = "full", n_proxy: int = 24) -> PhaseData:
    """The same beside `n_proxy` clips of the proxy, of every phase."""
    tables = [sampling.sample(n_proxy, name, "train", 77, PRIOR) for name in PHASES]
    return PhaseData.of(features(patches()), phase, features(Patches.concat(tables), seed=3))


def model(**changes: Any) -> Unmixer:
    return new_model(data(n_train=4, n_valid=1), section(MODEL, **changes), 7)


def batch(n: int = 8, seed: int = 2) -> tuple[Tensor, Targets]:
    """Features and targets of n full-chain clips."""
    table = sampling.sample(n, "full", "train", seed, PRIOR)
    return features(table).batch(range(n)), Targets.of(table)


class FakeProxy(nn.Module):
    """Audio that depends on every knob, choice weight and, in order, on every chain slot.

    [b, 2, 64].
    """

    sample_rate = 8000
    clip_s = 64 / 8000

    def forward(
        self,
        knobs: Tensor,
        choices: list[Tensor],
        chain: Tensor,
        note: Tensor,
        gate_s: Tensor,
        clip_s: float | None = None,
    ) -> Tensor:
        time = torch.linspace(0, 1, 64)
        rates = torch.arange(1, knobs.shape[1] + 1) * 0.7
        audio = (knobs[..., None] * torch.sin(rates[:, None] * 6.28 * time)).sum(1)
        for i, weight in enumerate(choices):
            audio = audio + (weight * torch.linspace(-1, 1, weight.shape[1])).sum(
                1, keepdim=True
            ) * torch.cos((i + 1) * 9 * time)
        for slot in chain.unbind(1):  # effect e: a drive of its own, so that order matters
            drives = torch.stack(
                [torch.tanh(audio * (0.3 + 0.2 * e)) + 0.05 * e for e in range(8)] + [audio], dim=1
            )
            audio = (slot[..., None] * drives).sum(1)
        return torch.stack([audio, 0.5 * audio], dim=1)


class Silent:
    """A log that keeps what it is told."""

    def __init__(self) -> None:
        self.rows: list[tuple[int | None, dict[str, float]]] = []
        self.bars: list[tuple[str, int | None]] = []

    def metrics(self, values: Any, step: int | None = None) -> None:
        self.rows.append((step, dict(values)))

    def progress(self, items: Any, total: int | None = None, desc: str = "") -> Any:
        self.bars.append((desc, total))
        return iter(items)
