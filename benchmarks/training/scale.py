"""Does training stay flat in memory and time whatever the number of clips, and do ranks keep the
curve?

    # train_full on 10k and on 1M clips (synthetic)
    python benchmarks/training/scale.py flat
    python benchmarks/training/scale.py flat --clips 10000 100000 --steps 40 --no-store
    # 1 process beside 2 ranks, on data of a run
    python benchmarks/training/scale.py curve RUN

`flat` makes a manifest of each size: drawn patches repeated, and sparse shards, which read as
silence and take no disk. The real `training.train_phase` works on it in a process of its own, for
the first steps of its first epoch, spectral term and validation included. Peak memory is the
process's high-water mark (VmHWM), seconds are medians over steps; CPU seconds mean something on a
busy machine too. One JSON object on the last line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from unmixer_core.system.json_types import Json, JsonView

Item = TypeVar("Item")
REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

from benchmarks.bound import held  # noqa: E402
from stages import train  # noqa: E402
from unmixer_core import config  # noqa: E402
from unmixer_core.pipeline import log as pipeline_log  # noqa: E402
from unmixer_core.pipeline import machine, state  # noqa: E402
from unmixer_core.pipeline import run as pipeline_run  # noqa: E402
from unmixer_core.pipeline.log import StageLog  # noqa: E402

DRAWN = 5000
N_VALID = 120
CURVE_BARS = {f"{phase}.valid_loss_difference": ("<=", 0.01) for phase in ("dry", "fx", "full")} | {
    f"{phase}.largest": ("<=", 0.1) for phase in ("dry", "fx", "full")
}
CHANGES = {
    "loss.spectral_start": 0.0,
    "loss.spectral_ramp": 0.0,
    "train.full.epochs": 1,
    "train.full.proxy_epochs": 0,
}


# --- a synthetic data set ---------------------------------------------------------------------


def sparse_shard(path: Path, shape: tuple[int, ...], dtype: type) -> None:
    """An .npy file of zeros that takes no disk."""
    with path.open("wb") as file:
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_2_0(file, header)
        file.truncate(file.tell() + int(np.prod(shape)) * np.dtype(dtype).itemsize)


def make_patches(path: Path, n: int, params: config.Params) -> None:
    """A table of n full-chain patches, N_VALID of them for validation: drawn ones, repeated."""
    import pyarrow.parquet as pq

    from unmixer_core import sampling
    from unmixer_core.schema.patch import Patches

    tables = [sampling.sample(N_VALID, "full", "valid", 1, params.sample, 0)]
    tables.append(sampling.sample(DRAWN, "full", "train", 2, params.sample, N_VALID))
    pieces = []
    for name, table in zip(("valid", "train"), tables, strict=True):
        table.write(path.with_name(f"{name}.parquet"))
        pieces.append(pq.read_table(path.with_name(f"{name}.parquet")))
    left = n - N_VALID
    with pq.ParquetWriter(path, pieces[0].schema) as writer:
        writer.write_table(pieces[0])
        while left > 0:
            writer.write_table(pieces[1].slice(0, min(left, DRAWN)))
            left -= DRAWN
    assert Patches.count(path) == n


def make_data(folder: Path, n: int, params: config.Params, *, store: bool) -> None:
    """renders/, features/, proxy_frames/ and proxy/ as the stages before train_full would leave
    them.
    """
    import pandas as pd

    from unmixer_core.dataset import patch_table
    from unmixer_core.dataset.clips import shard_name
    from unmixer_core.features.frames import FeatureSpec
    from unmixer_core.features.store import FeatureWriter
    from unmixer_core.proxy.proxy import RackProxy
    from unmixer_core.schema.patch import Patches

    renders, size, audio = folder / "renders", 1000, params.audio
    renders.mkdir(parents=True)
    make_patches(renders / "patches.parquet", n, params)
    for name in ("valid", "train"):
        (renders / f"{name}.parquet").unlink()
    patch_table.write(renders, renders / "patches.parquet")
    spec = FeatureSpec.of(params.features, audio.sample_rate)
    writer, frames = (
        FeatureWriter(folder / "features", spec, store=store),
        round(audio.clip_s * audio.sample_rate) // spec.hop,
    )
    for shard, first in enumerate(range(0, n, size)):
        count, name = min(size, n - first), shard_name(shard)
        sparse_shard(
            renders / f"{name}.npy", (count, 2, round(audio.clip_s * audio.sample_rate)), np.int16
        )
        pd.DataFrame(
            {"rate": audio.sample_rate, "gain": 1.0, "sha256": "", "digest": ""}, index=range(count)
        ).to_parquet(renders / f"{name}.parquet")
        if store:
            sparse_shard(
                folder / "features" / f"{name}.npy", (count, 2, spec.n_mels, frames), np.float16
            )
    writer.finish(renders / "patches.parquet")
    FeatureWriter(folder / "proxy_frames", spec).finish(Patches.stack([], "full", "train"))
    RackProxy(params.proxy.sample_rate, audio.clip_s).save(folder / "proxy")


# --- one measurement, in a process of its own -------------------------------------------------


class Clock:
    """A log that ends every epoch after some steps and times each."""

    def __init__(self, steps: int) -> None:
        self.steps, self.marks, self.work = steps, [0.0], [0.0]

    def metrics(self, values: JsonView, step: int | None = None) -> None:
        """Curves are not kept."""

    def progress(
        self, items: Iterable[Item], total: int | None = None, desc: str = ""
    ) -> Iterator[Item]:
        """The first steps."""
        for item in itertools.islice(items, self.steps):
            self.marks.append(time.perf_counter())
            self.work.append(time.process_time())
            yield item

    def seconds(self, every: int, marks: list[float]) -> tuple[float, float]:
        """Median of the plain steps and of those with a spectral term; the first step warms up."""
        steps = list(enumerate(np.diff(marks[2:]).tolist(), start=1))
        plain, heard = (
            [s for i, s in steps if bool(i % every) is wanted] for wanted in (True, False)
        )
        return statistics.median(plain), statistics.median(heard) if heard else float("nan")


def peak_mib() -> float:
    """The process's high-water mark of resident memory."""
    words = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(words.split("VmHWM:")[1].split()[0]) / 1024


