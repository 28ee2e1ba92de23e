"""Many more training clips, heard through the proxy instead of the host.

Only their frames are kept.
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
    """Write `proxy_frames`/shard-*.npy float16 [n, 2, mels, frames], meta.json and the patches,
    as extract_features does.
    """
    plan = proxy_clips.Plan(settings, sample, render, FeatureSpec.of(features, audio.sample_rate))
    key = {
        "proxy": pipeline_state.fingerprint(proxy),
        "sample": sample,
        "render": render,
        "spec": plan.spec,
        "settings": settings,
    }
    state, shards = pipeline_state.state_dir("render_proxy", key), plan.shards()
    device, workers = machine.device(), machine.threads()
    for _ in log.progress(
        proxy_clips.make(proxy, plan, state, device, workers), len(shards), "proxy clips, shards"
    ):
        pass
    writer, tables = FeatureWriter(proxy_frames, plan.spec), [Patches.stack([], "full", "train")]
    for shard in shards:
        table, found = proxy_clips.read(state, shard)
        writer.write(shard.number, found)
        tables.append(table)
    table = Patches.concat(tables)
    writer.finish(table)
    return {"clips": len(table), "mean_level": writer.total / max(len(table), 1)}


if __name__ == "__main__":
    run.run_stage(main)
