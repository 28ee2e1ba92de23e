"""Training the neural proxy: mean absolute error of its log spectrogram on the host's renders,
and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from unmixer_core.calibration.calibrate import Material, Rows
from unmixer_core.errors import TrainingError
from unmixer_core.proxy.neural import NeuralProxy, mel_levels_db

READ_AT_ONCE = 16
WARM_UP = 0.1
GRADIENT_NORM = 1.0
LEAST_SPREAD_DB = 1.0


class Settings(Protocol):
    """What is read of params.yaml's `proxy` section."""

    seed: int
    neural_clips: int
    neural_steps: int
    neural_batch: int
    neural_lr: float


def new_network(sample_rate: int, clip_s: float, width: int, seed: int) -> NeuralProxy:
    """A fresh network whose weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NeuralProxy(sample_rate, clip_s, width)


def spectrograms(material: Material, rows: Rows, frames: int, threads: int) -> Tensor:
    """Levels of host clips, float16 [rows, 2, frames, mels]: what the network is to draw."""
    parts = np.array_split(rows, max(1, -(-len(rows) // READ_AT_ONCE)))

    def read(part: Rows) -> Tensor:
        with torch.no_grad():
            levels = mel_levels_db(material.audio(part, torch.device("cpu")), material.sample_rate)
        return levels[:, :, :frames].half()

    with ThreadPoolExecutor(threads) as pool:
        return torch.cat(list(pool.map(read, parts)))


def fit(
    proxy: NeuralProxy,
    material: Material,
    settings: Settings,
    report: Callable[[dict[str, float], int], None],
    progress: Callable[[range, int, str], Iterable[int]],
    *,
    threads: int = 1,
) -> None:
    """Trains `proxy` in place on at most `neural_clips` training clips.

    Raises TrainingError when the loss is no number.
    """
    draw = np.random.default_rng(settings.seed)
    rows = np.sort(draw.permutation(material.rows("train", 8))[: settings.neural_clips])
    wanted = spectrograms(material, rows, proxy.frames, threads)
    device = next(proxy.parameters()).device
    _standardise(proxy, wanted, material.patches(rows, device).note)
    optimiser = torch.optim.AdamW(proxy.parameters(), lr=settings.neural_lr, weight_decay=0.01)
    for step in progress(range(settings.neural_steps), settings.neural_steps, "neural proxy"):
        some = draw.choice(len(rows), size=min(settings.neural_batch, len(rows)), replace=False)
        drawn = proxy.levels_db(*material.patches(rows[some], device))
        loss = (drawn - wanted[some].to(drawn)).abs().mean()
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the neural proxy met a non-finite loss at step {step}; lower proxy.neural_lr."
            )
        for group in optimiser.param_groups:
            group["lr"] = settings.neural_lr * _schedule(step / settings.neural_steps)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(proxy.parameters(), GRADIENT_NORM)
        optimiser.step()
        report({"neural_loss_db": float(loss.detach())}, step)


def levels_gap_db(proxy: NeuralProxy, material: Material, rows: Rows) -> float:
    """Mean absolute error of the drawn spectrogram over clips, dB."""
    device = next(proxy.parameters()).device
    with torch.no_grad():
        wanted = spectrograms(material, rows, proxy.frames, 1).to(device)
        drawn = proxy.levels_db(*material.patches(rows, device))
    return float((drawn - wanted).abs().mean())


def _standardise(proxy: NeuralProxy, wanted: Tensor, note: Tensor) -> None:
    """The network draws differences from the mean filter, in units of their spread."""
    levels = wanted.float() - proxy.own_db(note).to("cpu", torch.float32)
    mean = levels.mean(dim=0)
    proxy.mean_db.copy_(mean)
    proxy.spread_db.copy_((levels - mean).std().clamp_min(LEAST_SPREAD_DB))


def _schedule(done: float) -> float:
    """A short rise, then a straight fall to zero."""
    return min(done / WARM_UP + 0.05, 1.0, (1.0 - done) / (1.0 - WARM_UP))
