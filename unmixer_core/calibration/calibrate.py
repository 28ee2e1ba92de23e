"""Fit φ to the host: multi-scale spectral loss on its renders, dry sounds first, then short chains,
then any chain.

The proxy starts from laws measured once on the embedded host; calibration moves φ towards whatever
host made the clips. Every clip has one vote a part: gradients through a synthesizer differ by many
orders of magnitude, and one clip's would drown the others'. Single steps are noisy still, so a
phase's answer is the mean of φ over its second half. Of that answer the voice and each effect are
taken on their own, if held-out clips are closer with it than without: calibration cannot make the
proxy worse there. Killed and started again, it goes on from its last checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmixer_core.audio import resample
from unmixer_core.dataset.clips import Clips
from unmixer_core.dsp import spectral
from unmixer_core.errors import StageError, TrainingError
from unmixer_core.proxy.proxy import RackProxy

Rows = NDArray[np.int64]
CHECKPOINT = "calibration.pt"
CHECKPOINT_STEPS = 20
#: Of the way from where a phase started to where it ended, what is tried on held-out clips.
SHARES_TRIED = (0.4, 1.0)
#: Steps of φ that are in decibels, in units of those that are logarithms or shares.
DECIBEL_RATE = 25.0
#: The last part of a phase, over which φ is averaged.
AVERAGED_SHARE = 0.5
#: Read from the host and left alone: sign-like steps would bury quiet harmonics and late
#: reflections.
STILL = ("voice.spectra", "effects.7.early")
CACHED_CLIPS = 512
QUIET = 1e-3


class Settings(Protocol):
    """What is read of params.yaml's `proxy` section."""

    seed: int
    batch: int
    lr: float
    steps_dry: int
    steps_effects: int
    steps_chains: int
    held_out: int
    n_ffts: tuple[int, ...]
    time_budget_s: float


class PatchBatch(NamedTuple):
    """Proxy.forward's arguments for a batch."""

    knobs: Tensor
    choices: Tensor
    chain: Tensor
    note: Tensor
    gate_s: Tensor


@dataclass(frozen=True)
class Phase:
    """A name, the rows of the clips it learns from, and its number of steps."""

    name: str
    rows: Rows
    steps: int


class Material:
    """The host's clips at the proxy's rate, with their patches."""

    def __init__(self, clips: Clips, sample_rate: int) -> None:
        self.clips, self.sample_rate = clips, sample_rate
        self.lengths = (clips.patches.chain >= 0).sum(axis=1)
        self._resampled = lru_cache(maxsize=CACHED_CLIPS)(self._read)

    def _read(self, row: int) -> Tensor:
        return torch.from_numpy(resample(self.clips.audio(row), self.clips.rate, self.sample_rate))

    def rows(self, split: str, longest: int, shortest: int = 0) -> Rows:
        """Rows of a split whose chains are of a length."""
        fits = (
            (self.lengths >= shortest)
            & (self.lengths <= longest)
            & (self.clips.patches.split == split)
        )
        return np.flatnonzero(fits)

    def held_out(self, longest: int, shortest: int = 0, *, judge: bool = False) -> Rows:
        """Validation rows whose chains are of a length.

        Every other one judges the calibration, the rest is reported on.
        """
        rows = self.rows("valid", longest, shortest)
        return rows[rows % 2 == int(judge)]

    def patches(self, rows: Iterable[int], device: torch.device) -> PatchBatch:
        table, index = self.clips.patches, np.asarray(list(rows))
        real = (
            torch.as_tensor(np.asarray(v)[index], dtype=torch.float32, device=device)
            for v in (table.knobs, table.note, table.gate_s)
        )
        knobs, note, gate_s = real
        whole = (
            torch.as_tensor(np.asarray(v)[index].astype(np.int64), device=device)
            for v in (table.choices, table.chain)
        )
        choices, chain = whole
        return PatchBatch(knobs, choices, chain, note, gate_s)

    def audio(self, rows: Iterable[int], device: torch.device) -> Tensor:
        """Host clips [rows, 2, time]."""
        return torch.stack([self._resampled(int(row)) for row in rows]).to(device)


def distance(
    proxy_audio: Tensor, host_audio: Tensor, sample_rate: int, n_ffts: tuple[int, ...]
) -> Tensor:
    """Level-sensitive multi-scale spectral distance [batch], both sides in units of the host
    clip's peak.
    """
    length = min(proxy_audio.shape[-1], host_audio.shape[-1])
    peak = host_audio.abs().amax(dim=(1, 2), keepdim=True).clamp_min(QUIET)
    settings = spectral.SpectralSettings(fft_sizes=tuple(n_ffts), floor=1e-4)
    return spectral.multiscale_spectral(
        proxy_audio[..., :length] / peak, host_audio[..., :length] / peak, sample_rate, settings
    )


