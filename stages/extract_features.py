"""Clips → log-mel features of mid and side, float16 shards.

Every clip is checked against its digest on the way.

With features.store off only the check is made, and what the trainer needs to make frames itself is
written.
"""

from __future__ import annotations

from pathlib import Path

import torch

from unmixer_core import config
from unmixer_core.dataset.clips import Clips
from unmixer_core.features.frames import FeatureSpec
from unmixer_core.features.store import TABLE, FeatureWriter, log_mel_of
from unmixer_core.pipeline import machine, run
from unmixer_core.pipeline.log import StageLog


def main(
    renders: Path, features: Path, audio: config.Audio, settings: config.Features, log: StageLog
) -> dict[str, float]:
    """Write `features`/shard-*.npy float16 [n, 2, mels, frames], meta.json and the patches."""
    clips, device = Clips.open(renders), machine.device()
    writer = FeatureWriter(
        features, FeatureSpec.of(settings, audio.sample_rate), store=settings.store
    )
    with torch.inference_mode():
        for shard in log.progress(range(len(clips.shards)), desc="features, shards"):
            rows = clips.shard_rows(shard)
            if settings.store:
                writer.write(shard, log_mel_of(clips, rows, writer.spec, device))
            else:
                clips.verify_all(rows)
    writer.finish(renders / TABLE)
    return {"clips": len(clips)} | (
        {"mean_level": writer.total / len(clips)} if settings.store else {}
    )


if __name__ == "__main__":
    run.run_stage(main)
