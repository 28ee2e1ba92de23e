"""Patches → clips through a host, with what makes a render usable checked.

Silent or runaway ones are redrawn and counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from unmixer_core import audio, config
from unmixer_core.errors import HostError, StageError
from unmixer_core.live.farm.host_list import EMBEDDED, sounds
from unmixer_core.live.host import Host, RenderFailure
from unmixer_core.live.track.frozen import FrozenTrack, frozen_of
from unmixer_core.rendering.clip_store import ClipStore
from unmixer_core.sampling import draw
from unmixer_core.schema.patch import Patch, Patches


@dataclass
class Tally:
    """What happened during a render."""

    rendered: int = 0
    resumed: int = 0
    silent: int = 0
    clipped: int = 0
    failures: list[str] = field(default_factory=list)


def host_digest() -> str:
    """16 hex digits that change whenever equal patches may sound different.

    Live's address, or our host's code and vita's version.

    Finished clips are only taken over from an earlier run with the same digest. How many hosts
    there are, where, and which engine drives them does not count; of several Lives, only that they
    are Lives.
    """
    kinds = sounds()
    texts = [kind.encode() for kind in kinds if kind != EMBEDDED]
    if EMBEDDED in kinds:
        folder = Path(__file__).parents[1] / "headless"
        code = b"".join(
            path.name.encode() + path.read_bytes() for path in sorted(folder.rglob("*.py"))
        )
        texts.insert(0, version("vita").encode() + code)
    return hashlib.sha256(b"".join(texts)).hexdigest()[:16]


class RenderJob:
    """Renders every patch of `table` into `store`, on from where an earlier run stopped.

    for _ in job.run():   # one item per clip that is finished, earlier runs' first
        ...
    job.patches()         # what was really rendered, redraws included
    """

    def __init__(
        self,
        table: Patches,
        host: Host,
        store: ClipStore,
        sample: config.Sample,
        render: config.Render,
    ) -> None:
        self.table = table
        self.host = host
        self.store = store
        self.sample = sample
        self.render = render
        self.tally = Tally(resumed=len(store.rows))

    def run(self) -> Iterator[int]:
        """Yields row numbers as they are finished.

        What the host cannot set (a template set on stock AbletonOSC) is as the host has it, in
        `patches()` too. Raises StageError when a patch cannot be rendered, or stays silent or
        clipped; what was finished is kept.
        """
        self._check_resumed()
        yield from sorted(self.store.rows)
        pending = {i: 0 for i in range(len(self.table)) if i not in self.store.rows}
        while pending:
            again: dict[int, int] = {}
            try:
                yield from self._round(pending, again)
            except HostError as error:
                kept = (
                    f"{len(self.store.rows)} of {len(self.table)} clips are finished and kept, "
                    f"`dvc repro` goes on."
                )
                raise HostError(f"{str(error).rstrip('.')}; {kept}") from error
            if self.tally.failures:
                first = self.tally.failures[0]
                raise StageError(
                    f"{len(self.tally.failures)} patches were not rendered (first: {first}); the "
                    f"rest is kept, `dvc repro` goes on."
                )
            if max(again.values(), default=0) > self.render.max_redraws:
                raise StageError(
                    f"a patch stayed silent or clipped after {self.render.max_redraws} redraws; "
                    f"see render.* and the host's sound."
                )
            pending = again

    def _round(self, pending: dict[int, int], again: dict[int, int]) -> Iterator[int]:
        """One try of each pending row.

        Rows whose sound is not usable go to `again` with their next attempt.
        """
        tries = [
            (row, attempt, self._patch(row, attempt)) for row, attempt in sorted(pending.items())
        ]
        for position, result in self.host.map([patch for _, _, patch in tries]):
            row, attempt, patch = tries[position]
            if isinstance(result, RenderFailure):
                self.tally.failures.append(str(result))
                continue
            loudness = audio.loudness_lufs(result, self.store.rate)
            fault = _fault(result, loudness, self.render)
            if fault:
                setattr(self.tally, fault, getattr(self.tally, fault) + 1)
                again[row] = attempt + 1
                continue
            self.store.put(row, attempt, patch.digest, result, loudness)
            self.tally.rendered += 1
            yield row

    def _patch(self, row: int, attempt: int) -> Patch:
        """What is rendered for a row: its patch, or a redraw, as far as the host can set it."""
        frozen: FrozenTrack | None = getattr(self.host, "frozen", None)
        return frozen_of(redraw(self.table, row, attempt, self.sample), frozen)

    def _check_resumed(self) -> None:
        """Raises StageError when clips of an earlier run have another sound frozen into them
        than the host has now.
        """
        for row, kept in self.store.rows.items():
            if self._patch(row, kept.attempt).digest != kept.digest:
                raise StageError(
                    f"clip {row} of an earlier run was rendered with other frozen choices than "
                    f"the template set has now; "
                    "put the template back, or delete .unmixer/ to render anew."
                )

    def patches(self) -> Patches:
        """The table with each row as it was rendered."""
        kept = [self._patch(row, self.store.rows[row].attempt) for row in range(len(self.table))]
        stacked = Patches.stack(kept, "full", "train")
        return replace(stacked, id=self.table.id, phase=self.table.phase, split=self.table.split)


def _fault(clip: audio.Clip, loudness: float, render: config.Render) -> str | None:
    """Why a render is not usable: "silent", "clipped" (also not a number), or None."""
    if not np.isfinite(clip).all() or audio.peak(clip) > render.max_peak:
        return "clipped"
    return "silent" if loudness < render.min_loudness_lufs else None


def redraw(table: Patches, row: int, attempt: int, sample: config.Sample) -> Patch:
    """Patch `row` on its attempt; attempt 0 is the table's own."""
    if attempt == 0:
        return table[row]
    phase, split = str(table.phase[row]), str(table.split[row])
    position = int(row - table.where(phase=phase, split=split)[0])
    seed = sample.test_seed if split == "test" else sample.seed
    return draw(phase, split, position, seed, sample, attempt)
