"""Clips → log-mel features of mid and side, float16 shards; every clip is checked against its digest on the way."""

from __future__ import annotations

from pathlib import Path

import torch

from unmixer_core import config, stage
from unmixer_core.audio import Clips
from unmixer_core.features import FeatureSpec, FeatureWriter, log_mel_of


def main(
    renders: Path, features: Path, audio: config.Audio, settings: config.Features, log: stage.Log
) -> dict[str, float]:
    """Write `features`/shard-*.npy float16 [n, 2, mels, frames], meta.json and the patches."""
    clips = Clips.open(renders)
    spec = FeatureSpec.of(settings, audio.sample_rate)
    writer = FeatureWriter(features, spec)
    with torch.inference_mode():
        for shard in log.progress(range(len(clips.shards)), desc="features, shards"):
            writer.write(shard, log_mel_of(clips, clips.shard_rows(shard), spec))
    writer.finish(clips.patches)
    return {"clips": len(clips), "mean_level": writer.total / len(clips)}


if __name__ == "__main__":
    stage.run(main)
