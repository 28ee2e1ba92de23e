"""One training loop for the three phases of the curriculum: dry synth -> non-linear effects -> full chain.

What differs between phases is a value: which clips are new, which share of earlier ones is replayed, how many epochs. A
phase first rehearses on the proxy's clips, of which there are many, then learns from the host's, which are true.
Each phase starts from the last one's model and reports what it gained and what it forgot of the earlier phases. An
epoch's randomness depends on (seed, epoch) alone, and its end is saved, so a run that was killed and continued gives
the same bits as one that was not.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmixer_core import losses
from unmixer_core.curriculum import PhaseData, PhaseSettings, Schedule, Sounds, batches_of
from unmixer_core.features import Features
from unmixer_core.losses import LossSettings
from unmixer_core.model import checkpoint
from unmixer_core.model.augment import AugmentSettings, augment
from unmixer_core.model.targets import N_EFFECTS, Targets
from unmixer_core.model.unmixer import Belief, Draw, ModelSettings, Unmixer
from unmixer_core.optim import GCWD
from unmixer_core.schema.rack import RACK

VALID_BATCH = 64
LOG_EVERY = 10
REPORTED_CHOICES = {"wavetable_accuracy": "wavetable.osc_1_wavetable", "filter_accuracy": "wavetable.filter_1_type"}


class OptimSettings(Protocol):
    """What is read of params.yaml's `optim` section."""

    lr: float
    warmup: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    clip: str
    threshold: float
    percentile: float | None
    manifold_lr: float
    ema: float


class Log(Protocol):
    """Where curves and progress go."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None: ...

    def progress(self, items: Iterable[Any], total: int | None = None, desc: str = "") -> Iterator[Any]: ...


@dataclass(frozen=True)
class Settings:
    """Everything a phase is trained by."""

    phase: PhaseSettings
    loss: LossSettings
    optim: OptimSettings
    augment: AugmentSettings


class ProxyTerm(Protocol):
    """The loss through the proxy (`curriculum.Sounds`): b samples and their rows of the features -> distances [b]."""

    def __call__(self, draw: Draw, targets: Targets, rows: NDArray[np.int64]) -> Tensor: ...


@dataclass
class Progress:
    """Where a phase stands after an epoch: with model and optimiser, all that is needed to continue."""

    averaged: dict[str, Tensor]
    epoch: int = 0
    step: int = 0
    best: float = math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)


def train_phase(
    phase: str,
    *,
    features: Path,
    proxy_frames: Path,
    renders: Path,
    proxy: Path,
    initial: Path | None,
    out: Path,
    architecture: ModelSettings,
    settings: Settings,
    state: Path,
    log: Log,
    device: torch.device | str,
) -> dict[str, float]:
    """A stage's work: open the data, take the last phase's model (or build one), train, save; returns the report.

    Raises:
        StageError, SchemaMismatch, AudioError: an input is missing or does not fit.
        TrainingError: a gradient is not finite.
    """
    data = PhaseData.of(Features.open(features), phase, Features.open(proxy_frames))
    model = checkpoint.load(initial).model if initial else new_model(data, architecture, settings.phase.seed)
    sounds = Sounds.open(proxy, renders, device) if settings.loss.lambda_s > 0 else None
    report = fit(model, data, settings, state=state, log=log, proxy_term=sounds, device=device)
    trained = {name: dict(vars(section)) for name, section in vars(settings).items()}
    about = {"phase": phase, "report": report, "clips": data.counts, "trained": trained}
    checkpoint.save(out, model, architecture, about)
    return report


def new_model(data: PhaseData, architecture: ModelSettings, seed: int) -> Unmixer:
    """A fresh model whose weights depend on the seed alone, with the normalisation of the training features."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Unmixer(data.features.spec, architecture)
    model.encoder.normalise(*data.statistics())
    return model


