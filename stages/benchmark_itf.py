"""Inference-time finetuning judged by the host, beside search with the same renders and the same
seconds.
"""

from __future__ import annotations

from pathlib import Path

from unmixer_core import config
from unmixer_core.comparison import benchmark, page
from unmixer_core.comparison.resources import BenchmarkModels
from unmixer_core.dataset.clips import Clips
from unmixer_core.features.store import FeatureTable
from unmixer_core.live.renderer import Renderer
from unmixer_core.model import checkpoint
from unmixer_core.pipeline import machine, run
from unmixer_core.pipeline import state as pipeline_state
from unmixer_core.pipeline.log import StageLog
from unmixer_core.proxy.proxy import RackProxy
from unmixer_core.scoring import neighbours as scoring_neighbours
from unmixer_core.scoring import score


def main(
    renders: Path,
    features: Path,
    proxy: Path,
    model: Path,
    out_of_domain: Path,
    report: Path,
    audio: config.Audio,
    sample: config.Sample,
    itf: config.Itf,
    unmix: config.Unmix,
    log: StageLog,
) -> dict[str, float]:
    """Write the report folder (see `page.write`) and return the flat metrics.

    out_of_domain: folder of sound files with their table.
    """
    device = machine.device()
    rate = audio.sample_rate
    clips = Clips.open(renders)
    frames = FeatureTable.open(features, renders, device)
    twin = RackProxy.load(proxy).to(device)
    unmixer = checkpoint.load(model, device).model
    key = {
        "inputs": pipeline_state.fingerprint(renders, features, proxy, model, out_of_domain),
        "itf": itf,
        "unmix": unmix,
        "audio": audio,
    }
    state = pipeline_state.state_dir("benchmark_itf", key)
    ledger = score.Ledger(state / "clips.jsonl")
    targets = benchmark.read_targets(clips, out_of_domain, audio, sample, itf)
    retrieval = scoring_neighbours.index(
        clips, itf.n_retrieval, rate, machine.threads(), log.progress, state
    )
    with Renderer(audio) as host:
        # the first and the last in-domain clip, so that hosts are warm before any clock runs
        host.render([targets.in_domain[0].patch, targets.in_domain[-1].patch])
        models = BenchmarkModels(
            model=unmixer,
            proxy=twin,
            frames=frames,
            clips=clips,
            host=host,
            notes=targets.notes,
            itf=itf,
            unmix=unmix.model_copy(update={"seconds": itf.unmix_seconds}),
            sample_rate=rate,
        )
        # on a GPU, candidates side by side would only wait for each other
        threads = machine.threads() if device.type == "cpu" else 1
        resources = models.resources(retrieval, threads)
        sounds = benchmark.run(resources, targets.all, ledger, log.progress)
        benchmark.run_sensitivity(resources, targets, ledger, log.progress)
    results = benchmark.results(ledger, targets)
    page.write(results, page.examples(targets.all, sounds), report, rate, log)
    return results.metrics()


if __name__ == "__main__":
    run.run_stage(main)
