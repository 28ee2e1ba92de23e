"""Calibrate the differentiable twin of the host.

What can be heard on single notes is read, then φ is fitted to the renders.

Beside it a network learns the same host from the same renders; `proxy.kind` says which of the two
the pipeline goes on with.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from unmixer_core import config
from unmixer_core.calibration import neural_training, wavetables
from unmixer_core.calibration.calibrate import Calibration, Material
from unmixer_core.calibration.gap import gap_report
from unmixer_core.dataset.clips import Clips
from unmixer_core.errors import StageError
from unmixer_core.live.host import RenderFailure
from unmixer_core.live.renderer import Renderer
from unmixer_core.pipeline import machine, run
from unmixer_core.pipeline import state as pipeline_state
from unmixer_core.pipeline.log import StageLog
from unmixer_core.proxy import reflections
from unmixer_core.proxy.neural import NeuralProxy
from unmixer_core.proxy.proxy import RackProxy
from unmixer_core.proxy.twin import ProxyModule
from unmixer_core.report.plots import spectrograms

EXAMPLES = 3


def main(
    renders: Path, proxy: Path, audio: config.Audio, settings: config.ProxyFit, log: StageLog
) -> dict[str, float]:
    """Clips → `proxy`/proxy.safetensors and proxy.json.

    Returns the gap of both kinds to the host on held-out clips.
    """
    clips, device = Clips.open(renders), machine.device()
    renders_digest = hashlib.sha256((renders / "patches.parquet").read_bytes()).hexdigest()
    state = pipeline_state.state_dir(
        "train_proxy", {"renders": renders_digest, "audio": audio, "proxy": settings}
    )
    twin = RackProxy(settings.sample_rate, audio.clip_s)
    if settings.table_positions:
        _read(twin, _heard(audio, settings, state, log))
    material = Material(clips, settings.sample_rate)
    results = Calibration(
        twin.to(device), material, settings, state, log.metrics, log.progress
    ).run()
    twins: dict[str, ProxyModule] = {twin.KIND: twin}
    if settings.neural_steps or settings.kind == NeuralProxy.KIND:
        twins[NeuralProxy.KIND] = network = _network(material, audio, settings, state, log).to(
            device
        )
        rows = np.random.default_rng(settings.seed).permutation(material.held_out(8))[
            : settings.held_out
        ]
        results["neural.levels_db"] = neural_training.levels_gap_db(network, material, rows)
    for kind, each in twins.items():
        prefix = "" if kind == twin.KIND else f"{kind}."
        report = gap_report(each, material, settings.held_out, settings.seed)
        results |= {f"{prefix}{key}": value for key, value in report.items()}
    _examples(twins, material, log)
    twins[settings.kind].cpu().save(proxy)
    return results


def _read(twin: RackProxy, heard: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        twin.voice.spectra.copy_(heard["spectra"])
        early = twin.effects[-1].early
        assert isinstance(early, torch.Tensor)
        early.copy_(heard["early"])


def _heard(
    audio: config.Audio, settings: config.ProxyFit, state: Path, log: StageLog
) -> dict[str, torch.Tensor]:
    """The wavetables' spectra and the reverb's reflections, heard on the host (and kept in
    `state` for a re-run).
    """
    kept = state / "heard.pt"
    if not kept.exists():
        notes = wavetables.table_patches(settings.table_note, settings.table_positions)
        patches = [*notes, *reflections.patches()]
        heard = {}
        with Renderer(audio.model_copy(update={"clip_s": wavetables.CLIP_S})) as host:
            for index, clip in log.progress(
                host.map(patches), total=len(patches), desc="single notes"
            ):
                if isinstance(clip, RenderFailure):
                    raise StageError(
                        f"the host could not play the single note {index} that the proxy reads: "
                        f"{clip}."
                    )
                heard[index] = clip
        ordered = [heard[i] for i in range(len(patches))]
        level = float(RackProxy().voice.level().detach())
        note, positions, rate = settings.table_note, settings.table_positions, audio.sample_rate
        spectra = wavetables.spectra_from_clips(ordered[: len(notes)], rate, note, positions, level)
        early = reflections.from_clips(ordered[len(notes) :], rate)
        torch.save({"spectra": spectra, "early": early}, kept)
    found: dict[str, torch.Tensor] = torch.load(kept, weights_only=True)
    return found


def _network(
    material: Material, audio: config.Audio, settings: config.ProxyFit, state: Path, log: StageLog
) -> NeuralProxy:
    """The neural proxy, trained (and kept in `state` for a re-run)."""
    network = neural_training.new_network(
        settings.sample_rate, audio.clip_s, settings.neural_width, settings.seed
    )
    kept = state / "neural"
    if not kept.exists():
        threads = machine.threads()
        neural_training.fit(
            network.to(machine.device()),
            material,
            settings,
            log.metrics,
            log.progress,
            threads=threads,
        )
        network.cpu().save(state / "neural.tmp")
        (state / "neural.tmp").rename(kept)
    network.restore(kept)
    return network


def _examples(twins: dict[str, ProxyModule], material: Material, log: StageLog) -> None:
    """A few held-out clips beside their proxies, as sound and as pictures."""
    for row in material.rows("valid", 8, 1)[:EXAMPLES]:
        sounds = {"host": material.audio([row], torch.device("cpu"))[0].numpy()}
        for kind, twin in twins.items():
            device = next(twin.parameters()).device
            with torch.no_grad():
                sounds[kind] = twin(*material.patches([row], device))[0].cpu().numpy()
        log.figure(f"proxy-{row}", spectrograms(sounds, material.sample_rate))
        for name, sound in sounds.items():
            log.audio(f"proxy-{row}-{name}", sound, material.sample_rate)


if __name__ == "__main__":
    run.run_stage(main)
