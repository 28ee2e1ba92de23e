"""More training frames than a host has time to render.

Patches of the same prior, heard through the proxy.

The proxy sounds a patch several times faster than the host. A network that has first learned from
many such clips, and then from the host's, names more effects than one that has only heard the
host's. No clip of any test or validation split is among them: a patch's random generator knows its
split. Frames only are kept; a sound is made again at need.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmixer_core import config
from unmixer_core.errors import StageError
from unmixer_core.features.frames import FeatureSpec, log_mel
from unmixer_core.proxy.proxy import RackProxy
from unmixer_core.proxy.twin import ProxyModule
from unmixer_core.sampling import draw
from unmixer_core.schema.patch import PHASES, Patch, Patches


class Settings(Protocol):
    """What is read of params.yaml's `proxy_clips` section."""

    seed: int
    n_dry: int
    n_nonlinear: int
    n_full: int
    batch: int
    shard_clips: int


class Limits(Protocol):
    """What is read of params.yaml's `render` section: which sounds are usable."""

    min_loudness_lufs: float
    max_peak: float
    max_redraws: int


@dataclass(frozen=True)
class ProxyShard:
    """Patches `start` to `stop` (excluded) of a phase; `number` counts shards of all phases."""

    number: int
    phase: str
    start: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """All that decides what the frames are, but for the proxy's weights. Sent to every worker."""

    settings: Settings
    sample: config.Sample
    limits: Limits
    spec: FeatureSpec

    def shards(self) -> list[ProxyShard]:
        """The work, in order."""
        size, parts = self.settings.shard_clips, []
        for phase in PHASES:
            n = getattr(self.settings, f"n_{phase}")
            parts += [(phase, start, min(start + size, n)) for start in range(0, n, size)]
        return [ProxyShard(number, *part) for number, part in enumerate(parts)]


def at_rate(spec: FeatureSpec, sample_rate: int) -> FeatureSpec:
    """The same windows, hops (in seconds) and bands for audio at another rate.

    Bands above its Nyquist stay at the floor.
    """
    ratio = sample_rate / spec.sample_rate
    return replace(
        spec, sample_rate=sample_rate, n_fft=round(spec.n_fft * ratio), hop=round(spec.hop * ratio)
    )


@torch.inference_mode()
def frames_of(
    proxy: ProxyModule, shard: ProxyShard, plan: Plan
) -> tuple[Patches, NDArray[np.float16]]:
    """A shard's patches, as redrawn where the proxy's sound was not usable, and their frames [n, 2,
    mels, frames].

    Raises StageError when a patch stays silent, runaway or not a number after `max_redraws`
    redraws.
    """
    spec = at_rate(plan.spec, proxy.sample_rate)
    patches: dict[int, Patch] = {}
    frames: dict[int, NDArray[np.float16]] = {}
    waiting = dict.fromkeys(range(shard.start, shard.stop), 0)
    while waiting:
        again: dict[int, int] = {}
        tries = sorted(waiting.items())
        for place in range(0, len(tries), plan.settings.batch):
            part = tries[place : place + plan.settings.batch]
            drawn = [
                draw(shard.phase, "train", i, plan.settings.seed, plan.sample, attempt)
                for i, attempt in part
            ]
            sound = _heard(proxy, drawn)
            found = log_mel(sound, spec).cpu().numpy().astype(np.float16)
            for (index, attempt), patch, row, good in zip(
                part, drawn, found, _usable(sound, plan.limits), strict=True
            ):
                if good:
                    patches[index], frames[index] = patch, row
                else:
                    again[index] = attempt + 1
        if max(again.values(), default=0) > plan.limits.max_redraws:
            raise StageError(
                f"a patch stayed silent or runaway in the proxy after {plan.limits.max_redraws} "
                f"redraws; see render.* "
                "and metrics/train_proxy.json."
            )
        waiting = again
    order = range(shard.start, shard.stop)
    table = Patches.stack([patches[i] for i in order], shard.phase, "train", shard.start)
    return table, np.stack([frames[i] for i in order])


def _heard(proxy: ProxyModule, patches: list[Patch]) -> Tensor:
    """Audio [n, 2, time] of single patches."""
    table, device = Patches.stack(patches, "full", "train"), next(proxy.parameters()).device
    columns = (
        table.knobs,
        table.choices,
        table.chain.astype(np.int64),
        table.note.astype(np.float32),
        table.gate_s,
    )
    return proxy(*(torch.as_tensor(column, device=device) for column in columns))


def _usable(sound: Tensor, limits: Limits) -> list[bool]:
    """Finite, not clipped and not silent (its mean power, near enough to its loudness, above the
    least), clip by clip.
    """
    power_db = 10.0 * torch.log10(sound.square().mean((1, 2)).clamp_min(1e-20))
    good = torch.isfinite(power_db) & (sound.abs().amax((1, 2)) <= limits.max_peak)
    return (good & (power_db >= limits.min_loudness_lufs)).tolist()


def make(
    proxy: Path, plan: Plan, state: Path, device: torch.device, workers: int
) -> Iterator[ProxyShard]:
    """Make every shard that `state` does not hold yet, in `workers` processes (a GPU: in this one).

    Yields finished ones.

    Raises StageError, SchemaMismatch when the proxy is missing or does not fit, or a patch cannot
    be heard.
    """
    missing = [shard for shard in plan.shards() if not _path(state, shard, "npy").exists()]
    yield from (shard for shard in plan.shards() if shard not in missing)
    if device.type != "cpu" or workers < 2 or len(missing) < 2:
        twin = RackProxy.load(proxy).to(device).eval()
        for shard in missing:
            yield _keep(state, shard, *frames_of(twin, shard, plan))
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


def read(state: Path, shard: ProxyShard) -> tuple[Patches, NDArray[np.float16]]:
    """A finished shard's patches and frames."""
    return Patches.read(_path(state, shard, "parquet")), np.load(_path(state, shard, "npy"))


def _keep(
    state: Path, shard: ProxyShard, patches: Patches, frames: NDArray[np.float16]
) -> ProxyShard:
    """Written then moved, the frames last: a shard whose frames are there is complete."""
    patches.write(_path(state, shard, "parquet"))
    temporary = _path(state, shard, "tmp")
    with temporary.open("wb") as file:
        np.save(file, frames)
    os.replace(temporary, _path(state, shard, "npy"))
    return shard


def _path(state: Path, shard: ProxyShard, ending: str) -> Path:
    return state / f"shard-{shard.number:05}.{ending}"


_worker: dict[str, tuple[ProxyModule, Plan]] = {}


def _begin(proxy: Path, plan: Plan) -> None:
    """A worker's start: one thread, its own proxy, and an end when the process that wants the
    frames is gone.
    """
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _worker["proxy"] = (RackProxy.load(proxy).eval(), plan)


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    """Wait for the parent's end, then end this process."""
    parent.join()
    os._exit(1)


def _work(state: Path, shard: ProxyShard) -> ProxyShard:
    proxy, plan = _worker["proxy"]
    return _keep(state, shard, *frames_of(proxy, shard, plan))
