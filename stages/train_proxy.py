"""Calibrate the differentiable twin of the host, and train the neural proxy beside it.

Some constants are measured on single notes, then φ is fitted to the renders. The network learns the
same host from the same renders. `proxy.kind` selects the proxy that later stages use.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from unmixer_core import config
from unmixer_core.audio import Clip
from unmixer_core.calibration import neural_training, wavetables
from unmixer_core.calibration.calibrate import Calibration
from unmixer_core.calibration.gap import gap_report
from unmixer_core.calibration.material import Material
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
from unmixer_core.schema.chain import MAX_EFFECTS
from unmixer_core.schema.patch import Patch
from unmixer_core.system import files

#: Clips that are logged as sound and picture.
EXAMPLES = 3


def main(
    renders: Path, proxy: Path, audio: config.Audio, settings: config.ProxyFit, log: StageLog
) -> dict[str, float]:
    """Write `proxy`/proxy.safetensors and proxy.json.

    Returns the gap of both kinds to the host on held-out clips.
    """
    clips = Clips.open(renders)
    device = machine.device()
    renders_digest = hashlib.sha256((renders / "patches.parquet").read_bytes()).hexdigest()
    state = pipeline_state.state_dir(
        "train_proxy", {"renders": renders_digest, "audio": audio, "proxy": settings}
    )
    twin = RackProxy(settings.sample_rate, audio.clip_s)
    if settings.table_positions:
        measured = _measured(audio, settings, state, log)
        twin.set_measured(measured["spectra"], measured["early"])
    material = Material(clips, settings.sample_rate)
    calibration = Calibration(twin.to(device), material, settings, state, log.metrics, log.progress)
    results = calibration.run()
    twins: dict[str, ProxyModule] = {twin.KIND: twin}
    if settings.neural_steps or settings.kind == NeuralProxy.KIND:
        network = _network(material, audio, settings, state, log).to(device)
        twins[NeuralProxy.KIND] = network
        shuffled = np.random.default_rng(settings.seed).permutation(material.held_out(MAX_EFFECTS))
        rows = shuffled[: settings.held_out]
        results["neural.levels_db"] = neural_training.levels_gap_db(network, material, rows)
    for kind, each in twins.items():
        prefix = "" if kind == twin.KIND else f"{kind}."
        report = gap_report(each, material, settings.held_out, settings.seed)
        results |= {f"{prefix}{key}": value for key, value in report.items()}
    _examples(twins, material, log)
    twins[settings.kind].cpu().save(proxy)
    return results


def _measured(
    audio: config.Audio, settings: config.ProxyFit, state: Path, log: StageLog
) -> dict[str, torch.Tensor]:
    """The wavetables' spectra and the reverb's reflections, measured on the host.

    They are stored in `state` for a second run. Raises StageError when a note cannot be rendered.
    """
    stored = state / "heard.pt"
    if not stored.exists():
        notes = wavetables.table_patches(settings.table_note, settings.table_positions)
        clips = _rendered([*notes, *reflections.patches()], audio, log)
        level = float(RackProxy().voice.level().detach())
        rate = audio.sample_rate
        spectra = wavetables.spectra_from_clips(
            clips[: len(notes)], rate, settings.table_note, settings.table_positions, level
        )
        early = reflections.from_clips(clips[len(notes) :], rate)
        with files.replacing(stored) as temporary:
            torch.save({"spectra": spectra, "early": early}, temporary)
    measured: dict[str, torch.Tensor] = torch.load(stored, weights_only=True)
    return measured


def _rendered(patches: list[Patch], audio: config.Audio, log: StageLog) -> list[Clip]:
    """Short clips of the patches, in their order. Raises StageError when one fails."""
    clips: dict[int, Clip] = {}
    with Renderer(audio.model_copy(update={"clip_s": wavetables.CLIP_S})) as host:
        results = host.map(patches)
        for index, clip in log.progress(results, total=len(patches), desc="single notes"):
            if isinstance(clip, RenderFailure):
                raise StageError(
                    f"the host could not play the single note {index} that the proxy is measured "
                    f"on: {clip}."
                )
            clips[index] = clip
    return [clips[i] for i in range(len(patches))]


def _network(
    material: Material, audio: config.Audio, settings: config.ProxyFit, state: Path, log: StageLog
) -> NeuralProxy:
    """The trained neural proxy, stored in `state` for a second run."""
    network = neural_training.new_network(
        settings.sample_rate, audio.clip_s, settings.neural_width, settings.seed
    )
    stored = state / "neural"
    if not stored.exists():
        neural_training.fit(
            network.to(machine.device()),
            material,
            settings,
            log.metrics,
            log.progress,
            threads=machine.threads(),
        )
        network.cpu().save(state / "neural.tmp")
        (state / "neural.tmp").rename(stored)
    network.restore(stored)
    return network


def _examples(twins: dict[str, ProxyModule], material: Material, log: StageLog) -> None:
    """Log a few held-out clips with the proxies' sounds, as audio and as spectrograms."""
    for row in material.rows("valid", MAX_EFFECTS, 1)[:EXAMPLES]:
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