def fit(
    model: Unmixer,
    data: PhaseData,
    settings: Settings,
    *,
    state: Path,
    log: Log,
    proxy_term: ProxyTerm | None = None,
    device: torch.device | str = "cpu",
    stop_after: int | None = None,
) -> dict[str, float]:
    """Train one phase in place; the model ends with the best validated weights. Returns the report of `_report`.

    Args:
        state: folder of the resumable state; an unfinished run found there is continued.
        proxy_term: the loss through the proxy, or None to leave it out.
        stop_after: leave after this many epochs, as a kill would.

    Raises:
        TrainingError: a gradient is not finite.
    """
    model.to(device, memory_format=torch.channels_last)
    before = assess_all(model, data, settings.loss, device)
    optimiser = make_optimiser(model, settings)
    progress = _resume(state / "epoch.pt", model, optimiser, device) or Progress(_weights(model))
    judged = copy.deepcopy(model)
    schedule = Schedule(data, settings.phase)
    for epoch in range(progress.epoch, min(len(schedule), stop_after or len(schedule))):
        heard = None if epoch < schedule.rehearsals else proxy_term
        _train_epoch(model, optimiser, schedule, settings, progress, log, heard, device)
        judged.load_state_dict(progress.averaged)
        found = assess(judged, data, data.valid[data.phase], settings.loss, device)
        log.metrics({f"valid.{name}": value for name, value in found.items()}, step=progress.step)
        if found["loss"] <= progress.best:
            progress.best, progress.best_weights = found["loss"], _weights(judged)
        progress.epoch = epoch + 1
        _save(state / "epoch.pt", model, optimiser, progress)
    if progress.best_weights:
        model.load_state_dict(progress.best_weights)
    return _report(before, assess_all(model, data, settings.loss, device), data.phase)


def _train_epoch(
    model: Unmixer,
    optimiser: GCWD,
    schedule: Schedule,
    settings: Settings,
    progress: Progress,
    log: Log,
    proxy_term: ProxyTerm | None,
    device: torch.device | str,
) -> None:
    data, batches = schedule.data, schedule.batches(progress.epoch)
    generator = torch.Generator().manual_seed(1_000_003 * settings.phase.seed + progress.epoch)
    model.train()
    with torch.random.fork_rng(devices=[], enabled=True):
        torch.manual_seed(generator.initial_seed())  # dropout takes no generator
        for batch in log.progress(batches, len(batches), schedule.title(progress.epoch)):
            share = progress.step / schedule.steps
            optimiser.set_lr(settings.optim.lr * settings.phase.lr_scale * one_cycle(share, settings.optim.warmup))
            terms = _step(model, optimiser, data, settings, batch, share, progress.step, proxy_term, generator, device)
            progress.step += 1
            _average(progress, model, settings.optim.ema)
            if progress.step % LOG_EVERY == 0 or "train.spectral" in terms:
                log.metrics(terms, step=progress.step)


def _step(
    model: Unmixer,
    optimiser: GCWD,
    data: PhaseData,
    settings: Settings,
    batch: NDArray[np.int64],
    share: float,
    step: int,
    proxy_term: ProxyTerm | None,
    generator: torch.Generator,
    device: torch.device | str,
) -> dict[str, float]:
    """One batch: forward, all terms, one optimiser step. `share` of the phase is done."""
    targets = data.targets[torch.as_tensor(batch)].to(device)
    features = augment(data.features.batch(batch), settings.augment, data.features.spec, generator).to(device)
    belief = model(features, targets.note, targets.gate_s)
    terms = losses.parametric(model, belief, targets, settings.loss)
    total, values = terms.total(settings.loss), terms.floats()
    weight = settings.loss.lambda_s * losses.schedule(share, settings.loss.spectral_start, settings.loss.spectral_ramp)
    if proxy_term is not None and weight > 0 and step % settings.loss.spectral_every == 0:
        heard = slice(0, settings.loss.spectral_clips)
        term, found = _through_proxy(model, belief[heard], targets[heard], batch[heard], settings, share, proxy_term)
        total, values = total + weight * term, values | found
    optimiser.zero_grad()
    total.backward()
    optimiser.step()
    report = optimiser.report
    return {f"train.{name}": value for name, value in values.items()} | {
        "train.gradient_norm": report.gradient_norm,
        "train.clipped_share": report.clipped_share,
    }


def _through_proxy(
    model: Unmixer,
    belief: Belief,
    targets: Targets,
    rows: NDArray[np.int64],
    settings: Settings,
    share: float,
    proxy_term: ProxyTerm,
) -> tuple[Tensor, dict[str, float]]:
    """The spectral term (see `losses.carried`) and what to log of it."""
    draw = model.draw(
        belief,
        losses.temperature(share, settings.loss),
        through_choices=settings.loss.audio_to_choices,
        through_chain=settings.loss.audio_to_chain,
    )
    distance = proxy_term(draw, targets, rows)
    term, dropped = losses.carried(distance, draw, None if settings.optim.clip == "none" else 1.0)
    return term, {"spectral": float(distance.detach().mean()), "spectral_dropped": float(dropped)}


def make_optimiser(model: Unmixer, settings: Settings) -> GCWD:
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
    """Learning-rate factor: cosine rise from 0.1 to 1 over `warmup`, then cosine fall to 0 (Smith, Topin, 2018)."""
    if share < warmup:
        return 0.55 - 0.45 * math.cos(math.pi * share / warmup)
    return 0.5 + 0.5 * math.cos(math.pi * (share - warmup) / max(1.0 - warmup, 1e-9))


