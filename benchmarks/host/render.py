"""Renders a second: the pipeline's path (OSC, embedded hosts) beside bare vita on the same patches
and cores.

    python -m benchmarks.host.render [--patches 32] [--hosts 2] [--rounds 3] [--lanes 2]

Peers, each in as many processes as there are hosts, with the same patch → preset code and nothing
on the wire or disk: `bare`: a fresh vita.Synth per patch, the documented way to equal sound for
equal patches; `forked`: the host's own trick, a fork of one pristine Synth per patch. Rounds take
turns; ratios are medians over rounds. The sound of all three must be equal bit for bit. Processor
time is counted over all processes beside wall time, because it does not depend on what else the
machine does. `idle` is the figure of benchmarks.host.live. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.bound import held
from unmixer_core.headless.sound.device_state import DeviceState
from unmixer_core.headless.sound.job import SoundJob
from unmixer_core.live.osc import wire
from unmixer_core.live.renderer import Renderer
from unmixer_core.live.track.targets import FIXED_PROPERTIES, WAVETABLE_INDEX, baseline, targets
from unmixer_core.sampling import sample
from unmixer_core.schema.devices import WAVETABLES
from unmixer_core.schema.patch import Patch

RATE, CLIP_S, VELOCITY, BEATS_PER_S = 44100, 2.0, 100, 2.0
BARS = {"osc_over_bare": (">=", 0.9), "bit_equal": ("==", 1.0), "idle": ("<", 0.2)}


@dataclass(frozen=True)
class RenderedAudio:
    """The `audio` section."""

    sample_rate: int = RATE
    clip_s: float = CLIP_S
    velocity: int = VELOCITY


@dataclass(frozen=True)
class Prior:
    """The `sample` section: chains of all lengths alike."""

    seed: int = 11
    test_seed: int = 12
    chain_length_weights: tuple[float, ...] = (1.0,) * 9
    order_audible_bias: float = 0.5
    p_osc_2: float = 0.5
    p_sub: float = 0.3
    p_filter: float = 0.7
    p_unison: float = 0.3
    p_effect_mode: float = 0.4
    p_modulation: float = 0.4
    p_stop: float = 0.0
    note_low: int = 36
    note_high: int = 72
    gate_low_s: float = 0.3
    gate_high_s: float = 1.2


def job(patch: Patch) -> SoundJob:
    """What the host hands its worker for this patch."""
    gate_s = wire.float32(patch.gate_s * BEATS_PER_S) / BEATS_PER_S
    return SoundJob(
        _devices(patch), patch.note, VELOCITY / 127.0, 0.0, gate_s, CLIP_S, 120.0, RATE, ""
    )


def _devices(patch: Patch) -> list[dict[str, object]]:
    devices = []
    for name, target in targets(patch).items():
        values = {
            key: wire.float32(raw)
            for key, raw in (baseline(name) | dict(target.parameters)).items()
        }
        modulation: dict[str, dict[str, float]] = {}
        for (parameter, source), amount in target.modulations.items():
            modulation.setdefault(parameter, {})[source] = wire.float32(amount)
        properties = dict(target.properties) | (FIXED_PROPERTIES if target.tables else {})
        properties |= {
            WAVETABLE_INDEX.format(n): WAVETABLES.index(table) for n, table in target.tables.items()
        }
        devices.append(DeviceState(name, values, properties, modulation).to_dict())
    return devices


def bare(work: SoundJob) -> NDArray[np.float32]:
    """A fresh Synth for this patch."""
    import vita

    from unmixer_core.headless.sound.voice import preset
    from unmixer_core.headless.sound.worker import render

    devices = [DeviceState.from_dict(device) for device in work.devices]
    return render(work, vita.Synth(), preset(devices, work.tempo_bpm, for_render=True))


_pristine: list[object] = []


def forked(work: SoundJob) -> NDArray[np.float32]:
    """A fork of one pristine Synth; the sound comes back through a file in memory."""
    import vita

    from unmixer_core.headless.sound.voice import preset
    from unmixer_core.headless.sound.worker import _in_fork

    if not _pristine:
        _pristine.append(vita.Synth())
    devices = [DeviceState.from_dict(device) for device in work.devices]
    with tempfile.TemporaryDirectory(
        dir="/dev/shm" if Path("/dev/shm").is_dir() else None
    ) as folder:
        file = Path(folder, "take.wav")
        error = _in_fork(
            SoundJob(**asdict(work) | {"path": str(file)}),
            _pristine[0],
            preset(devices, work.tempo_bpm, for_render=True),
        )
        if error:
            raise RuntimeError(error)
        import soundfile

        return np.ascontiguousarray(soundfile.read(file, dtype="float32")[0].T)


def measure(patches: Sequence[Patch], hosts: int, lanes: int, rounds: int) -> dict[str, object]:
    """Seconds per render of each way, and their ratios."""
    works = [job(patch) for patch in patches]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with (
        Renderer(RenderedAudio(), hosts, lanes=lanes) as renderer,
        ProcessPoolExecutor(hosts, get_context("spawn")) as pool,
    ):
        ways: dict[str, Callable[[], list[object]]] = {
            "osc": lambda: list(renderer.render(patches)),
            "bare": lambda: list(pool.map(bare, works)),
            "forked": lambda: list(pool.map(forked, works)),
        }
        warm = {name: way() for name, way in ways.items()}
        equal = all(
            np.array_equal(a, b)
            for name in ("bare", "forked")
            for a, b in zip(warm["osc"], warm[name], strict=True)
        )
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        cpu: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                start, start_cpu = time.perf_counter(), cpu_s()
                way()
                seconds[name].append((time.perf_counter() - start) / len(patches))
                cpu[name].append((cpu_s() - start_cpu) / len(patches))
    result: dict[str, object] = {}
    for name in ways:
        result[f"{name}_renders_per_s"] = 1.0 / statistics.median(seconds[name])
        result[f"{name}_cpu_ms"] = 1000.0 * statistics.median(cpu[name])
    for peer in ("bare", "forked"):
        result[f"osc_over_{peer}"] = statistics.median(
            p / o for p, o in zip(seconds[peer], seconds["osc"], strict=True)
        )
        result[f"osc_over_{peer}_cpu"] = statistics.median(
            p / o for p, o in zip(cpu[peer], cpu["osc"], strict=True)
        )
    return result | {
        "bit_equal": equal,
        "patches": len(patches),
        "hosts": hosts,
        "lanes": lanes,
        "rounds": rounds,
        "cores": os.cpu_count(),
    }


def cpu_s() -> float:
    """Processor seconds spent so far by this process, its children and what they have reaped."""
    me = psutil.Process()
    total = sum(me.cpu_times()[:2])
    for child in me.children(recursive=True):
        times = child.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def idle(patches: Sequence[Patch]) -> float:
    """Share of the time in which no lane records.

    8 lanes on a host with Live's tick and Live's pace (benchmarks.host.live).
    """
    from benchmarks.host import live

    return live.measure(patches, lanes=8, tick_ms=100.0, options=live.AS_LIVE)["idle"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patches", type=int, default=32)
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    prior = Prior()
    result = measure(
        list(sample(options.patches, "full", "train", prior.seed, prior)),
        options.hosts,
        options.lanes,
        options.rounds,
    )
    result["idle"] = idle(list(sample(32, "full", "train", prior.seed, prior)))
    for key, value in result.items():
        print(f"{key:24} {value:.3f}" if isinstance(value, float) else f"{key:24} {value}")
    print(json.dumps(result | {"bars": held(result, BARS)}))


if __name__ == "__main__":
    main()
