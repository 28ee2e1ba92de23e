"""Render many more training clips through the proxy instead of the host.

Only their frames are stored.
"""

from __future__ import annotations

from pathlib import Path

from unmixer_core import config, proxy_clips
from unmixer_core.features.frames import FeatureSpec
from unmixer_core.features.store import FeatureWriter
from unmixer_core.pipeline import machine, run
from unmixer_core.pipeline import state as pipeline_state
from unmixer_core.pipeline.log import StageLog
from unmixer_core.schema.patch import Patches


def main(
    proxy: Path,
    proxy_frames: Path,
    audio: config.Audio,
    sample: config.Sample,
    render: config.Render,
    features: config.Features,
    settings: config.ProxyClips,
    log: StageLog,
) -> dict[str, float]:
    """Write the files that extract_features writes, to `proxy_frames`.

    They are shard-*.npy float16 [n, 2, mels, frames], meta.json and the patches.
    """
    plan = proxy_clips.Plan(settings, sample, render, FeatureSpec.of(features, audio.sample_rate))
    key = {
        "proxy": pipeline_state.fingerprint(proxy),
        "sample": sample,
        "render": render,
        "spec": plan.spec,
        "settings": settings,
    }
    state = pipeline_state.state_dir("render_proxy", key)
    shards = plan.shards()
    making = proxy_clips.make(proxy, plan, state, machine.device(), machine.threads())
    for _ in log.progress(making, len(shards), "proxy clips, shards"):
        pass
    writer = FeatureWriter(proxy_frames, plan.spec)
    # An empty table, so that there is one to write when no clips are asked for.
    tables = [Patches.stack([], "full", "train")]
    for shard in shards:
        table, frames = proxy_clips.read(state, shard)
        writer.write(shard.number, frames)
        tables.append(table)
    table = Patches.concat(tables)
    writer.finish(table)
    return {"clips": len(table), "mean_level": writer.total / max(len(table), 1)}


if __name__ == "__main__":
    run.run_stage(main)
