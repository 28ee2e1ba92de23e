"""Fit the proxy's constants φ to the host's renders.

The loss is a multi-scale spectral distance. Dry sounds come first, then chains of one or two
effects, then chains of any length. The proxy starts from laws that were measured once on the
embedded host; calibration moves φ towards the host that made the clips.

Each clip's gradient has unit norm in every part of the proxy (`objective`). Single steps are still
noisy, so a phase's result is the mean of φ over its second half. Of that result, each part (the
voice, each effect) is accepted on its own, and only if held-out clips are closer with it. So
calibration cannot make the proxy worse on those clips. An interrupted run resumes from its last
checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from unmixer_core import config
from unmixer_core.calibration.material import Material, Rows
from unmixer_core.calibration.objective import (
    add_normalised_gradient,
    clip_distance,
    fitted_parameters,
    held_out_loss,
)
from unmixer_core.errors import StageError, TrainingError
from unmixer_core.proxy.proxy import RackProxy
from unmixer_core.schema.chain import MAX_EFFECTS
from unmixer_core.system import files

CHECKPOINT = "calibration.pt"
#: Optimiser steps from one checkpoint to the next.
CHECKPOINT_STEPS = 20
#: Step sizes of the line search from a phase's start to its result, on held-out clips.
LINE_SEARCH_STEPS = (0.4, 1.0)
#: Learning rate of parameters in decibels, relative to that of logarithms and shares.
DECIBEL_RATE = 25.0
#: The last part of a phase, over which φ is averaged.
AVERAGED_SHARE = 0.5
#: Adam's decay rates: a phase is short, so the second moment forgets faster than usual (0.999).
BETAS = (0.9, 0.99)

Values = dict[str, Tensor]
Report = Callable[[dict[str, float], int], None]
Progress = Callable[[range, int, str], Iterable[int]]


class CalibrationState(TypedDict):
    """The state of an interrupted calibration, as it is on disk."""

    phase: int
    step: int
    proxy: Values
    optimiser: dict[str, object]
    start: Values
    mean: Values
    results: dict[str, float]


@dataclass(frozen=True)
class Phase:
    """A name, the rows of the clips it learns from, and its number of optimiser steps."""

    name: str
    rows: Rows
    steps: int


def phases(material: Material, settings: config.ProxyFit) -> list[Phase]:
    """Return the plan: dry clips, chains of one or two effects, chains of any length."""
    plan = (
        ("dry", 0, 0, settings.steps_dry),
        ("effects", 1, 2, settings.steps_effects),
        ("chains", 0, MAX_EFFECTS, settings.steps_chains),
    )
    return [
        Phase(name, material.rows("train", longest, shortest), steps)
        for name, shortest, longest, steps in plan
    ]


def without_progress(steps: range, total: int, words: str) -> Iterable[int]:
    """Return the steps and show nothing."""
    return steps


class Calibration:
    """Runs the phases and writes checkpoints.

    `report(values, step)` receives the losses of every step and phase. `progress(steps, total,
    words)` shows the steps.
    """

    def __init__(
        self,
        proxy: RackProxy,
        material: Material,
        settings: config.ProxyFit,
        state: Path,
        report: Report,
        progress: Progress = without_progress,
    ) -> None:
        self.proxy = proxy
        self.material = material
        self.settings = settings
        self.report = report
        self.progress = progress
        self.path = state / CHECKPOINT

    def run(self) -> dict[str, float]:
        """Run all phases; return the number of steps and the held-out losses of each.

        Raises:
            TrainingError: a loss is not finite.
            StageError: a phase has no training clips.
        """
        resumed: CalibrationState | None = None
        results: dict[str, float] = {}
        if self.path.exists():
            resumed = torch.load(self.path, weights_only=True)
        if resumed:
            results = dict(resumed["results"])
            self.proxy.load_state_dict(resumed["proxy"])
        for number, phase in enumerate(phases(self.material, self.settings)):
            finished = resumed is not None and number < resumed["phase"]
            if finished or not phase.steps:
                continue
            if not len(phase.rows):
                raise StageError(
                    f"no training clips for calibration phase {phase.name!r}; run `dvc repro "
                    f"sample_patches`."
                )
            halfway = resumed is not None and resumed["phase"] == number and resumed["step"] > 0
            self._phase(number, phase, results, resumed if halfway else None)
        return results

    def _phase(
        self, number: int, phase: Phase, results: dict[str, float], resumed: CalibrationState | None
    ) -> None:
        optimiser = self._optimiser()
        judge = self._judge_rows(phase)
        mean: Values = {}
        if resumed:
            optimiser.load_state_dict(resumed["optimiser"])
            first = resumed["step"]
            start = resumed["start"]
            mean = resumed["mean"]
        else:
            first = 0
            start = self._snapshot()
            results[f"{phase.name}_loss_start"] = held_out_loss(
                self.proxy, self.material, judge, self.settings
            )
        not_averaged = int((1.0 - AVERAGED_SHARE) * phase.steps)
        steps = range(first, phase.steps)
        for step in self.progress(steps, len(steps), f"calibrate, {phase.name}"):
            self._step(optimiser, number, phase, step)
            taken = step + 1
            mean = self._averaged(mean, taken - not_averaged)
            if taken % CHECKPOINT_STEPS == 0 and taken < phase.steps:
                self._save(number, taken, optimiser, start, mean, results)
        best = self._accepted(start, mean or self._snapshot(), judge, phase, results)
        results[f"{phase.name}_steps"] = float(phase.steps)
        self._save(number + 1, 0, optimiser, best, {}, results)

    def _averaged(self, mean: Values, count: int) -> Values:
        """Running mean of φ whose count-th term is the present φ; empty before the first."""
        if count < 1:
            return {}
        now = self._snapshot()
        if count == 1 or not mean:
            return now
        return {key: torch.lerp(mean[key], now[key], 1.0 / count) for key in now}

    def _accepted(
        self, start: Values, result: Values, judge: Rows, phase: Phase, results: dict[str, float]
    ) -> Values:
        """Part by part, the point between start and result with the lowest held-out loss."""
        best = start
        lowest = results[f"{phase.name}_loss_start"]
        accepted = set()
        for part, share in product(self.proxy.part_prefixes(), LINE_SEARCH_STEPS):
            names = [key for key in start if key.startswith(part)]
            moved = {key: torch.lerp(start[key], result[key], share) for key in names}
            if all(torch.equal(moved[key], start[key]) for key in names):
                continue
            self.proxy.load_state_dict(best | moved)
            loss = held_out_loss(self.proxy, self.material, judge, self.settings)
            if loss < lowest:
                best = best | moved
                lowest = loss
                accepted.add(part)
        self.proxy.load_state_dict(best)
        results[f"{phase.name}_loss"] = lowest
        results[f"{phase.name}_parts_taken"] = float(len(accepted))
        self.report({f"{phase.name}_held_out": lowest}, phase.steps)
        return best

    def _step(self, optimiser: torch.optim.Optimizer, number: int, phase: Phase, step: int) -> None:
        draw = np.random.default_rng([self.settings.seed, number, step])
        size = min(self.settings.batch, len(phase.rows))
        rows = draw.choice(phase.rows, size=size, replace=False)
        for group in optimiser.param_groups:
            group["lr"] = self.settings.lr * group["scale"] * (1.0 - step / phase.steps)
        optimiser.zero_grad(set_to_none=True)
        losses = [self._add_clip(int(row), phase, step) for row in rows]
        optimiser.step()
        self.report({f"{phase.name}_loss": float(np.mean(losses))}, step)

    def _add_clip(self, row: int, phase: Phase, step: int) -> float:
        """Add one clip's gradient; return its loss. Raises TrainingError if that is not finite."""
        loss = clip_distance(self.proxy, self.material, [row], self.settings.n_ffts).sum()
        if not torch.isfinite(loss):
            raise TrainingError(
                f"calibration phase {phase.name!r} met a non-finite loss at step {step} (clip "
                f"{row})."
            )
        add_normalised_gradient(self.proxy, loss)
        return float(loss.detach())

    def _optimiser(self) -> torch.optim.Optimizer:
        """Return Adam over the fitted parameters; levels in dB take larger steps."""
        levels: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in fitted_parameters(self.proxy):
            group = levels if name.endswith("_db") else rest
            group.append(parameter)
        groups = [{"params": rest, "scale": 1.0}, {"params": levels, "scale": DECIBEL_RATE}]
        return torch.optim.Adam(groups, lr=self.settings.lr, betas=BETAS)

    def _judge_rows(self, phase: Phase) -> Rows:
        """Rows whose loss decides what the phase accepts."""
        lengths = self.material.lengths[phase.rows]
        rows = self.material.held_out(int(lengths.max()), int(lengths.min()), judge=True)
        if not len(rows):
            rows = phase.rows
        shuffled = np.random.default_rng(self.settings.seed).permutation(rows)
        return np.sort(shuffled[: self.settings.held_out])

    def _snapshot(self) -> Values:
        return {key: value.detach().clone() for key, value in self.proxy.state_dict().items()}

    def _save(
        self,
        phase: int,
        step: int,
        optimiser: torch.optim.Optimizer,
        start: Values,
        mean: Values,
        results: dict[str, float],
    ) -> None:
        state = CalibrationState(
            phase=phase,
            step=step,
            proxy=self.proxy.state_dict(),
            optimiser=optimiser.state_dict(),
            start=start,
            mean=mean,
            results=results,
        )
        with files.replacing(self.path) as temporary:
            torch.save(state, temporary)
