"""Does training stay flat in memory and time whatever the number of clips, and do ranks keep the curve?

    python benchmarks/scale_training.py flat                          # train_full on 10k and on 1M clips (synthetic)
    python benchmarks/scale_training.py flat --clips 10000 100000 --steps 40 --no-store
    python benchmarks/scale_training.py curve RUN                      # 1 process beside 2 ranks on a finished run's data

`flat` makes a manifest of each size: drawn patches repeated, and sparse shards, which read as silence and take no disk.
The real `training.train_phase` works on it in a process of its own, for the first steps of its first epoch, spectral
term and validation included. Peak memory is the process's high-water mark (VmHWM), seconds are medians over steps; CPU
seconds mean something on a busy machine too.
One JSON object on the last line.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from unmixer_core import config, stage  # noqa: E402

DRAWN = 5000
N_VALID = 120
CHANGES = {"loss.spectral_start": 0.0, "loss.spectral_ramp": 0.0, "train.full.epochs": 1, "train.full.proxy_epochs": 0}


# --- a synthetic data set -----------------------------------------------------------------------------------------


def sparse_shard(path: Path, shape: tuple[int, ...], dtype: type) -> None:
    """An .npy file of zeros that takes no disk."""
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(file, header)
        file.truncate(file.tell() + int(np.prod(shape)) * np.dtype(dtype).itemsize)


def make_patches(path: Path, n: int, params: config.Params) -> None:
    """A table of n full-chain patches, N_VALID of them for validation: drawn ones, repeated."""
    import pyarrow.parquet as pq

    from unmixer_core.schema import sampling
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
    """renders/, features/, proxy_frames/ and proxy/ as the stages before train_full would leave them."""
    import pandas as pd

    from unmixer_core.audio import shard_name
    from unmixer_core.features import FeatureSpec, FeatureWriter
    from unmixer_core.proxy.proxy import Proxy
    from unmixer_core.schema.patch import Patches

    renders, size, audio = folder / "renders", 1000, params.audio
    renders.mkdir(parents=True)
    make_patches(renders / "patches.parquet", n, params)
    for name in ("valid", "train"):
        (renders / f"{name}.parquet").unlink()
    spec = FeatureSpec.of(params.features, audio.sample_rate)
    writer, frames = FeatureWriter(folder / "features", spec, store=store), round(audio.clip_s * audio.sample_rate) // spec.hop
    for shard, first in enumerate(range(0, n, size)):
        count, name = min(size, n - first), shard_name(shard)
        sparse_shard(renders / f"{name}.npy", (count, 2, round(audio.clip_s * audio.sample_rate)), np.int16)
        pd.DataFrame({"rate": audio.sample_rate, "gain": 1.0, "sha256": "", "digest": ""}, index=range(count)).to_parquet(
            renders / f"{name}.parquet"
        )
        if store:
            sparse_shard(folder / "features" / f"{name}.npy", (count, 2, spec.n_mels, frames), np.float16)
    writer.finish(renders / "patches.parquet")
    FeatureWriter(folder / "proxy_frames", spec).finish(Patches.stack([], "full", "train"))
    Proxy(params.proxy.sample_rate, audio.clip_s).save(folder / "proxy")


# --- one measurement, in a process of its own ---------------------------------------------------------------------


class Clock:
    """A log that ends every epoch after some steps and times each."""

    def __init__(self, steps: int) -> None:
        self.steps, self.marks, self.work = steps, [0.0], [0.0]

    def metrics(self, values: Any, step: int | None = None) -> None:
        """Curves are not kept."""

    def progress(self, items: Any, total: int | None = None, desc: str = "") -> Iterator[Any]:
        """The first steps."""
        for item in itertools.islice(items, self.steps):
            self.marks.append(time.perf_counter())
            self.work.append(time.process_time())
            yield item

    def seconds(self, every: int, marks: list[float]) -> tuple[float, float]:
        """Median of the plain steps and of those with a spectral term; the first step warms up."""
        steps = list(enumerate(np.diff(marks[2:]).tolist(), start=1))
        plain, heard = ([s for i, s in steps if bool(i % every) is wanted] for wanted in (True, False))
        return statistics.median(plain), statistics.median(heard) if heard else float("nan")


def peak_mib() -> float:
    """The process's high-water mark of resident memory."""
    words = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(words.split("VmHWM:")[1].split()[0]) / 1024


def measure(folder: Path, steps: int) -> dict[str, float]:
    """`train_phase` on a synthetic data set."""
    from unmixer_core import training

    params = config.with_values(config.load(REPO / "params.yaml"), CHANGES)
    device, clock, imported = stage.device(), Clock(steps), peak_mib()
    begun = time.perf_counter()
    key = stage.fingerprint(*(folder / name for name in ("features", "proxy_frames", "renders", "proxy")))
    fingerprint_s = time.perf_counter() - begun
    settings = training.Settings(params.train.full, params.loss, params.optim, params.augment)
    training.train_phase(
        "full",
        features=folder / "features", proxy_frames=folder / "proxy_frames", renders=folder / "renders",
        proxy=folder / "proxy", initial=None, out=folder / "model", architecture=params.model, settings=settings,
        state=folder / "state", log=clock, device=device,
    )  # fmt: skip
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


