"""Render every patch through the host over OSC.

Resumable, parallel over hosts, silent and clipped patches redrawn.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from unmixer_core import config
from unmixer_core.live.renderer import Renderer
from unmixer_core.live.repeatability import measure
from unmixer_core.pipeline import run
from unmixer_core.pipeline import state as pipeline_state
from unmixer_core.pipeline.log import StageLog
from unmixer_core.rendering.clip_store import ClipStore
from unmixer_core.rendering.render_job import RenderJob, host_digest
from unmixer_core.schema.patch import Patches

#: Patches rendered once more and twice, to see how well the host repeats itself.
DOUBLE_RENDERS = 4


def main(
    patches: Path,
    renders: Path,
    audio: config.Audio,
    sample: config.Sample,
    render: config.Render,
    log: StageLog,
) -> dict[str, float]:
    """Patch table → shards of clips, their manifests and the patches as rendered."""
    table = Patches.read(patches)
    key = {
        "patches": hashlib.sha256(patches.read_bytes()).hexdigest(),
        "host": host_digest(),
        "audio": audio,
        "render": render,
        "sample": sample,
    }
    state = pipeline_state.state_dir("render_patches", key, keep=True)
    store = ClipStore(
        state,
        len(table),
        render.shard_clips,
        round(audio.clip_s * audio.sample_rate),
        audio.sample_rate,
    )
    if store.damaged:
        words = f"damaged clips, rendered again: {', '.join(map(str, store.damaged))}"
        log.text("damaged.txt", f"{words}\n")
        sys.stderr.write(f"{words}.\n")
    with Renderer(audio) as host:
        if host.frozen is not None:
            log.text("frozen.txt", f"{host.frozen.describe()}\n")
        job = RenderJob(table, host, store, sample, render)
        for _ in log.progress(job.run(), total=len(table), desc="render"):
            pass
        rendered = job.patches()
        floor = measure(
            host,
            [rendered[i] for i in range(0, len(rendered), -(-len(rendered) // DOUBLE_RENDERS))],
        )
    store.publish(renders, rendered)
    loudness = [row.loudness_lufs for row in store.rows.values()]
    redraws = sum(row.attempt for row in store.rows.values())
    log.metrics(
        {
            "resumed": float(job.tally.resumed),
            "silent": float(job.tally.silent),
            "clipped": float(job.tally.clipped),
        }
    )
    return {
        "clips": len(table),
        "redraws": redraws,
        "loudness_lufs_mean": sum(loudness) / len(loudness),
        "repeat_residual_db": floor.residual_db,
        "repeat_level_db": floor.level_db,
        "repeat_spectral_db": floor.spectral_db,
    }


if __name__ == "__main__":
    run.run_stage(main)
