"""Phase 1 of the curriculum: the un-mixer from scratch, on Wavetable alone."""

from __future__ import annotations

from pathlib import Path

from unmixer_core import config, stage
from unmixer_core.training import Settings, train_phase


def main(
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
    log: stage.Log,
) -> dict[str, float]:
    """Frames of host and proxy, clips and proxy -> model.safetensors + model.json."""
    settings = Settings(train, loss, optim, augment)
    key = {"inputs": stage.fingerprint(features, proxy_frames, renders, proxy), "model": architecture, **vars(settings)}
    return train_phase(
        "dry",
        features=features,
        proxy_frames=proxy_frames,
        renders=renders,
        proxy=proxy,
        initial=None,
        out=model,
        architecture=architecture,
        settings=settings,
        state=stage.state_dir("train_dry", key),
        log=log,
        device=stage.device(),
    )


if __name__ == "__main__":
    stage.run(main, ranks=True)
