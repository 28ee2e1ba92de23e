"""How a long loop reports its progress."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """(items, their number, a description) -> the same items, with a progress bar."""

    def __call__(self, items: Iterable[Item], total: int, words: str, /) -> Iterable[Item]: ...


def quietly(items: Iterable[Item], total: int, words: str) -> Iterable[Item]:
    """Return the items without a progress bar."""
    return items
