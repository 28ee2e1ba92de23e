"""GCWD: gradient clipping with weight decay, one optimiser for flat and hyperbolic parameters.

Spectral losses have gradients that range over tens of orders of magnitude, on which plain Adam
diverges or stalls. Two readings of the idea are offered, `clip=`:

norm     AdamW on gradients scaled to a largest global norm (Pascanu et al., ICML 2013; decoupled
         decay of Loshchilov, Hutter, ICLR 2019), the reading of the specification.
element  each coordinate of the momentum is clipped to +-threshold and divided by it, so that large
         ones count as a sign, then decoupled decay: Han, Lostanlen, Lagrange, "Gradient Clipping
         Improves Neural Network Optimization for Perceptual Sound Matching",
         EUSIPCO 2025 (beta 0.965, threshold 0.01, decay 0.1 at lr 1e-3).
none     plain AdamW, to compare with.

Weight decay leaves norms, biases and points of a manifold alone. A `geoopt.ManifoldParameter` moves
along its manifold (Becigneul, Ganea, "Riemannian Adaptive Optimization Methods", ICLR 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import overload

import geoopt
import torch
from jaxtyping import Float
from torch import Tensor

from unmixer_core.errors import TrainingError
from unmixer_core.system.json_types import Json

CLIPS = ("norm", "element", "none")
SHARED = ("encoder", "neck")
_HISTORY = 500
_PERCENTILE_SAMPLE = 50_000


@dataclass(frozen=True)
class StepReport:
    """One step: global gradient norm before clipping; share clipped (of this step: 0 or 1.

    Of coordinates for `element`).
    """

    gradient_norm: float
    clipped_share: float


class GCWD(torch.optim.Optimizer):
    """See the module.

    `threshold` is the largest global norm (norm) or the momentum's limit (element); a `percentile`
    in (0, 100] replaces it by that percentile of the last 500 norms (Seetharaman et al.,
    "AutoClip", MLSP 2020) or of the momentum's coordinates.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Float[Tensor, "..."]]],
        *,
        lr: float,
        beta1: float = 0.9,
        beta2: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        clip: str = "norm",
        threshold: float = 1.0,
        percentile: float | None = None,
        manifold_lr: float = 1.0,
    ) -> None:
        if clip not in CLIPS:
            raise ValueError(f"clip must be one of {', '.join(CLIPS)}, got {clip!r}")
        if percentile is not None and not 0 < percentile <= 100:
            raise ValueError(f"percentile must be in (0, 100], got {percentile}")
        named = [(name, p) for name, p in named_parameters if p.requires_grad]
        groups = [_group(named, kind) for kind in ("decayed", "plain", "manifold")]
        super().__init__([g for g in groups if g["params"]], {"lr": lr})
        for group in self.param_groups:
            group["weight_decay"] = weight_decay if group["kind"] == "decayed" else 0.0
            group["lr_scale"] = manifold_lr if group["kind"] == "manifold" else 1.0
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.clip, self.threshold, self.percentile = clip, threshold, percentile
        self.norms: list[float] = []
        self.report = StepReport(0.0, 0.0)

    def set_lr(self, lr: float) -> None:
        """Learning rate of the next steps."""
        for group in self.param_groups:
            group["lr"] = lr

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Clip, decay and move.

        Raises:
            TrainingError: a gradient is not finite; names the head, and no parameter or state has
            changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        norm = self._norm()
        self.norms = [*self.norms[1 - _HISTORY :], norm]
        if self.clip == "element":
            self.report = StepReport(norm, self._step_element())
        else:
            scale = self._scale(norm)
            self._step_adam(scale)
            self.report = StepReport(norm, float(scale < 1.0))
        return loss

    def _norm(self) -> float:
        """Global norm of all gradients.

        Refuses what is not finite (float32 squares may overflow, so those are redone).
        """
        gradients = [p.grad for g in self.param_groups for p in g["params"] if p.grad is not None]
        if not gradients:
            return 0.0
        norms = torch.stack([n.double() for n in torch._foreach_norm(gradients)])
        total = norms.norm().item()
        if total < float("inf"):
            return total
        self._refuse_non_finite()
        largest = max(g.abs().max().item() for g in gradients)
        return (
            largest * torch.stack([(g.double() / largest).norm() for g in gradients]).norm().item()
        )

    def _refuse_non_finite(self) -> None:
        bad = [
            name
            for group in self.param_groups
            for name, p in zip(group["names"], group["params"], strict=True)
            if p.grad is not None and not torch.isfinite(p.grad).all()
        ]
        heads = sorted({name.split(".")[0] for name in bad})
        # A head's bad gradient flows on into what heads share, which is only named when it stands
        # alone.
        heads = [head for head in heads if head not in SHARED] or heads
        if heads:
            raise TrainingError(
                f"The gradient of {' and '.join(heads)} is not finite (first in {bad[0]}), so the "
                f"step was not taken; "
                "lower optim.lr or loss.lambda_s, or set optim.clip to norm."
            )

    def _scale(self, norm: float) -> float:
        if self.clip == "none" or norm == 0.0:
            return 1.0
        limit = (
            self.threshold
            if self.percentile is None
            else _percentile(torch.tensor(self.norms), self.percentile)
        )
        return min(1.0, limit / norm)

    def _step_adam(self, scale: float) -> None:
        for group in self.param_groups:
            lr = group["lr"] * group["lr_scale"]
            for p in group["params"]:
                if p.grad is not None:
                    move = _riemannian_adam if group["kind"] == "manifold" else _adam
                    move(
                        p,
                        p.grad * scale,
                        self._moments(p),
                        lr,
                        group["weight_decay"],
                        self.beta1,
                        self.beta2,
                        self.eps,
                    )

    def _moments(self, p: Float[Tensor, "..."]) -> Json:
        state = self.state[p]
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            state["square"] = torch.zeros_like(state["mean"])
        state["step"] += 1
        return state

    def _step_element(self) -> float:
        """Momentum, clipped per coordinate; returns the share of coordinates that met the limit."""
        moving = [(g, p) for g in self.param_groups for p in g["params"] if p.grad is not None]
        for group, p in moving:
            gradient = p.manifold.egrad2rgrad(p, p.grad) if group["kind"] == "manifold" else p.grad
            self._moments(p)["mean"].mul_(self.beta1).add_(gradient, alpha=1 - self.beta1)
        limit = (
            self.threshold
            if self.percentile is None
            else self._element_limit([p for _, p in moving])
        )
        clipped = total = 0
        for group, p in moving:
            mean, lr = self.state[p]["mean"], group["lr"] * group["lr_scale"]
            clipped += int((mean.abs() > limit).sum())
            total += mean.numel()
            update = (mean / limit).clamp_(-1.0, 1.0)
            if group["kind"] == "manifold":
                _move_on_manifold(p, update * -lr, self.state[p])
            else:
                p.mul_(1 - lr * group["weight_decay"]).sub_(update, alpha=lr)
        return clipped / max(total, 1)

    def _element_limit(self, parameters: list[Float[Tensor, "..."]]) -> float:
        flat = torch.cat([self.state[p]["mean"].flatten().float() for p in parameters]).abs()
        every = max(1, flat.numel() // _PERCENTILE_SAMPLE)
        return max(_percentile(flat[::every], self.percentile), 1e-30)

    def state_dict(self) -> Json:
        """The state of torch's optimiser, and the last norms."""
        return super().state_dict() | {"norms": list(self.norms)}

    def load_state_dict(self, state_dict: Json) -> None:
        """Take over what `state_dict` gave."""
        state_dict = dict(state_dict)
        self.norms = list(state_dict.pop("norms"))
        super().load_state_dict(state_dict)


def _kind(p: Float[Tensor, "..."]) -> str:
    if isinstance(p, geoopt.ManifoldParameter):
        return "manifold"
    return "decayed" if p.ndim >= 2 else "plain"


def _group(named: list[tuple[str, Float[Tensor, "..."]]], kind: str) -> Json:
    chosen = [(name, p) for name, p in named if _kind(p) == kind]
    return {"params": [p for _, p in chosen], "names": [name for name, _ in chosen], "kind": kind}


def _percentile(values: Float[Tensor, "values"], percentile: float | None) -> float:
    return torch.quantile(values.double(), (percentile or 100.0) / 100).item()


def _adam(
    p: Float[Tensor, "*shape"],
    gradient: Float[Tensor, "*shape"],
    state: Json,
    lr: float,
    decay: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    state["mean"].lerp_(gradient, 1 - beta1)
    state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    root = (state["square"] / (1 - beta2 ** state["step"])).sqrt_().add_(eps)
    p.mul_(1 - lr * decay).addcdiv_(state["mean"], root, value=-lr / (1 - beta1 ** state["step"]))


def _riemannian_adam(
    p: geoopt.ManifoldParameter,
    gradient: Float[Tensor, "*shape"],
    state: Json,
    lr: float,
    decay: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """As `_adam`, with gradient and inner product of the manifold; `decay` is always 0 here."""
    gradient = p.manifold.egrad2rgrad(p, gradient)
    state["mean"].lerp_(gradient, 1 - beta1)
    state["square"].mul_(beta2).add_(p.manifold.component_inner(p, gradient), alpha=1 - beta2)
    root = (state["square"] / (1 - beta2 ** state["step"])).sqrt_().add_(eps)
    _move_on_manifold(p, state["mean"] / root * (-lr / (1 - beta1 ** state["step"])), state)


def _move_on_manifold(
    p: geoopt.ManifoldParameter, tangent: Float[Tensor, "..."], state: Json
) -> None:
    """Follow the tangent vector and carry the momentum along."""
    point, mean = p.manifold.retr_transp(p, tangent, state["mean"])
    p.copy_(p.manifold.projx(point))
    state["mean"].copy_(mean)
