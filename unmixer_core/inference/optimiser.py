"""Adam on the knob logits of several candidates, with the best state of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from unmixer_core import config
from unmixer_core.model.mixture import to_logit, to_unit
from unmixer_core.schema.patch import Patch

#: Smallest spread in logits that scales the anchor: a smaller one would fix the knob.
MIN_SPREAD = 1e-2
#: Smallest gradient norm that is divided by.
MIN_NORM = 1e-12


@dataclass(frozen=True)
class Refined:
    """One refined candidate.

    Losses are proxy distances without the anchor; `curve` has one loss per evaluated step.
    `finite` is False where the loss or the gradient stopped being finite.
    """

    patch: Patch
    loss: float
    initial_loss: float
    best_step: int
    finite: bool
    curve: np.ndarray


class LogitOptimiser:
    """Adam on knob logits. The state of all candidates is in tensors [batch, K].

    start: unit knobs [batch, K]; free: bool [batch, K], True = may move; sigma: spread in logits
    [batch, K], which scales the anchor.
    """

    def __init__(
        self, start: Tensor, free: np.ndarray, settings: config.Itf, sigma: np.ndarray | None
    ) -> None:
        self.settings = settings
        self.start = start
        self.free = torch.as_tensor(free, device=start.device)
        self.origin = to_logit(start).clamp(-settings.logit_limit, settings.logit_limit)
        self.logits = self.origin.clone().requires_grad_(True)
        spread = torch.ones_like(self.origin)
        if sigma is not None:
            spread = torch.as_tensor(sigma).to(self.origin).clamp_min(MIN_SPREAD)
        # the anchor is a mean over the free knobs
        n_free = self.free.sum(dim=1, keepdim=True).clamp_min(1)
        self.anchor_weight = self.free / spread.square() / n_free
        self.adam = torch.optim.Adam([self.logits], lr=settings.lr)
        self.alive = torch.ones(len(free), dtype=torch.bool, device=start.device)
        self.best_objective = torch.full((len(free),), math.inf, device=start.device)
        self.best_loss = torch.full_like(self.best_objective, math.nan)
        self.best_logits = self.origin.clone()
        self.last_finite = self.origin.clone()
        self.best_step = torch.zeros(len(free), dtype=torch.int64, device=start.device)
        self.curve: list[Tensor] = []

    def knobs(self, logits: Tensor) -> Tensor:
        """Unit knobs; a knob whose logit has not moved has the proposal's exact value."""
        moved = self.free & (logits != self.origin)
        return torch.where(moved, to_unit(logits), self.start)

    def step(self, loss_of: Callable[[Tensor], Tensor], last: bool) -> None:
        """Evaluate the current state, record it where it is the best, and move unless it is last.

        loss_of: unit knobs [batch, K] -> losses [batch].
        """
        # The graph goes through to_unit everywhere. The proposal's exact value is substituted
        # without cutting the gradient.
        soft = to_unit(self.logits)
        knobs = soft + (self.knobs(self.logits) - soft).detach()
        loss = loss_of(torch.where(self.free, knobs, self.start))
        anchor = (self.anchor_weight * (self.logits - self.origin).square()).sum(dim=1)
        objective = loss + self.settings.lambda_b * anchor
        self._record(loss.detach(), objective.detach())
        if not last and bool(self.alive.any()):
            self._move(objective)

    def _record(self, loss: Tensor, objective: Tensor) -> None:
        self.alive = self.alive & torch.isfinite(objective)
        better = self.alive & (objective < self.best_objective)
        self.best_objective = torch.where(better, objective, self.best_objective)
        self.best_loss = torch.where(better, loss, self.best_loss)
        self.best_logits = torch.where(better[:, None], self.logits.detach(), self.best_logits)
        self.best_step = torch.where(better, len(self.curve), self.best_step)
        self.curve.append(torch.where(self.alive, loss, math.nan))

    def _move(self, objective: Tensor) -> None:
        self.adam.zero_grad()
        torch.where(self.alive, objective, 0.0).sum().backward()
        gradient = self.logits.grad
        assert gradient is not None
        self.alive = self.alive & torch.isfinite(gradient).all(dim=1)
        gradient.nan_to_num_(0.0, 0.0, 0.0).mul_(self.free & self.alive[:, None])
        if self.settings.clip_norm > 0:
            norm = gradient.norm(dim=1, keepdim=True)
            gradient.mul_((self.settings.clip_norm / norm.clamp_min(MIN_NORM)).clamp_max(1.0))
        self.last_finite = torch.where(self.alive[:, None], self.logits.detach(), self.last_finite)
        self.adam.step()
        with torch.no_grad():
            self.logits.clamp_(-self.settings.logit_limit, self.settings.logit_limit)
            # Adam's momentum moves knobs without a gradient too
            movable = self.alive[:, None] & self.free
            self.logits.copy_(torch.where(movable, self.logits, self.last_finite))

    def results(self, patches: Sequence[Patch]) -> list[Refined]:
        """The best state of each candidate; `patches` are those of `start`."""
        knobs = self.knobs(self.best_logits).cpu().numpy().astype(np.float32)
        curves = torch.stack(self.curve, dim=1).cpu().numpy()
        refined: list[Refined] = []
        for i, patch in enumerate(patches):
            one = Refined(
                patch=replace(patch, knobs=knobs[i]),
                loss=float(self.best_loss[i]),
                initial_loss=float(curves[i, 0]),
                best_step=int(self.best_step[i]),
                finite=bool(self.alive[i]),
                curve=curves[i],
            )
            refined.append(one)
        return refined
