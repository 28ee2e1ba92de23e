"""One training loop for the three phases of the curriculum.

Dry synth -> non-linear effects -> full chain.

What differs between phases is a value: which clips are new, which share of earlier ones is
replayed, how many epochs. A phase first rehearses on the proxy's clips, of which there are many,
then learns from the host's, which are true. Each phase starts from the last one's model and reports
what it gained and what it forgot of the earlier phases. An epoch's randomness depends on (seed,
epoch) alone, and its end is saved, so a run that was killed and continued gives the same bits as
one that was not. Several processes may share the work (`distributed`): the curve stays the same.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy.typing import NDArray
from torch import Tensor, nn

from unmixer_core import config
from unmixer_core.distributed import ALONE, Ranks, joined
from unmixer_core.features.store import FeatureTable
from unmixer_core.model import checkpoint, noise
from unmixer_core.model.unmixer import Unmixer
from unmixer_core.pipeline.log import Log
from unmixer_core.system import files
from unmixer_core.system.json_types import Json
from unmixer_core.training import losses
from unmixer_core.training.assessment import assess, assess_all
from unmixer_core.training.assessment import report as report_of
from unmixer_core.training.augment import augment
from unmixer_core.training.curriculum import PhaseData, Schedule, Sounds
from unmixer_core.training.objective import Objective, Part, ProxyTerm
from unmixer_core.training.optim import GCWD

LOG_EVERY = 10
#: Parameters and running statistics of a model, by name.
Weights: TypeAlias = dict[str, Shaped[Tensor, "..."]]


@dataclass(frozen=True)
class PhaseSections:
    """The sections of params.yaml that one phase is trained with."""

    phase: config.TrainPhase
    loss: config.Loss
    optim: config.Optim
    augment: config.Augment


@dataclass
class PhaseProgress:
    """Where a phase stands after an epoch.

    With model and optimiser, all that is needed to continue.
    """

    averaged: Weights
    epoch: int = 0
    step: int = 0
    best: float = math.inf
    best_weights: Weights = field(default_factory=dict)


def train_phase(
    phase: str,
    *,
    features: Path,
    proxy_frames: Path,
    renders: Path,
    proxy: Path,
    initial: Path | None,
    out: Path,
    architecture: config.Model,
    settings: PhaseSections,
    state: Path,
    log: Log,
    device: torch.device | str,
) -> dict[str, float]:
    """A stage's work: open the data, take the last phase's model (or build one), train, save.

    Returns the report.

    Raises:
        StageError, SchemaMismatch, AudioError: an input is missing or does not fit.
        TrainingError: a gradient is not finite.
    """
    with joined(device) as ranks:
        data = PhaseData.of(
            FeatureTable.open(features, renders, device), phase, FeatureTable.open(proxy_frames)
        )
        model = (
            checkpoint.load(initial).model
            if initial
            else new_model(data, architecture, settings.phase.seed)
        )
        sounds = Sounds.open(proxy, renders, device) if settings.loss.lambda_s > 0 else None
        report = fit(
            model,
            data,
            settings,
            state=state,
            log=log,
            proxy_term=sounds,
            device=device,
            ranks=ranks,
        )
        if ranks.first:
            trained = {name: dict(vars(section)) for name, section in vars(settings).items()}
            about = {"phase": phase, "report": report, "clips": data.counts, "trained": trained}
            checkpoint.save(out, model, architecture, about)
        return report


def new_model(data: PhaseData, architecture: config.Model, seed: int) -> Unmixer:
    """A fresh model whose weights depend on the seed alone, with the normalisation of the
    training features.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Unmixer(data.features.spec, architecture)
    model.encoder.normalise(*data.statistics())
    return model