def measure(folder: Path, steps: int) -> dict[str, float]:
    """`train_phase` on a synthetic data set."""
    from unmixer_core.training import phase as training_phase

    params = config.with_values(config.load(REPO / "params.yaml"), CHANGES)
    device, clock, imported = machine.device(), Clock(steps), peak_mib()
    begun = time.perf_counter()
    key = state.fingerprint(
        *(folder / name for name in ("features", "proxy_frames", "renders", "proxy"))
    )
    fingerprint_s = time.perf_counter() - begun
    settings = training_phase.PhaseSections(
        params.train.full, params.loss, params.optim, params.augment
    )
    training_phase.train_phase(
        "full",
        features=folder / "features",
        proxy_frames=folder / "proxy_frames",
        renders=folder / "renders",
        proxy=folder / "proxy",
        initial=None,
        out=folder / "model",
        architecture=params.model,
        settings=settings,
        state=folder / "state",
        log=clock,
        device=device,
    )
    every = params.loss.spectral_every
    step_s, spectral_step_s = clock.seconds(every, clock.marks)
    step_cpu_s, spectral_step_cpu_s = clock.seconds(every, clock.work)
    return {
        "peak_mib": peak_mib(),
        "imported_mib": imported,
        "step_s": step_s,
        "step_cpu_s": step_cpu_s,
        "spectral_step_s": spectral_step_s,
        "spectral_step_cpu_s": spectral_step_cpu_s,
        "fingerprint_s": fingerprint_s,
        "first_step_after_s": clock.marks[1] - begun,
        "digest": int(key[:6], 16),
    }


