"""The curriculum, one phase a run.

`--phase dry` (Wavetable alone), `fx` (non-linear effects), `full` (all effects).

The first phase starts from scratch, each later one from the model of the phase before; earlier
sounds are replayed.
"""

from __future__ import annotations

from pathlib import Path

from unmixer_core import config
from unmixer_core.pipeline import machine, run, state
from unmixer_core.pipeline.log import StageLog
from unmixer_core.training.phase import PhaseSections, train_phase


def train_dry(
    features: Path,
    proxy_frames: Path,
    renders: Path,
    proxy: Path,
    model: Path,
    architecture: config.Model,
    loss: config.Loss,
    optim: config.Optim,
    augment: config.Augment,
    train: config.TrainDry,
    log: StageLog,
) -> dict[str, float]:
    """Frames of host and proxy, clips and proxy → model.safetensors and model.json in `model`."""
    settings = PhaseSections(train, loss, optim, augment)
    inputs = (features, proxy_frames, renders, proxy)
    return _train("dry", "train_dry", inputs, None, model, architecture, settings, log)


def train_fx(
    features: Path,
    proxy_frames: Path,
    renders: Path,
    proxy: Path,
    initial: Path,
    model: Path,
    architecture: config.Model,
    loss: config.Loss,
    optim: config.Optim,
    augment: config.Augment,
    train: config.TrainFx,
    log: StageLog,
) -> dict[str, float]:
    """The same, from the model of the dry phase in `initial`."""
    settings = PhaseSections(train, loss, optim, augment)
    inputs = (features, proxy_frames, renders, proxy)
    return _train("nonlinear", "train_fx", inputs, initial, model, architecture, settings, log)


def train_full(
    features: Path,
    proxy_frames: Path,
    renders: Path,
    proxy: Path,
    initial: Path,
    model: Path,
    architecture: config.Model,
    loss: config.Loss,
    optim: config.Optim,
    augment: config.Augment,
    train: config.TrainFull,
    log: StageLog,
) -> dict[str, float]:
    """The same, from the model of the second phase in `initial`."""
    settings = PhaseSections(train, loss, optim, augment)
    inputs = (features, proxy_frames, renders, proxy)
    return _train("full", "train_full", inputs, initial, model, architecture, settings, log)


PHASES: dict[str, run.Main] = {"dry": train_dry, "fx": train_fx, "full": train_full}


def _train(
    phase: str,
    stage: str,
    inputs: tuple[Path, Path, Path, Path],
    initial: Path | None,
    model: Path,
    architecture: config.Model,
    settings: PhaseSections,
    log: StageLog,
) -> dict[str, float]:
    """One phase, resumable."""
    features, proxy_frames, renders, proxy = inputs
    folders = inputs if initial is None else (*inputs, initial)
    key = {"inputs": state.fingerprint(*folders), "model": architecture, **vars(settings)}
    return train_phase(
        phase,
        features=features,
        proxy_frames=proxy_frames,
        renders=renders,
        proxy=proxy,
        initial=initial,
        out=model,
        architecture=architecture,
        settings=settings,
        state=state.state_dir(stage, key),
        log=log,
        device=machine.device(),
    )


if __name__ == "__main__":
    run.run_stage(PHASES, ranks=True)
