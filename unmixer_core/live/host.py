"""What a host is to the rest of the house: patches go in, sounds or failures come out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from unmixer_core.audio import Clip
from unmixer_core.schema.patch import Patch


@dataclass(frozen=True, eq=False)
class RenderFailure:
    """A patch that no try could render, and the reason as a sentence."""

    patch: Patch
    reason: str

    def __str__(self) -> str:
        return f"patch {self.patch.digest} was not rendered: {self.reason}"


class Host(Protocol):
    """The forward map G: Live, the embedded host, or several of either."""

    def render(self, patches: Sequence[Patch]) -> list[Clip | RenderFailure]:
        """All patches, in their order: float32 [2, samples] each, or why there is no sound."""
        ...

    def map(self, patches: Sequence[Patch]) -> Iterator[tuple[int, Clip | RenderFailure]]:
        """(position, sound or failure) of each patch, as soon as it is there."""
        ...