def flat(clips: list[int], steps: int, *, store: bool, repeats: int) -> Json:
    """Measurements by size, and the largest beside the smallest.

    Sizes take turns, so that load hits all alike.
    """
    params, found = config.load(REPO / "params.yaml"), {n: [] for n in clips}
    with tempfile.TemporaryDirectory(prefix="unmixer-scale-") as name:
        for n in clips:
            make_data(Path(name) / str(n), n, params, store=store)
        for _, n in itertools.product(range(repeats), clips):
            shutil.rmtree(Path(name) / str(n) / "state", ignore_errors=True)
            command = [
                sys.executable,
                __file__,
                "measure",
                str(Path(name) / str(n)),
                "--steps",
                str(steps),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            found[n].append(json.loads(done.stdout.splitlines()[-1]))
            sys.stderr.write(f"{n} clips: {found[n][-1]}\n")
    result: Json = {
        str(n): {
            key: statistics.median(run[key] for run in runs) for key in runs[0] if key != "digest"
        }
        for n, runs in found.items()
    }
    small, large = (result[str(n)] for n in (min(clips), max(clips)))
    result["peak_ratio"] = large["peak_mib"] / small["peak_mib"]
    result["step_ratio"] = large["step_s"] / small["step_s"]
    result["step_cpu_ratio"] = large["step_cpu_s"] / small["step_cpu_s"]
    result["step_spread"] = {
        n: _spread([run["step_s"] for run in runs]) for n, runs in found.items()
    }
    return result | {
        "stored_frames": store,
        "steps": steps,
        "bars": held(result, {"peak_ratio": ("<=", 1.1)}),
    }


def _spread(values: list[float]) -> float:
    """The largest over the smallest of repeats: what a ratio of steps is to be seen beside."""
    return max(values) / min(values)


# --- ranks beside one process -----------------------------------------------------------------

BEFORE = {"dry": None, "fx": "dry", "full": "fx"}


def curve(run: Path) -> Json:
    """The three training stages on a run's data, by one process and by two ranks, each phase
    from the model that one process left; the largest relative difference of any logged loss, by
    phase.
    """
    found: Json = {}
    with tempfile.TemporaryDirectory(prefix="unmixer-curve-") as name:
        for phase in BEFORE:
            one, two = (_trained(run, Path(name) / str(world), phase, world) for world in (1, 2))
            found[phase] = _compared(one, two)
            sys.stderr.write(f"{phase}: {found[phase]}\n")
    return found | {"bars": held(found, CURVE_BARS)}


def _trained(run: Path, folder: Path, phase: str, world: int) -> list[tuple[int, dict[str, float]]]:
    """A phase's curve; the model of one process is left for the next phase."""
    folder.mkdir(exist_ok=True)
    for link in ("data", "params.yaml", "dvc.yaml"):
        if not (folder / link).exists():
            (folder / link).symlink_to(run.resolve() / link)
    environment = {
        **os.environ,
        "UNMIXER_NPROC": str(world),
        "UNMIXER_DEVICE": "cpu",
        "UNMIXER_TRACKING": "off",
    }
    environment.setdefault("UNMIXER_PRECISION", "float32")
    environment |= {
        "DVC_ROOT": str(folder),
        "CURVE": phase,
        "PROXY": str(run.resolve() / "models" / "proxy"),
    }
    environment["BEFORE"] = str(folder.with_name("1") / "models")
    command = [sys.executable, str(Path(__file__).resolve())]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads((folder / f"{phase}.json").read_text(encoding="utf-8"))


def _compared(
    one: list[tuple[int, dict[str, float]]], two: list[tuple[int, dict[str, float]]]
) -> Json:
    """Largest relative differences of the losses of two curves, and how many values were
    compared.
    """
    worst: dict[str, float] = {}
    last = [rows[-1][1]["valid.loss"] for rows in (one, two)]
    for (step, mine), (other, theirs) in zip(one, two, strict=True):
        assert step == other and set(mine) == set(theirs)
        for name in mine:
            if name.endswith(("knobs", "choices", "chain", "present", "loss", "spectral")):
                difference = abs(mine[name] - theirs[name]) / max(abs(mine[name]), 1e-6)
                worst[name] = max(worst.get(name, 0.0), difference)
    return {
        "largest": max(worst.values()),
        "valid_loss_difference": abs(last[1] / last[0] - 1.0),
        "valid_loss": last,
        "by_loss": worst,
        "rows": len(one),
        "steps": one[-1][0],
    }


def train_one(
    log: StageLog,
    architecture: config.Model,
    loss: config.Loss,
    optim: config.Optim,
    augment: config.Augment,
    dry: config.TrainDry,
    fx: config.TrainFx,
    full: config.TrainFull,
) -> dict[str, float]:
    """The main of the stage $CURVE names, its curve kept by the first rank."""
    phase, rows = os.environ["CURVE"], []
    before = BEFORE[phase]
    log.metrics = lambda values, step=None: rows.append((step, dict(values)))  # type: ignore[method-assign]
    inputs = [
        Path("data/features"),
        Path("data/proxy_frames"),
        Path("data/renders"),
        Path(os.environ["PROXY"]),
    ]
    inputs += [Path(os.environ["BEFORE"]) / before] if before else []
    settings = {"dry": dry, "fx": fx, "full": full}[phase]
    out = Path("models") / phase
    report = train.PHASES[phase](*inputs, out, architecture, loss, optim, augment, settings, log)
    if pipeline_log.first_rank():
        Path(f"{phase}.json").write_text(json.dumps(rows), encoding="utf-8")
    return dict(report)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_subparsers(dest="what", required=True)
    one = what.add_parser("flat")
    one.add_argument("--clips", type=int, nargs="+", default=[10_000, 1_000_000])
    one.add_argument("--steps", type=int, default=24)
    one.add_argument("--repeats", type=int, default=2)
    one.add_argument("--store", action=argparse.BooleanOptionalAction, default=True)
    inner = what.add_parser("measure")
    inner.add_argument("folder", type=Path)
    inner.add_argument("--steps", type=int, required=True)
    what.add_parser("curve").add_argument("run", type=Path)
    return parser.parse_args()


def main() -> None:
    """Do what is asked; as a stage of `curve`, train."""
    if "CURVE" in os.environ:
        pipeline_run.run_stage(train_one, [], ranks=True)
    options = arguments()
    match options.what:
        case "flat":
            answer = flat(
                options.clips, options.steps, store=options.store, repeats=options.repeats
            )
        case "curve":
            answer = curve(options.run)
        case _:
            answer = measure(options.folder, options.steps)
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
