"""More training frames than a host has time to render: patches of the prior through the proxy.

The proxy plays a patch several times faster than the host. A network that first learns from many
such clips and then from the host's names more effects than one that learns from the host's alone.
No test or validation patch is among them, because a patch's random generator is seeded with its
split. Only frames are stored; the audio can be computed again.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from unmixer_core import config
from unmixer_core.errors import StageError
from unmixer_core.features.frames import FeatureSpec, log_mel
from unmixer_core.proxy.proxy import RackProxy
from unmixer_core.proxy.twin import ProxyModule
from unmixer_core.sampling import draw
from unmixer_core.schema.patch import PHASES, Patch, Patches
from unmixer_core.system import files

Frames = NDArray[np.float16]
#: Keeps the level of silence finite.
TINY_POWER = 1e-20


@dataclass(frozen=True)
class ProxyShard:
    """Patches `start` to `stop` (excluded) of a phase; `number` counts shards of all phases."""

    number: int
    phase: str
    start: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """Everything that determines the frames, except the proxy's weights. Sent to every worker."""

    settings: config.ProxyClips
    sample: config.Sample
    limits: config.Render
    spec: FeatureSpec

    def shards(self) -> list[ProxyShard]:
        """All shards, phase by phase."""
        size = self.settings.shard_clips
        shards: list[ProxyShard] = []
        for phase in PHASES:
            n: int = getattr(self.settings, f"n_{phase}")
            for start in range(0, n, size):
                stop = min(start + size, n)
                shards.append(ProxyShard(len(shards), phase, start, stop))
        return shards


def at_rate(spec: FeatureSpec, sample_rate: int) -> FeatureSpec:
    """Return a spec with the same windows, hops (in seconds) and bands at another sample rate.

    Bands above the Nyquist frequency of that rate stay at the floor.
    """
    ratio = sample_rate / spec.sample_rate
    return replace(
        spec, sample_rate=sample_rate, n_fft=round(spec.n_fft * ratio), hop=round(spec.hop * ratio)
    )


@torch.inference_mode()
def frames_of(proxy: ProxyModule, shard: ProxyShard, plan: Plan) -> tuple[Patches, Frames]:
    """A shard's patches and their frames [n, 2, mels, frames].

    A patch whose sound is not usable is drawn again.

    Raises:
        StageError: a patch is still silent, too loud or not finite after `max_redraws` redraws.
    """
    spec = at_rate(plan.spec, proxy.sample_rate)
    patches: dict[int, Patch] = {}
    frames: dict[int, Frames] = {}
    attempts = dict.fromkeys(range(shard.start, shard.stop), 0)
    while attempts:
        rejected: dict[int, int] = {}
        tries = sorted(attempts.items())
        for first in range(0, len(tries), plan.settings.batch):
            batch = tries[first : first + plan.settings.batch]
            drawn = [_drawn(plan, shard, index, attempt) for index, attempt in batch]
            sound = _played(proxy, drawn)
            rows = log_mel(sound, spec).cpu().numpy().astype(np.float16)
            usable = _usable(sound, plan.limits)
            for (index, attempt), patch, row, good in zip(batch, drawn, rows, usable, strict=True):
                if good:
                    patches[index] = patch
                    frames[index] = row
                else:
                    rejected[index] = attempt + 1
        if max(rejected.values(), default=0) > plan.limits.max_redraws:
            raise StageError(
                f"a patch stayed silent or runaway in the proxy after {plan.limits.max_redraws} "
                f"redraws; see render.* and metrics/train_proxy.json."
            )
        attempts = rejected
    order = range(shard.start, shard.stop)
    table = Patches.stack([patches[i] for i in order], shard.phase, "train", shard.start)
    return table, np.stack([frames[i] for i in order])


def _drawn(plan: Plan, shard: ProxyShard, index: int, attempt: int) -> Patch:
    return draw(shard.phase, "train", index, plan.settings.seed, plan.sample, attempt)


def _played(proxy: ProxyModule, patches: list[Patch]) -> Float[Tensor, "batch 2 time"]:
    """Audio of patches."""
    table = Patches.stack(patches, "full", "train")
    device = next(proxy.parameters()).device
    columns = (
        table.knobs,
        table.choices,
        table.chain.astype(np.int64),
        table.note.astype(np.float32),
        table.gate_s,
    )
    sound: Tensor = proxy(*(torch.as_tensor(column, device=device) for column in columns))
    return sound


def _usable(sound: Float[Tensor, "batch 2 time"], limits: config.Render) -> list[bool]:
    """Whether each clip is finite, not too loud and not silent.

    The mean power stands for the loudness, to which it is close and which costs more.
    """
    power_db = 10.0 * torch.log10(sound.square().mean((1, 2)).clamp_min(TINY_POWER))
    good = torch.isfinite(power_db) & (sound.abs().amax((1, 2)) <= limits.max_peak)
    usable: list[bool] = (good & (power_db >= limits.min_loudness_lufs)).tolist()
    return usable


def make(
    proxy: Path, plan: Plan, state: Path, device: torch.device, workers: int
) -> Iterator[ProxyShard]:
    """Make every shard that `state` does not hold yet, and yield all shards as they are finished.

    On a CPU, `workers` processes share the work; on a GPU, this process does it.

    Raises:
        StageError: the proxy is missing or does not fit, or a patch has no usable sound.
        SchemaMismatch: the proxy was trained for another schema.
    """
    missing = [shard for shard in plan.shards() if not _path(state, shard, "npy").exists()]
    yield from (shard for shard in plan.shards() if shard not in missing)
    if device.type != "cpu" or workers < 2 or len(missing) < 2:
        twin = RackProxy.load(proxy).to(device).eval()
        for shard in missing:
            yield _store(state, shard, *frames_of(twin, shard, plan))
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(workers, len(missing)), spawn, initializer=_begin, initargs=(proxy, plan)
    ) as pool:
        jobs = [pool.submit(_work, state, shard) for shard in missing]
        try:
            for job in as_completed(jobs):
                yield job.result()
        finally:
            pool.shutdown(cancel_futures=True)


def read(state: Path, shard: ProxyShard) -> tuple[Patches, Frames]:
    """A finished shard's patches and frames."""
    return Patches.read(_path(state, shard, "parquet")), np.load(_path(state, shard, "npy"))


def _store(state: Path, shard: ProxyShard, patches: Patches, frames: Frames) -> ProxyShard:
    """Write the patches, then the frames: a shard that has frames is complete."""
    patches.write(_path(state, shard, "parquet"))
    with files.replacing(_path(state, shard, "npy")) as temporary:
        np.save(temporary, frames)
    return shard


def _path(state: Path, shard: ProxyShard, ending: str) -> Path:
    return state / f"shard-{shard.number:05}.{ending}"


#: What `_begin` prepares in a worker process.
_worker: dict[str, tuple[ProxyModule, Plan]] = {}


def _begin(proxy: Path, plan: Plan) -> None:
    """Start a worker: one thread, its own proxy, and an end when the parent process is gone."""
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _worker["proxy"] = (RackProxy.load(proxy).eval(), plan)


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    """Wait for the parent's end, then exit at once, since the result has no receiver."""
    parent.join()
    os._exit(1)


def _work(state: Path, shard: ProxyShard) -> ProxyShard:
    proxy, plan = _worker["proxy"]
    return _store(state, shard, *frames_of(proxy, shard, plan))
