"""What one training step minimises, as a module that DDP can wrap.

A share of a batch -> the hybrid loss.

On CUDA, and on CPUs that compute in it, the encoder and what reads its vector directly run in
bfloat16 where autocast allows it (UNMIXER_PRECISION: `bf16`, `float32`); densities and the chain
decoder's walk get float32, and its hyperbolic parts stay float64.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from unmixer_core import config
from unmixer_core.distributed import ALONE, Ranks
from unmixer_core.errors import ConfigError
from unmixer_core.model import noise
from unmixer_core.model.heads import Classes
from unmixer_core.model.targets import Targets
from unmixer_core.model.unmixer import Belief, Draw, Unmixer
from unmixer_core.training import losses

PRECISIONS = {"bf16": torch.bfloat16, "float32": torch.float32}


@runtime_checkable
class ProxyTerm(Protocol):
    """The loss through the proxy (`curriculum.Sounds`).

    B samples and their rows of the features -> distances [b].
    """

    def __call__(
        self, draw: Draw, targets: Targets, rows: NDArray[np.int64]
    ) -> Float[Tensor, "batch"]: ...


@dataclass(frozen=True)
class Part:
    """A rank's part of a batch of `total` clips.

    Targets and rows of its clips, `share` of the phase that is done, and the proxy's term on the
    first `heard` clips of the whole batch, weighed by `weight` (None: not in this step).
    """

    targets: Targets
    rows: NDArray[np.int64]
    total: int
    share: float
    proxy_term: ProxyTerm | None
    heard: int
    weight: float


class Objective(nn.Module):
    """forward(features, part) -> (loss, values to log).

    Means are over the whole batch: what a rank returns is its summand of each value, and `world`
    times its summand of the loss, since DDP averages gradients.
    """

    def __init__(
        self, model: Unmixer, settings: config.Loss, limit: float | None, ranks: Ranks = ALONE
    ) -> None:
        """limit: largest norm of a clip's spectral gradient (see `losses.carried`), None for
        any.
        """
        super().__init__()
        self.model, self.settings, self.limit, self.ranks = model, settings, limit, ranks

    def forward(
        self, features: Float[Tensor, "batch 2 mels frames"], part: Part
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """The loss of a rank's part of a batch, and the values to log."""
        with self._shared(part.total), autocast(features.device):
            belief = self.model(features, part.targets.note, part.targets.gate_s)
        belief, weight = _full(belief), self.ranks.weight(part.total)
        with self._shared(part.total):
            terms = losses.parametric(self.model, belief, part.targets, self.settings)
        total = terms.total(self.settings) * weight
        values = {name: value * weight / self.ranks.world for name, value in terms.floats().items()}
        if part.proxy_term is not None:
            term, found = self._through_proxy(belief, part)
            total, values = total + part.weight * term, values | found
        return total, values

    def _shared(self, total: int) -> AbstractContextManager[None]:
        return (
            nullcontext() if self.ranks.world == 1 else noise.share(self.ranks.rows(total), total)
        )

    def _through_proxy(
        self, belief: Belief, part: Part
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """The spectral term (see `losses.carried`) and what to log of it.

        Nothing for a rank that hears no clip.
        """
        heard, mine = (
            min(part.heard, part.total),
            slice(0, self.ranks.count(min(part.heard, part.total))),
        )
        weight, term, found = (
            self.ranks.weight(heard),
            belief.vector.new_zeros(()),
            {"spectral": 0.0, "spectral_dropped": 0.0},
        )
        if mine.stop:
            targets = part.targets[mine]
            with self._shared(heard):
                draw = self.model.draw(
                    belief[mine],
                    losses.temperature(part.share, self.settings),
                    through_choices=self.settings.audio_to_choices,
                    through_chain=self.settings.audio_to_chain,
                )
            assert part.proxy_term is not None
            at = losses.parted(draw)
            distance = part.proxy_term(at, targets, part.rows[mine])
            carried, dropped = losses.carried(distance, at, draw, self.limit)
            term, spectral = (
                carried * weight,
                float(distance.detach().mean()) * weight / self.ranks.world,
            )
            found = {"spectral": spectral, "spectral_dropped": float(dropped)}
        self.ranks.same_noise(belief.vector.device)
        return term, found


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 where it helps: on CUDA and on CPUs that compute in it (a training step there takes
    0.7 times as long), unless UNMIXER_PRECISION says otherwise.

    Raises:
        ConfigError: UNMIXER_PRECISION is neither bf16 nor float32.
    """
    given = os.environ.get("UNMIXER_PRECISION") or (
        "bf16" if _computes_in_bf16(device) else "float32"
    )
    if given not in PRECISIONS:
        raise ConfigError(
            f"UNMIXER_PRECISION = {given!r} is not allowed, it must be bf16 or float32."
        )
    kind = PRECISIONS[given]
    return nullcontext() if kind is torch.float32 else torch.autocast(device.type, kind)


@cache
def _computes_in_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 itself; a CPU that only emulates it gets slower."""
    if device.type != "cpu":
        return device.type == "cuda"
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def _full(belief: Belief) -> Belief:
    """In float32 again (no copy where it is)."""
    classes = belief.classes
    return Belief(
        belief.vector.float(),
        Classes(
            [x.float() for x in classes.choices], classes.present.float(), classes.moving.float()
        ),
    )
