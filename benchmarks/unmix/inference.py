"""How fast the network predicts and trains.

    python -m benchmarks.unmix.inference [--run .] [--model models/full] [--clips 30]
        [--sizes 128 512 2048]

Inference: from a clip's frames to 8 candidate patches with their chains (encoder, beam, knobs), one
clip at a time, after a warm-up. The bar is 200 ms on two cores. The same is measured with the
frames computed from the sound, and with intervals. Training: the default model, batches of the last
phase, one epoch on the first n training clips of all phases, with and without the spectral term
through the proxy. The time runs from the end of the first batch to the end of the last. Growth is
the throughput on the largest size divided by that on the smallest: 1 means that the cost of a clip
does not depend on their number. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from benchmarks.bound import held
from unmixer_core import config
from unmixer_core.dataset.clips import Clips
from unmixer_core.features.store import FeatureTable
from unmixer_core.inference import marginals, propose
from unmixer_core.inference.posterior import PatchPosterior
from unmixer_core.model import checkpoint
from unmixer_core.model.unmixer import Unmixer
from unmixer_core.pipeline import json_file, machine
from unmixer_core.system.json_types import Json
from unmixer_core.training import phase as training_phase
from unmixer_core.training.curriculum import PhaseData, Sounds

CANDIDATES = 8
SEED = 41
#: Calls before the clock counts.
WARM_UP = 3
BARS = {"inference.candidates_ms.median": ("<=", 200.0)}
Item = TypeVar("Item")


class BatchClock:
    """A `training.Log` that records when each batch ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None: ...

    def progress(
        self, items: Iterable[Item], total: int | None = None, desc: str = ""
    ) -> Iterator[Item]:
        for item in items:
            yield item
            self.ends.append(time.perf_counter())


def milliseconds(work: Callable[[int], object], n: int) -> dict[str, float]:
    """Return median and 95th percentile over calls work(0) ... work(n - 1), after a warm-up."""
    times = []
    for i in range(-WARM_UP, n):
        start = time.perf_counter()
        work(max(i, 0))
        times.append(1e3 * (time.perf_counter() - start))
    warm = times[WARM_UP:]
    return {"median": float(np.median(warm)), "p95": float(np.quantile(warm, 0.95))}


def answers(model: Unmixer, features: FeatureTable, clips: Clips, n: int) -> Json:
    """Return milliseconds a clip: of candidates, from the sound, of intervals."""
    rows = features.patches.where(phase="full", split="test")[:n]
    table = features.patches

    def frames(i: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        row = int(rows[i])
        note = torch.tensor([float(table.note[row])])
        gate_s = torch.tensor([float(table.gate_s[row])])
        return features.batch([row]), note, gate_s

    def from_frames(i: int) -> None:
        propose.propose(model, *frames(i), CANDIDATES, SEED)

    def from_sound(i: int) -> None:
        _, note, gate_s = frames(i)
        computed = PatchPosterior.of(model, clips.audio(int(rows[i]))).features
        propose.propose(model, computed, note, gate_s, CANDIDATES, SEED)

    def intervals(i: int) -> None:
        marginals.intervals(model, *frames(i), [table[int(rows[i])]])

    n_clips = len(rows)
    return {
        "candidates_ms": milliseconds(from_frames, n_clips),
        "from_sound_ms": milliseconds(from_sound, n_clips),
        "intervals_ms": milliseconds(intervals, n_clips),
        "clips": n_clips,
    }


def throughput(
    features: FeatureTable, params: config.Params, size: int, sounds: Sounds | None
) -> float:
    """Return training clips a second over one epoch of the first `size` training clips."""
    data = PhaseData.of(features, "full")
    rows = features.patches.where(split="train")[:size]
    data = replace(data, new=rows, earlier=rows[:0], valid={"full": data.valid["full"][:8]})
    loss = config.with_values(params, {"loss.spectral_start": 0.0}).loss
    phase = config.with_values(
        params, {"train.full.epochs": 1, "train.full.proxy_epochs": 0}
    ).train.full
    settings = training_phase.PhaseSections(phase, loss, params.optim, params.augment)
    log = BatchClock()
    model = training_phase.new_model(data, params.model, SEED)
    with tempfile.TemporaryDirectory() as state:
        training_phase.fit(model, data, settings, state=Path(state), log=log, proxy_term=sounds)
    return (len(rows) - phase.batch) / (log.ends[-1] - log.ends[0])


def learning(run: Path, features: FeatureTable, sizes: Sequence[int]) -> Json:
    """Return clips a second by number of training clips."""
    params = config.load()
    sounds = Sounds.open(run / "models" / "proxy", run / "data" / "renders", "cpu")
    n_train = len(features.patches.where(split="train"))
    least = 2 * params.train.full.batch  # the clock runs from the first batch's end to another's
    usable = [n for n in sizes if least <= n <= n_train]
    plain = {str(n): throughput(features, params, n, None) for n in usable}
    result: Json = {"clips_per_s": plain}
    if usable:
        largest = usable[-1]
        spectral = throughput(features, params, largest, sounds)
        result["with_spectral_clips_per_s"] = {str(largest): spectral}
        result["growth"] = plain[str(largest)] / plain[str(usable[0])]
    return result


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run",
        type=Path,
        default=Path("."),
        help="folder of a finished `dvc repro`: data/ and models/",
    )
    parser.add_argument("--model", type=Path, help="default: RUN/models/full")
    parser.add_argument("--clips", type=int, default=30)
    parser.add_argument("--sizes", type=int, nargs="*", default=[128, 512, 2048])
    options = parser.parse_args()
    threads = machine.threads()
    features = FeatureTable.open(options.run / "data" / "features")
    model = checkpoint.load(options.model or options.run / "models" / "full").model
    result = {
        "threads": threads,
        "inference": answers(
            model, features, Clips.open(options.run / "data" / "renders"), options.clips
        ),
    }
    result["training"] = learning(options.run, features, options.sizes)
    sys.stdout.write(json.dumps(json_file.rounded(result | {"bars": held(result, BARS)})) + "\n")


if __name__ == "__main__":
    main()
