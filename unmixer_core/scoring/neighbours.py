"""The nearest training renders of a target, as rows of the evaluation's table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from unmixer_core.audio import Clip
from unmixer_core.dataset.clips import Clips
from unmixer_core.scoring.measures import measure
from unmixer_core.scoring.progress import Progress, quietly
from unmixer_core.scoring.retrieval import Retrieval
from unmixer_core.scoring.targets import ScoreTarget, spread


def index(
    clips: Clips,
    n: int,
    sample_rate: int,
    threads: int,
    progress: Progress = quietly,
    spool: Path | None = None,
) -> Retrieval:
    """Index n training renders, evenly spaced (0: all).

    `spool`: the folder for the features when there are too many for the memory.
    """
    train = clips.patches.where(split="train")
    rows = train[spread(len(train), n)]
    return Retrieval.build(
        clips.audio,
        rows,
        sample_rate,
        threads=threads,
        progress=lambda features: progress(features, len(rows), "index training renders"),
        spool=spool,
    )


@dataclass(frozen=True)
class Neighbours:
    """The training clips with the smallest MSS to a target, nearest first."""

    clips: tuple[int, ...]
    #: MSS in dB of the first clip.
    mss_db: float


def retrieve(
    retrieval: Retrieval, test: Sequence[ScoreTarget], k: int = 1
) -> dict[int, Neighbours]:
    """Return the k nearest training clips of every target, by the target's clip number."""
    found = {}
    for target in test:
        clips, distances_db = retrieval.nearest(target.features, k)
        found[target.clip] = Neighbours(tuple(map(int, clips)), float(distances_db[0]))
    return found


def nearest_rows(
    rows: pd.DataFrame,
    test: Sequence[ScoreTarget],
    found: Mapping[int, Neighbours],
    audio_of: Callable[[int], Clip],
    sample_rate: int,
) -> pd.DataFrame:
    """Add the rows `nearest_as_is` and `nearest` to a table with rows `nearest_rerendered`.

    `nearest_as_is` is the training render itself, for every target. `nearest` is the better of it
    and `nearest_rerendered`, for the clips that have both.
    """
    as_is = []
    for target in test:
        near = found[target.clip]
        if target.detail:
            values = measure(audio_of(near.clips[0]), target, sample_rate, True)
        else:
            values = {"mss_db": near.mss_db}
        as_is.append(
            {"phase": target.phase, "row": "nearest_as_is", "id": target.id, "digest": "", **values}
        )
    table = pd.concat([rows, pd.DataFrame(as_is)], ignore_index=True)
    both = table[table["row"].isin(["nearest_as_is", "nearest_rerendered"])]
    paired = both[both["id"].isin(both.loc[both["row"] == "nearest_rerendered", "id"])]
    better = paired.loc[paired.groupby(["phase", "id"])["mss_db"].idxmin()].assign(row="nearest")
    return pd.concat([table, better], ignore_index=True)