def phases(material: Material, settings: Settings) -> list[Phase]:
    """Dry, short chains (one or two effects), any chain."""
    plan = (
        ("dry", 0, 0, settings.steps_dry),
        ("effects", 1, 2, settings.steps_effects),
        ("chains", 0, 8, settings.steps_chains),
    )
    return [
        Phase(name, material.rows("train", longest, shortest), steps)
        for name, shortest, longest, steps in plan
    ]


def held_out_loss(proxy: RackProxy, material: Material, rows: Rows, settings: Settings) -> float:
    """Mean distance over clips that calibration does not see."""
    device = next(proxy.parameters()).device
    total = 0.0
    with torch.no_grad():
        for some in np.array_split(rows, max(1, len(rows) // settings.batch)):
            sound = proxy(*material.patches(some, device))
            total += float(
                distance(
                    sound, material.audio(some, device), material.sample_rate, settings.n_ffts
                ).sum()
            )
    return total / len(rows)


class Calibration:
    """Runs the phases; `report(values, step)` hears of every step and phase, `progress(steps,
    total, words)` shows them.
    """

    def __init__(
        self,
        proxy: RackProxy,
        material: Material,
        settings: Settings,
        state: Path,
        report: Callable[..., None],
        progress: Callable[[range, int, str], Iterable[int]] = lambda steps, total, words: steps,
    ) -> None:
        self.proxy, self.material, self.settings, self.report = proxy, material, settings, report
        self.progress = progress
        self.path = state / CHECKPOINT
        self.deadline = 0.0
        self.device = next(proxy.parameters()).device

    def run(self) -> dict[str, float]:
        """All phases in turn → how many steps were taken and the held-out loss at each end.

        Raises TrainingError, StageError.
        """
        resumed = torch.load(self.path, weights_only=True) if self.path.exists() else None
        results: dict[str, float] = dict(resumed["results"]) if resumed else {}
        if resumed:
            self.proxy.load_state_dict(resumed["proxy"])
        plan = phases(self.material, self.settings)
        for number, phase in enumerate(plan):
            if (resumed and number < resumed["phase"]) or not phase.steps:
                continue
            if not len(phase.rows):
                raise StageError(
                    f"no training clips for calibration phase {phase.name!r}; run `dvc repro "
                    f"sample_patches`."
                )
            share = phase.steps / sum(p.steps for p in plan)
            self.deadline = time.monotonic() + share * self.settings.time_budget_s
            halfway = resumed is not None and resumed["phase"] == number and resumed["step"] > 0
            self._phase(number, phase, results, resumed if halfway else None)
        return results

    def _phase(
        self, number: int, phase: Phase, results: dict[str, float], resumed: dict[str, Any] | None
    ) -> None:
        optimiser = self._optimiser()
        judge = self._judges(phase)
        if resumed:
            optimiser.load_state_dict(resumed["optimiser"])
            first, start, mean = resumed["step"], resumed["start"], resumed["mean"]
        else:
            first, start, mean = 0, self._snapshot(), {}
            results[f"{phase.name}_loss_start"] = held_out_loss(
                self.proxy, self.material, judge, self.settings
            )
        taken = first
        steps = range(first, phase.steps)
        for step in self.progress(steps, len(steps), f"calibrate, {phase.name}"):
            self._step(optimiser, number, phase, step)
            taken = step + 1
            late = time.monotonic() > self.deadline
            mean = self._averaged(mean, taken - int((1.0 - AVERAGED_SHARE) * phase.steps))
            if taken % CHECKPOINT_STEPS == 0 and taken < phase.steps and not late:
                self._save(number, taken, optimiser, start, mean, results)
            if late:
                break
        best = self._accepted(start, mean or self._snapshot(), judge, phase, results)
        results[f"{phase.name}_steps"] = float(taken)
        self._save(number + 1, 0, optimiser, best, {}, results)

    def _averaged(self, mean: dict[str, Tensor], count: int) -> dict[str, Tensor]:
        """The running mean of φ with now's as the count-th of it; nothing before the first."""
        if count < 1:
            return {}
        now = self._snapshot()
        return (
            now
            if count == 1 or not mean
            else {key: torch.lerp(mean[key], now[key], 1.0 / count) for key in now}
        )

    def _accepted(
        self,
        start: dict[str, Tensor],
        found: dict[str, Tensor],
        judge: Rows,
        phase: Phase,
        results: dict[str, float],
    ) -> dict[str, Tensor]:
        """Part by part (the voice, each effect) what was found, where the held-out clips are
        closer with it.
        """
        best, lowest = start, results[f"{phase.name}_loss_start"]
        for part, share in product(self._parts(), SHARES_TRIED):
            moved = {
                key: torch.lerp(start[key], found[key], share)
                for key in start
                if key.startswith(part)
            }
            if all(torch.equal(value, start[key]) for key, value in moved.items()):
                continue
            self.proxy.load_state_dict(best | moved)
            loss = held_out_loss(self.proxy, self.material, judge, self.settings)
            if loss < lowest:
                best, lowest = best | moved, loss
        taken = sum(
            any(not torch.equal(best[key], start[key]) for key in start if key.startswith(part))
            for part in self._parts()
        )
        self.proxy.load_state_dict(best)
        results |= {f"{phase.name}_loss": lowest, f"{phase.name}_parts_taken": float(taken)}
        self.report({f"{phase.name}_held_out": lowest}, phase.steps)
        return best

    def _step(self, optimiser: torch.optim.Optimizer, number: int, phase: Phase, step: int) -> None:
        draw = np.random.default_rng([self.settings.seed, number, step])
        rows = draw.choice(
            phase.rows, size=min(self.settings.batch, len(phase.rows)), replace=False
        )
        for group in optimiser.param_groups:
            group["lr"] = self.settings.lr * group["scale"] * (1.0 - step / phase.steps)
        optimiser.zero_grad(set_to_none=True)
        losses = [self._vote(int(row), phase, step) for row in rows]
        optimiser.step()
        self.report({f"{phase.name}_loss": float(np.mean(losses))}, step)

    def _vote(self, row: int, phase: Phase, step: int) -> float:
        """One clip's loss; its gradient, at unit norm in every part, joins the others'.

        Raises TrainingError.
        """
        sound = self.proxy(*self.material.patches([row], self.device))
        host, rate = self.material.audio([row], self.device), self.material.sample_rate
        loss = distance(sound, host, rate, self.settings.n_ffts).sum()
        if not torch.isfinite(loss):
            raise TrainingError(
                f"calibration phase {phase.name!r} met a non-finite loss at step {step} (clip "
                f"{row})."
            )
        learned = [(name, p) for name, p in self.proxy.named_parameters() if name not in STILL]
        found = torch.autograd.grad(loss, [p for _, p in learned], allow_unused=True)
        for part in self._parts():
            mine = [
                (p, g)
                for (name, p), g in zip(learned, found, strict=True)
                if g is not None and name.startswith(part)
            ]
            norm = torch.stack([g.norm() for _, g in mine]).norm() if mine else loss.new_zeros(())
            if torch.isfinite(norm) and norm > 0:
                for parameter, gradient in mine:
                    share = gradient / norm
                    parameter.grad = share if parameter.grad is None else parameter.grad + share
        return float(loss.detach())

    def _parts(self) -> list[str]:
        """How the names of a part's parameters begin: the voice, and each effect."""
        return ["voice.", *(f"effects.{i}." for i in range(len(self.proxy.effects)))]

    def _optimiser(self) -> torch.optim.Optimizer:
        """Adam over φ, but for what was read from the host as it is.

        Levels in dB take larger steps.
        """
        named = [(name, p) for name, p in self.proxy.named_parameters() if name not in STILL]
        levels = [p for name, p in named if name.endswith("_db")]
        rest = [p for name, p in named if not name.endswith("_db")]
        groups = [{"params": rest, "scale": 1.0}, {"params": levels, "scale": DECIBEL_RATE}]
        return torch.optim.Adam(groups, lr=self.settings.lr, betas=(0.9, 0.99))

    def _judges(self, phase: Phase) -> Rows:
        lengths = self.material.lengths[phase.rows]
        rows = self.material.held_out(int(lengths.max()), int(lengths.min()), judge=True)
        if not len(rows):
            rows = phase.rows
        return np.sort(
            np.random.default_rng(self.settings.seed).permutation(rows)[: self.settings.held_out]
        )

    def _snapshot(self) -> dict[str, Tensor]:
        return {key: value.detach().clone() for key, value in self.proxy.state_dict().items()}

    def _save(
        self,
        phase: int,
        step: int,
        optimiser: torch.optim.Optimizer,
        start: dict[str, Tensor],
        mean: dict[str, Tensor],
        results: dict[str, float],
    ) -> None:
        state = {
            "phase": phase,
            "step": step,
            "proxy": self.proxy.state_dict(),
            "optimiser": optimiser.state_dict(),
            "start": start,
            "mean": mean,
            "results": results,
        }
        temporary = self.path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self.path)
