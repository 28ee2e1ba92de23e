"""Phase 3 of the curriculum: chains of all eight effects, earlier sounds replayed."""

from __future__ import annotations

from pathlib import Path

from unmixer_core import config, stage
from unmixer_core.training import Settings, train_phase


def main(
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
    log: stage.Log,
) -> dict[str, float]:
    """Frames of host and proxy, clips, proxy and the last phase's model -> model.safetensors + model.json."""
    settings = Settings(train, loss, optim, augment)
    key = {
        "inputs": stage.fingerprint(features, proxy_frames, renders, proxy, initial),
        "model": architecture,
        **vars(settings),
    }
    return train_phase(
        "full",
        features=features,
        proxy_frames=proxy_frames,
        renders=renders,
        proxy=proxy,
        initial=initial,
        out=model,
        architecture=architecture,
        settings=settings,
        state=stage.state_dir("train_full", key),
        log=log,
        device=stage.device(),
    )


if __name__ == "__main__":
    stage.run(main, ranks=True)
