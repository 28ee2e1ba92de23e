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
from typing import Any

import torch
from torch import Tensor, nn

_shared: ContextVar[tuple[slice, int] | None] = ContextVar("shared", default=None)


@contextmanager
def share(rows: slice, total: int) -> Iterator[None]:
    """Within it, this process works on `rows` of a batch of `total`."""
    token = _shared.set((rows, total))
    try:
        yield
    finally:
        _shared.reset(token)


def draw(
    sampler: Callable[..., Tensor], shape: tuple[int, ...] | torch.Size, **options: Any
) -> Tensor:
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

    def forward(self, x: Tensor) -> Tensor:
        if _shared.get() is None or not self.training or self.p == 0.0:
            return super().forward(x)
        return x * draw(self._mask, x.shape, dtype=x.dtype, device=x.device)

    def _mask(self, shape: tuple[int, ...], **options: Any) -> Tensor:
        return torch.empty(shape, **options).bernoulli_(1 - self.p).div_(1 - self.p)
