"""Calibrate the differentiable twin of the host: wavetables read from single notes, then φ fitted to the renders."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from unmixer_core import config, stage
from unmixer_core.audio import Clips
from unmixer_core.errors import StageError
from unmixer_core.live.pool import RenderFailure
from unmixer_core.live.render import Renderer
from unmixer_core.plots import spectrograms
from unmixer_core.proxy import tables
from unmixer_core.proxy.calibrate import Calibration, Material
from unmixer_core.proxy.gap import gap_report
from unmixer_core.proxy.proxy import Proxy

EXAMPLES = 3


def main(renders: Path, proxy: Path, audio: config.Audio, settings: config.Proxy, log: stage.Log) -> dict[str, float]:
    """Clips → `proxy`/proxy.safetensors and proxy.json; returns the gap to the host on held-out clips."""
    clips = Clips.open(renders)
    renders_digest = hashlib.sha256((renders / "patches.parquet").read_bytes()).hexdigest()
    state = stage.state_dir("train_proxy", {"renders": renders_digest, "audio": audio, "proxy": settings})
    twin = Proxy(settings.sample_rate, audio.clip_s)
    if settings.table_positions:
        with torch.no_grad():
            twin.voice.spectra.copy_(_host_tables(twin, audio, settings, state, log))
    twin.to(stage.device())
    material = Material(clips, settings.sample_rate)
    results = Calibration(twin, material, settings, state, log.metrics, log.progress).run()
    report = gap_report(twin, material, settings.held_out, settings.seed)
    _examples(twin, material, log)
    twin.cpu().save(proxy)
    return results | report


def _host_tables(twin: Proxy, audio: config.Audio, settings: config.Proxy, state: Path, log: stage.Log) -> torch.Tensor:
    """Spectra of every wavetable, heard on the host (and kept in `state` for a re-run)."""
    kept = state / "spectra.pt"
    if not kept.exists():
        patches = tables.table_patches(settings.table_note, settings.table_positions)
        heard = {}
        with Renderer(audio.model_copy(update={"clip_s": tables.CLIP_S})) as host:
            for index, clip in log.progress(host.map(patches), total=len(patches), desc="single notes"):
                if isinstance(clip, RenderFailure):
                    raise StageError(
                        f"the host could not play the single note {index} that a wavetable is read from: {clip}."
                    )
                heard[index] = clip
        ordered = [heard[i] for i in range(len(patches))]
        level = float(twin.voice.level().detach())
        spectra = tables.spectra_from_clips(
            ordered, audio.sample_rate, settings.table_note, settings.table_positions, level
        )
        torch.save(spectra, kept)
    return torch.load(kept, weights_only=True)


def _examples(twin: Proxy, material: Material, log: stage.Log) -> None:
    """A few held-out clips beside their proxy, as sound and as pictures."""
    device = next(twin.parameters()).device
    for row in material.rows("valid", 8, 1)[:EXAMPLES]:
        with torch.no_grad():
            made = twin(*material.patches([row], device))[0].cpu().numpy()
        real = material.audio([row], torch.device("cpu"))[0].numpy()
        log.figure(f"proxy-{row}", spectrograms({"host": real, "proxy": made}, material.sample_rate))
        log.audio(f"host-{row}", real, material.sample_rate)
        log.audio(f"proxy-{row}", made, material.sample_rate)


if __name__ == "__main__":
    stage.run(main)
