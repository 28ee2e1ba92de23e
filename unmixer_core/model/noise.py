"""Random numbers of a batch that several processes share.

Each draws those of the whole batch and keeps its own rows.

Inside `share` a process that works on some rows of a batch sees exactly the noise that one process
with all rows would, so that the number of ranks is no part of an experiment. Outside of it nothing
changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypedDict, Unpack

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

_shared: ContextVar[tuple[slice, int] | None] = ContextVar("shared", default=None)


class NoiseOptions(TypedDict, total=False):
    """What torch's random functions take beside a shape."""

    generator: torch.Generator | None
    dtype: torch.dtype
    device: torch.device


@contextmanager
def share(rows: slice, total: int) -> Iterator[None]:
    """Within it, this process works on `rows` of a batch of `total`."""
    token = _shared.set((rows, total))
    try:
        yield
    finally:
        _shared.reset(token)


def draw(
    sampler: Callable[..., Shaped[Tensor, "batch ..."]],
    shape: tuple[int, ...] | torch.Size,
    **options: Unpack[NoiseOptions],
) -> Shaped[Tensor, "rows ..."]:
    """`sampler(shape, ...)` for a shape whose first axis are the rows at work.

    The share of it where a batch is shared.
    """
    shared = _shared.get()
    if shared is None:
        return sampler(shape, **options)
    rows, total = shared
    return sampler((total, *shape[1:]), **options)[rows]


class Dropout(nn.Dropout):
    """nn.Dropout whose mask, like all noise here, is that of the whole batch."""

    def forward(self, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch *shape"]:
        """The values, some of them set to zero while training."""
        if _shared.get() is None or not self.training or self.p == 0.0:
            return super().forward(x)
        return x * draw(self._mask, x.shape, dtype=x.dtype, device=x.device)

    def _mask(
        self, shape: tuple[int, ...], **options: Unpack[NoiseOptions]
    ) -> Float[Tensor, "batch ..."]:
        empty = torch.empty(shape, dtype=options["dtype"], device=options["device"])
        return empty.bernoulli_(1 - self.p).div_(1 - self.p)