# --- judging -------------------------------------------------------------------------------------------------------


def assess_all(
    model: Unmixer, data: PhaseData, settings: LossSettings, device: torch.device | str
) -> dict[str, dict[str, float]]:
    """`assess` on the validation clips of this phase and every earlier one."""
    return {name: assess(model, data, rows, settings, device) for name, rows in data.valid.items()}


@torch.no_grad()
def assess(
    model: Unmixer,
    data: PhaseData,
    rows: NDArray[np.int64],
    settings: LossSettings,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Loss and terms, accuracy of two choices where audible, macro-F1 of the effect set and exact chains (greedy)."""
    model.eval()
    sums: dict[str, float] = {}
    guessed, true, exact = [], [], []
    hits: dict[str, list[Tensor]] = {name: [] for name in REPORTED_CHOICES}
    for batch in batches_of(rows, VALID_BATCH):
        targets = data.targets[torch.as_tensor(batch)].to(device)
        belief = model(data.features.batch(batch).to(device), targets.note, targets.gate_s)
        terms = losses.parametric(model, belief, targets, settings)
        found = terms.floats() | {"loss": float(terms.total(settings))}
        sums = {name: sums.get(name, 0.0) + value * len(batch) / len(rows) for name, value in found.items()}
        chain = model.chain.beam(belief.vector, belief.classes.present, 4)[0][:, 0]
        guessed.append((chain[..., None] == torch.arange(N_EFFECTS, device=chain.device)).any(1))
        true.append(targets.present.bool())
        exact.append((chain == targets.chain).all(-1))
        for name, key in REPORTED_CHOICES.items():
            column = RACK.choice_index[key]
            right = belief.classes.choices[column].argmax(-1) == targets.choices[:, column]
            hits[name].append(right[targets.choice_mask[:, column]])
    accuracy = {name: torch.cat(found).float().mean().item() for name, found in hits.items()}
    f1 = macro_f1(torch.cat(guessed), torch.cat(true))
    return sums | accuracy | {"effects_f1": f1, "chain_exact": torch.cat(exact).float().mean().item()}


def macro_f1(guessed: Tensor, true: Tensor) -> float:
    """Mean over the classes that occur of F1: bool [n, classes] each; 1 when none occurs and none is guessed."""
    both, either = (guessed & true).sum(0).float(), guessed.sum(0) + true.sum(0)
    occurs = either > 0
    return float((2 * both[occurs] / either[occurs]).mean()) if occurs.any() else 1.0


def _report(before: dict[str, dict[str, float]], after: dict[str, dict[str, float]], phase: str) -> dict[str, float]:
    """`<phase>.<measure>` after training, `gained` = fall of this phase's loss, `forgotten.<earlier>` = rise of theirs."""
    report = {f"{name}.{measure}": value for name, found in after.items() for measure, value in found.items()}
    report["gained"] = before[phase]["loss"] - after[phase]["loss"]
    earlier = [name for name in after if name != phase]
    return report | {f"forgotten.{name}": after[name]["loss"] - before[name]["loss"] for name in earlier}


# --- state ---------------------------------------------------------------------------------------------------------


def _average(progress: Progress, model: Unmixer, decay: float) -> None:
    """Exponential moving average of all weights and running statistics, quicker at first. The ball is convex, so a
    manifold point's average is a point of it."""
    decay = min(decay, (1 + progress.step) / (10 + progress.step))
    for name, value in _weights(model, clone=False).items():
        kept = progress.averaged[name]
        kept.lerp_(value, 1 - decay) if kept.is_floating_point() else kept.copy_(value)


def _weights(model: Unmixer, *, clone: bool = True) -> dict[str, Tensor]:
    state = {name: value.detach().as_subclass(Tensor) for name, value in model.state_dict().items()}
    return {name: value.clone() for name, value in state.items()} if clone else state


def _save(path: Path, model: Unmixer, optimiser: GCWD, progress: Progress) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save({"model": _weights(model), "optimiser": optimiser.state_dict(), "progress": vars(progress)}, temporary)
    os.replace(temporary, path)


def _resume(path: Path, model: Unmixer, optimiser: GCWD, device: torch.device | str) -> Progress | None:
    if not path.exists():
        return None
    saved: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    model.load_state_dict(saved["model"])
    optimiser.load_state_dict(saved["optimiser"])
    return Progress(**saved["progress"])
