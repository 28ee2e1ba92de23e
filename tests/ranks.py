"""A toy stage that trains on several ranks, as a program that tests start.

Python tests/ranks.py --out FOLDER.

Writes curve.json and weights.pt to FOLDER; an unfinished run is continued from FOLDER/state.
RANKS_KILL=<rank>:<epoch> ends that rank by SIGKILL in the middle of that epoch (counted over all
epochs), unless the run was continued.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["UNMIXER_TRACKING"] = "off"

from tests.model import tiny
from tests.training.test_phase import FakeTerm
from unmixer_core import distributed
from unmixer_core.errors import TrainingError
from unmixer_core.pipeline import run
from unmixer_core.training import phase

#: At the pipeline's eps and a larger rate the first steps, divided by tiny second moments, make
#: rounding grow a hundredfold every two steps (0.1 of the chain's loss after ten on one processor,
#: 0.002 on another); here it stays below 1e-5.
CHANGES: dict[str, dict[str, Any]] = {
    "phase": {"epochs": 3, "batch": 7},
    "loss": {"spectral_clips": 3},
    "optim": {"eps": 1e-3, "lr": 0.001},
}


class Watched(tiny.Silent):
    """A log that kills its rank where it is told to."""

    def progress(self, items: Any, total: int | None = None, desc: str = "") -> Iterator[Any]:
        rank, epoch = os.environ.get("RANKS_KILL", "-1:0").split(":")
        for place, item in enumerate(items):
            if place == 1 and rank == os.environ.get("RANK") and f"epoch {int(epoch) + 1} " in desc:
                os.kill(os.getpid(), signal.SIGKILL)
            yield item


def train(out: Path) -> None:
    """Train the tiny model on tiny data."""
    log, model = Watched(), tiny.model()
    with distributed.joined("cpu") as ranks:
        report = phase.fit(
            model,
            tiny.with_proxy(),
            tiny.settings(**CHANGES),
            state=out / "state",
            log=log,
            proxy_term=FakeTerm(),
            ranks=ranks,
        )
    if ranks.first:
        (out / "curve.json").write_text(
            json.dumps({"rows": log.rows, "report": report}), encoding="utf-8"
        )
        torch.save(
            {name: x.as_subclass(torch.Tensor) for name, x in model.state_dict().items()},
            out / "weights.pt",
        )


def main(out: Path) -> dict[str, float]:
    """The toy stage."""
    if (out / "missing").exists() and os.environ.get("RANK") == "1":
        raise TrainingError("this rank cannot go on")
    torch.set_num_threads(1)
    train(out)
    return {}


if __name__ == "__main__":
    run.run_stage(main, ranks=True)
