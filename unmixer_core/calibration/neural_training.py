"""Train the neural proxy: the mean absolute error of its log spectrogram on the host's renders."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unmixer_core import config
from unmixer_core.calibration.material import Material, Rows
from unmixer_core.errors import TrainingError
from unmixer_core.proxy.neural import NeuralProxy, mel_levels_db
from unmixer_core.schema.chain import MAX_EFFECTS

#: Clips that one thread analyses at a time.
READ_AT_ONCE = 16
#: Share of the steps over which the learning rate rises, and where it starts.
WARM_UP = 0.1
WARM_UP_START = 0.05
WEIGHT_DECAY = 0.01
#: Limit of the gradient's norm.
GRADIENT_NORM = 1.0
#: Least spread of the levels by which the network's output is scaled.
LEAST_SPREAD_DB = 1.0


def new_network(sample_rate: int, clip_s: float, width: int, seed: int) -> NeuralProxy:
    """Return an untrained network whose weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NeuralProxy(sample_rate, clip_s, width)


def spectrograms(
    material: Material, rows: Rows, frames: int, threads: int
) -> Float[Tensor, "rows 2 frames mels"]:
    """Levels of host clips as float16: the targets of the network."""
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
    settings: config.ProxyFit,
    report: Callable[[dict[str, float], int], None],
    progress: Callable[[range, int, str], Iterable[int]],
    *,
    threads: int = 1,
) -> None:
    """Train `proxy` in place on at most `neural_clips` training clips.

    Raises:
        TrainingError: the loss is not finite.
    """
    draw = np.random.default_rng(settings.seed)
    rows = np.sort(draw.permutation(material.rows("train", MAX_EFFECTS))[: settings.neural_clips])
    targets = spectrograms(material, rows, proxy.frames, threads)
    device = next(proxy.parameters()).device
    _standardise(proxy, targets, material.patches(rows, device).note)
    optimiser = torch.optim.AdamW(
        proxy.parameters(), lr=settings.neural_lr, weight_decay=WEIGHT_DECAY
    )
    batch = min(settings.neural_batch, len(rows))
    for step in progress(range(settings.neural_steps), settings.neural_steps, "neural proxy"):
        picked = draw.choice(len(rows), size=batch, replace=False)
        predicted = proxy.levels_db(*material.patches(rows[picked], device))
        loss = (predicted - targets[picked].to(predicted)).abs().mean()
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
    """Mean absolute error of the predicted spectrogram over clips, dB."""
    device = next(proxy.parameters()).device
    with torch.no_grad():
        target = spectrograms(material, rows, proxy.frames, 1).to(device)
        predicted = proxy.levels_db(*material.patches(rows, device))
    return float((predicted - target).abs().mean())


def _standardise(
    proxy: NeuralProxy,
    targets: Float[Tensor, "rows 2 frames mels"],
    note: Float[Tensor, "rows"],
) -> None:
    """Set the mean filter and the spread, in units of which the network predicts differences."""
    levels = targets.float() - proxy.own_db(note).to("cpu", torch.float32)
    mean = levels.mean(dim=0)
    proxy.mean_db.copy_(mean)
    proxy.spread_db.copy_((levels - mean).std().clamp_min(LEAST_SPREAD_DB))


def _schedule(done: float) -> float:
    """Factor of the learning rate: a short rise, then a straight fall to zero."""
    return min(done / WARM_UP + WARM_UP_START, 1.0, (1.0 - done) / (1.0 - WARM_UP))