def fit(
    model: Unmixer,
    data: PhaseData,
    settings: PhaseSections,
    *,
    state: Path,
    log: Log,
    proxy_term: ProxyTerm | None = None,
    device: torch.device | str = "cpu",
    stop_after: int | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Train one phase in place; the model ends with the best validated weights.

    Returns `assessment.report`.

    Args:
        state: folder of the resumable state; an unfinished run found there is continued.
        proxy_term: the loss through the proxy, or None to leave it out.
        stop_after: leave after this many epochs, as a kill would.
        ranks: the processes that share the work; the first one alone writes and logs.

    Raises:
        TrainingError: a gradient is not finite.
        ConfigError: there are more ranks than clips in an epoch.
    """
    # torch's stubs have no overload for `memory_format` together with a device.
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    schedule = Schedule(data, settings.phase, ranks.world)
    before = assess_all(model, data, settings.loss, device, ranks)
    judged = copy.deepcopy(model)
    limit = None if settings.optim.clip == "none" else 1.0
    objective = ranks.wrapped(Objective(model, settings.loss, limit, ranks))
    optimiser = make_optimiser(model, settings)
    progress = _resume(state / "epoch.pt", model, optimiser, device, ranks) or PhaseProgress(
        _weights(model)
    )
    for epoch in range(progress.epoch, min(len(schedule), stop_after or len(schedule))):
        heard = None if epoch < schedule.rehearsals else proxy_term
        _train_epoch(
            Stepper(model, objective, optimiser, data, settings, heard, device, ranks),
            schedule,
            progress,
            log,
        )
        judged.load_state_dict(progress.averaged)
        found = assess(judged, data, data.valid[data.phase], settings.loss, device, ranks)
        log.metrics({f"valid.{name}": value for name, value in found.items()}, step=progress.step)
        if found["loss"] <= progress.best:
            progress.best, progress.best_weights = found["loss"], _weights(judged)
        progress.epoch = epoch + 1
        if ranks.first:
            _save(state / "epoch.pt", model, optimiser, progress)
    if progress.best_weights:
        model.load_state_dict(progress.best_weights)
    return report_of(before, assess_all(model, data, settings.loss, device, ranks), data.phase)


def _train_epoch(stepper: Stepper, schedule: Schedule, progress: PhaseProgress, log: Log) -> None:
    settings, batches = stepper.settings, schedule.batches(progress.epoch)
    generator = torch.Generator().manual_seed(1_000_003 * settings.phase.seed + progress.epoch)
    stepper.model.train()
    with torch.random.fork_rng(devices=[], enabled=True):
        torch.manual_seed(generator.initial_seed())  # dropout takes no generator
        for batch in log.progress(batches, len(batches), schedule.title(progress.epoch)):
            share = progress.step / schedule.steps
            rate = (
                settings.optim.lr
                * settings.phase.lr_scale
                * one_cycle(share, settings.optim.warmup)
            )
            values = stepper.step(batch, rate, share, progress.step, generator)
            progress.step += 1
            _average(progress, stepper.model, settings.optim.ema)
            if progress.step % LOG_EVERY == 0 or "spectral" in values:
                log.metrics(stepper.terms(values), step=progress.step)


@dataclass(frozen=True)
class Stepper:
    """All that a step needs and that stays the same for an epoch."""

    model: Unmixer
    objective: nn.Module
    optimiser: GCWD
    data: PhaseData
    settings: PhaseSections
    proxy_term: ProxyTerm | None
    device: torch.device | str
    ranks: Ranks

    def step(
        self,
        batch: NDArray[np.int64],
        rate: float,
        share: float,
        step: int,
        generator: torch.Generator,
    ) -> dict[str, float]:
        """One batch: this rank's rows forward, all terms, one optimiser step.

        This rank's summands of what may be logged. `share` of the phase is done.
        """
        loss, rows = self.settings.loss, batch[self.ranks.rows(len(batch))]
        targets, features = (
            self.data.targets(rows).to(self.device),
            self._features(rows, len(batch), generator),
        )
        weight = loss.lambda_s * losses.schedule(share, loss.spectral_start, loss.spectral_ramp)
        due = weight > 0 and step % loss.spectral_every == 0
        term = self.proxy_term if due else None
        total, values = self.objective(
            features, Part(targets, rows, len(batch), share, term, loss.spectral_clips, weight)
        )
        self.optimiser.set_lr(rate)
        self.optimiser.zero_grad()
        total.backward()
        self.optimiser.step()
        return values

    def _features(
        self, rows: NDArray[np.int64], total: int, generator: torch.Generator
    ) -> Float[Tensor, "batch 2 mels frames"]:
        """Augmented frames of the rows, the noise that of the whole batch."""
        shared = (
            noise.share(self.ranks.rows(total), total) if self.ranks.world > 1 else nullcontext()
        )
        with shared:
            frames = self.data.features.batch(rows)
            return augment(frames, self.settings.augment, self.data.features.spec, generator).to(
                self.device
            )

    def terms(self, values: Mapping[str, float]) -> dict[str, float]:
        """What is logged of a step: the whole batch's values and what the optimiser did.

        Every rank has to ask.
        """
        report = self.optimiser.report
        return {f"train.{name}": value for name, value in self.ranks.summed(values).items()} | {
            "train.gradient_norm": report.gradient_norm,
            "train.clipped_share": report.clipped_share,
        }


def make_optimiser(model: Unmixer, settings: PhaseSections) -> GCWD:
    """GCWD over all parameters, by the `optim` section."""
    o = settings.optim
    return GCWD(
        model.named_parameters(),
        lr=o.lr,
        beta1=o.beta1,
        beta2=o.beta2,
        eps=o.eps,
        weight_decay=o.weight_decay,
        clip=o.clip,
        threshold=o.threshold,
        percentile=o.percentile,
        manifold_lr=o.manifold_lr,
    )


def one_cycle(share: float, warmup: float) -> float:
    """Learning-rate factor: cosine rise from 0.1 to 1 over `warmup`, then cosine fall to 0
    (Smith, Topin, 2018).
    """
    if share < warmup:
        return 0.55 - 0.45 * math.cos(math.pi * share / warmup)
    return 0.5 + 0.5 * math.cos(math.pi * (share - warmup) / max(1.0 - warmup, 1e-9))


# --- state ------------------------------------------------------------------------------------


def _average(progress: PhaseProgress, model: Unmixer, decay: float) -> None:
    """Exponential moving average of all weights and running statistics, quicker at first.

    The ball is convex, so a manifold point's average is a point of it.
    """
    decay = min(decay, (1 + progress.step) / (10 + progress.step))
    for name, value in _weights(model, clone=False).items():
        kept = progress.averaged[name]
        kept.lerp_(value, 1 - decay) if kept.is_floating_point() else kept.copy_(value)


def _weights(model: Unmixer, *, clone: bool = True) -> Weights:
    state = {name: value.detach().as_subclass(Tensor) for name, value in model.state_dict().items()}
    return {name: value.clone() for name, value in state.items()} if clone else state


def _save(path: Path, model: Unmixer, optimiser: GCWD, progress: PhaseProgress) -> None:
    content = {
        "model": _weights(model),
        "optimiser": optimiser.state_dict(),
        "progress": vars(progress),
    }
    # A file object, not a name: torch.save writes the file's name into the archive.
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(content, file)


def _resume(
    path: Path, model: Unmixer, optimiser: GCWD, device: torch.device | str, ranks: Ranks
) -> PhaseProgress | None:
    """Where an earlier run stopped, as the first rank finds it.

    Other nodes need not see its folder.
    """
    there = ranks.first and path.exists()
    where = device if ranks.world == 1 else "cpu"
    saved: Json | None = ranks.same(
        torch.load(path, map_location=where, weights_only=True) if there else None
    )
    if saved is None:
        return None
    model.load_state_dict(saved["model"])
    optimiser.load_state_dict(saved["optimiser"])
    progress = PhaseProgress(**saved["progress"])
    for weights in (progress.averaged, progress.best_weights):
        weights |= {name: value.to(device) for name, value in weights.items()}
    return progress