def flat(clips: list[int], steps: int, *, store: bool, repeats: int) -> dict[str, Any]:
    """Measurements by size, and the largest beside the smallest. Sizes take turns, so that load hits all alike."""
    params, found = config.load(REPO / "params.yaml"), {n: [] for n in clips}
    with tempfile.TemporaryDirectory(prefix="unmixer-scale-") as name:
        for n in clips:
            make_data(Path(name) / str(n), n, params, store=store)
        for _, n in itertools.product(range(repeats), clips):
            shutil.rmtree(Path(name) / str(n) / "state", ignore_errors=True)
            command = [sys.executable, __file__, "measure", str(Path(name) / str(n)), "--steps", str(steps)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            found[n].append(json.loads(done.stdout.splitlines()[-1]))
            sys.stderr.write(f"{n} clips: {found[n][-1]}\n")
    result: dict[str, Any] = {
        str(n): {key: statistics.median(run[key] for run in runs) for key in runs[0] if key != "digest"}
        for n, runs in found.items()
    }
    small, large = (result[str(n)] for n in (min(clips), max(clips)))
    result["peak_ratio"] = large["peak_mib"] / small["peak_mib"]
    result["step_ratio"] = large["step_s"] / small["step_s"]
    result["step_cpu_ratio"] = large["step_cpu_s"] / small["step_cpu_s"]
    return result | {"stored_frames": store, "steps": steps}


# --- ranks beside one process -------------------------------------------------------------------------------------


def curve(run: Path) -> dict[str, Any]:
    """train_full of a finished run, by one process and by two ranks; the largest relative difference of any logged loss."""
    curves = {}
    for world in (1, 2):
        with tempfile.TemporaryDirectory(prefix="unmixer-curve-") as name:
            folder, out = Path(name), Path(name) / "curve.json"
            for link in ("data", "models", "params.yaml", "dvc.yaml"):
                (folder / link).symlink_to(run.resolve() / link)
            environment = {**os.environ, "UNMIXER_NPROC": str(world), "UNMIXER_DEVICE": "cpu", "UNMIXER_TRACKING": "off"}
            environment |= {"DVC_ROOT": str(folder), "CURVE": str(out), "UNMIXER_THREADS": "1"}
            begun = time.perf_counter()
            command = [sys.executable, str(Path(__file__).resolve())]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            curves[world] = json.loads(out.read_text(encoding="utf-8")) | {"seconds": time.perf_counter() - begun}
    differences = {}
    for (step, one), (_, two) in zip(curves[1]["rows"], curves[2]["rows"], strict=True):
        for name in one:
            if name.split(".")[0] in ("train", "valid") and name.endswith(("knobs", "choices", "chain", "present", "loss")):
                difference = abs(one[name] - two[name]) / max(abs(one[name]), 1e-6)
                differences.setdefault(name, []).append((difference, step))
    worst = {name: max(found) for name, found in differences.items()}
    last = curves[1]["rows"][-1][1]["valid.loss"], curves[2]["rows"][-1][1]["valid.loss"]
    return {
        "largest_relative_difference": {name: round(value, 8) for name, (value, _) in sorted(worst.items())},
        "at_step": {name: step for name, (_, step) in sorted(worst.items())},
        "steps": curves[1]["rows"][-1][0],
        "valid_loss": last,
        "seconds": [curves[world]["seconds"] for world in (1, 2)],
    }


def train_full(
    log: stage.Log,
    architecture: config.Model,
    loss: config.Loss,
    optim: config.Optim,
    augment: config.Augment,
    train: config.TrainFull,
) -> dict[str, float]:
    """train_full's own main, its curve kept in $CURVE by the first rank."""
    from stages import train_full

    rows: list[tuple[int | None, dict[str, float]]] = []
    log.metrics = lambda values, step=None: rows.append((step, dict(values)))  # type: ignore[method-assign]
    data, models, out = Path("data"), Path("models"), Path(os.environ["CURVE"])
    report = train_full.main(
        data / "features", data / "proxy_frames", data / "renders", models / "proxy", models / "fx",
        out.with_name("model"), architecture, loss, optim, augment, train, log,
    )  # fmt: skip
    if stage.first_rank():
        out.write_text(json.dumps({"rows": rows}), encoding="utf-8")
    return report


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
        stage.run(train_full, [], ranks=True)
    options = arguments()
    match options.what:
        case "flat":
            answer = flat(options.clips, options.steps, store=options.store, repeats=options.repeats)
        case "curve":
            answer = curve(options.run)
        case _:
            answer = measure(options.folder, options.steps)
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
