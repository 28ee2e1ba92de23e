"""How fast the proxy is: full chains of two seconds, forward and forward + backward with the
spectral loss.

    python -m benchmarks.proxy.speed [--sample-rate 44100] [--batch 16]

Bounds: forward ≥ 25× and forward + backward ≥ 8× real time on two cores, cost linear in batch and
in active effects, ≤ 150 MB per clip. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.bound import held
from unmixer_core import config, sampling
from unmixer_core.dsp import dynamics, spectral
from unmixer_core.pipeline import machine
from unmixer_core.proxy.proxy import RackProxy
from unmixer_core.schema import chain as chains
from unmixer_core.schema.patch import Patch

REPEATS = 3
BARS = {
    "forward_x_realtime": (">=", 25.0),
    "learning_x_realtime": (">=", 8.0),
    "peak_mib_per_clip": ("<=", 150e6 / 2**20),
}
Arguments = tuple[torch.Tensor, ...]


def arguments(patches: list[Patch]) -> Arguments:
    """Patches as Proxy.forward takes them."""
    columns = (
        (p.knobs, p.choices, p.chain.astype(np.int64), np.float32(p.note), np.float32(p.gate_s))
        for p in patches
    )
    return tuple(torch.as_tensor(np.stack(column)) for column in zip(*columns, strict=True))


def seconds(work: Callable[[], object]) -> float:
    """Median time of a few runs after a warm-up."""
    work()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def learn(proxy: RackProxy, batch: Arguments) -> None:
    """Forward, spectral loss, backward to the knobs."""
    knobs = batch[0].clone().requires_grad_()
    sound = proxy(knobs, *batch[1:])
    spectral.multiscale_spectral(
        sound, torch.zeros_like(sound) + 0.01, proxy.sample_rate
    ).sum().backward()


def listen(proxy: RackProxy, batch: Arguments) -> None:
    """Forward alone."""
    with torch.inference_mode():
        proxy(*batch)


def per_effect(proxy: RackProxy, batch: Arguments) -> dict[str, float]:
    """Milliseconds a clip that each effect adds to a dry patch, forward."""
    dry = batch[2].new_full(batch[2].shape, -1)
    base = seconds(lambda: listen(proxy, (*batch[:2], dry, *batch[3:])))
    added = {"wavetable": base}
    for i, name in enumerate(chains.decode(range(8))):
        chain = dry.clone()
        chain[:, 0] = i
        added[name] = seconds(lambda c=chain: listen(proxy, (*batch[:2], c, *batch[3:]))) - base
    return {name: round(1000.0 * value / len(batch[0]), 2) for name, value in added.items()}


def compressor_peers(sample_rate: int, n: int) -> dict[str, float]:
    """Our compressor's smoother beside torchcomp's exact one, where that is installed
    (milliseconds a clip, forward).
    """
    power = torch.rand(8, 2, n // 16)
    keep = torch.full((8,), 0.9)
    ours = seconds(lambda: dynamics.branching_smoother(power, keep, keep, floor=0.01 * keep))
    result = {"ours": 125.0 * ours}
    try:
        import torchcomp
    except ImportError:
        return result
    full = torch.rand(16, n)
    result["torchcomp"] = 125.0 * seconds(
        lambda: torchcomp.compexp_gain(full, -20.0, 4.0, -60.0, 0.5, 0.9, 0.9)
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample-rate", type=int, default=None)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    params = config.load(Path(__file__).resolve().parents[2] / "params.yaml")
    torch.set_num_threads(machine.threads())
    rate = options.sample_rate or params.proxy.sample_rate
    proxy = RackProxy(rate, params.audio.clip_s)
    patches = [
        sampling.draw("full", "test", i, params.sample.test_seed, params.sample)
        for i in range(options.batch)
    ]
    batch, audio_s = arguments(patches), options.batch * params.audio.clip_s
    twice = tuple(torch.cat([column, column]) for column in batch)  # the same chains, two of each
    forward, both = seconds(lambda: listen(proxy, batch)), seconds(lambda: learn(proxy, batch))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    figures = {
        "sample_rate": rate,
        "batch": options.batch,
        "threads": torch.get_num_threads(),
        "effects_per_patch": float((batch[2] >= 0).sum(1).float().mean()),
        "forward_x_realtime": audio_s / forward,
        "learning_x_realtime": audio_s / both,
        "batch_linearity": seconds(lambda: listen(proxy, twice)) / (2.0 * forward),
        "milliseconds_per_clip": per_effect(proxy, batch),
        "compressor_smoother_ms_per_clip": compressor_peers(
            rate, round(rate * params.audio.clip_s)
        ),
        "peak_mib_per_clip": peak_mib / options.batch,
    }
    print(json.dumps(figures | {"bars": held(figures, BARS)}))


if __name__ == "__main__":
    main()
