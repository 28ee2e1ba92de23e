"""The render pool past one process: Ray beside the local engine, and what `kill -9` costs on both.

    python -m benchmarks.host.scale [--patches 48] [--hosts 2] [--rounds 3] [--kill-patches 24]
    [--no-kills]

Throughput: both engines stand at the same time, with as many hosts of their own each, and take
turns on the same patches; `ray_over_local` is the median over rounds of Ray's renders a second over
the local engine's in the same round. Their sound must be equal bit for bit.

Kills: a data set is rendered into a clip store while a host, a Ray actor or the head of the Ray
cluster is killed (after a quarter of it). `lost` counts patches without a clip at the end, `twice`
patches that were stored more than once; after the head's death the render is started again on a new
head, as a person would. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from benchmarks.bound import held
from benchmarks.host import ray_cluster
from benchmarks.host.render import RATE, Prior, RenderedAudio
from unmixer_core.errors import HostError
from unmixer_core.live.renderer import Renderer
from unmixer_core.rendering.clip_store import ClipStore
from unmixer_core.rendering.render_job import RenderJob
from unmixer_core.sampling import sample
from unmixer_core.schema.patch import Patch, Patches

ENGINES = ("local", "ray")
BARS = {"ray_over_local": (">=", 0.85)} | {
    f"kills.{kill}.{count}": ("==", 0.0)
    for kill in ("local_host", "ray_host", "ray_actor", "ray_head")
    for count in ("lost", "twice")
}
ANY = SimpleNamespace(min_loudness_lufs=-200.0, max_peak=1e6, max_redraws=0)
Kill = Callable[[], None]


def throughput(patches: Sequence[Patch], hosts: int, rounds: int) -> dict[str, object]:
    """Renders a second of both engines, in turns."""
    rates: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    with (
        Renderer(RenderedAudio(), hosts, engine="local") as local,
        Renderer(RenderedAudio(), hosts, engine="ray") as far,
    ):
        renderers = {"local": local, "ray": far}
        warm = {engine: renderer.render(patches) for engine, renderer in renderers.items()}
        equal = all(np.array_equal(a, b) for a, b in zip(warm["local"], warm["ray"], strict=True))
        for turn in range(rounds):
            for engine in ENGINES[:: 1 if turn % 2 else -1]:
                start_s = time.perf_counter()
                renderers[engine].render(patches)
                rates[engine].append(len(patches) / (time.perf_counter() - start_s))
    ratios = [far / near for far, near in zip(rates["ray"], rates["local"], strict=True)]
    medians = {
        f"{engine}_renders_per_s": statistics.median(values) for engine, values in rates.items()
    }
    return {
        **medians,
        "ray_over_local": statistics.median(ratios),
        "bit_equal": equal,
        "ratios": ratios,
    }


def killed(
    table: Patches, hosts: int, engine: str, kill: Kill | None, again: Kill | None = None
) -> dict[str, object]:
    """Renders `table` with a kill after a quarter of it.

    `again`: called before the second run, if the first one failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        start_s, said = time.perf_counter(), ""
        try:
            _fill(Path(folder), table, hosts, engine, kill)
        except HostError as error:
            said = str(error)
            if again is not None:
                again()
            _fill(Path(folder), table, hosts, engine, None)
        lines = Path(folder, "journal.jsonl").read_text(encoding="utf-8").splitlines()
        counts = Counter(json.loads(line)["index"] for line in lines)
        lost = sum(counts[row] == 0 for row in range(len(table)))
        twice = sum(count > 1 for count in counts.values())
        return {"lost": lost, "twice": twice, "s": time.perf_counter() - start_s, "said": said}


def _fill(folder: Path, table: Patches, hosts: int, engine: str, kill: Kill | None) -> None:
    audio = RenderedAudio()
    store = ClipStore(folder, len(table), 16, round(audio.clip_s * RATE), RATE)
    with Renderer(audio, hosts, engine=engine) as renderer:
        for n, _ in enumerate(RenderJob(table, renderer, store, Prior(), ANY).run()):
            if n == len(table) // 4 and kill is not None:
                kill()


def kills(table: Patches, hosts: int) -> dict[str, dict[str, object]]:
    """Every kind of death."""
    found = {
        "local_host": killed(table, hosts, "local", lambda: ray_cluster.hosts()[0].kill()),
        "ray_host": killed(table, hosts, "ray", lambda: ray_cluster.hosts()[0].kill()),
        "ray_actor": killed(table, hosts, "ray", lambda: ray_cluster.actors()[0].kill()),
    }
    with ray_cluster.head(hosts) as first, ray_cluster.head(hosts) as second:
        os.environ["RAY_ADDRESS"] = first.address
        try:
            move = partial(os.environ.__setitem__, "RAY_ADDRESS", second.address)
            found["ray_head"] = killed(table, hosts, "ray", first.kill, move)
        finally:
            del os.environ["RAY_ADDRESS"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patches", type=int, default=48)
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kill-patches", type=int, default=24)
    parser.add_argument("--no-kills", action="store_true", help="throughput only")
    options = parser.parse_args()
    os.environ.pop("RAY_ADDRESS", None)
    prior = Prior()
    table = sample(max(options.patches, options.kill_patches), "full", "train", prior.seed, prior)
    result = throughput(list(table)[: options.patches], options.hosts, options.rounds)
    print(" ".join(f"{name} {value}" for name, value in result.items()))
    if not options.no_kills:
        short = table.select(np.arange(options.kill_patches))
        result["kills"] = found = kills(short, options.hosts)
        for name, counts in found.items():
            print(name, " ".join(f"{key} {value}" for key, value in counts.items()))
    result |= {
        "patches": options.patches,
        "hosts": options.hosts,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    print(json.dumps(result | {"bars": held(result, BARS)}))


if __name__ == "__main__":
    main()
