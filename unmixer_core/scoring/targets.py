"""The test clips that are scored, and the training patches that baselines are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unmixer_core import config
from unmixer_core.audio import Clip
from unmixer_core.dataset.patch_table import PatchTable
from unmixer_core.errors import StageError
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.schema.patch import PHASES, Patch, Patches


@dataclass(frozen=True)
class ScoreTarget:
    """A test clip that patches are compared with."""

    #: Its row number in the clips.
    clip: int
    id: int
    phase: str
    patch: Patch
    #: [2, time], at its true level.
    audio: Clip
    #: MSS features of `audio`.
    features: np.ndarray
    #: Whether the baselines are rendered for it.
    baseline: bool
    #: Whether the measures beside MSS are computed for it.
    detail: bool


def choose(patches: Patches | PatchTable, settings: config.Evaluate) -> dict[str, np.ndarray]:
    """Choose the test clips of every phase; return row numbers.

    These are the first n_<phase> of the frozen test split (0 = all).
    """
    limits = {"dry": settings.n_dry, "nonlinear": settings.n_nonlinear, "full": settings.n_full}
    chosen = {}
    for phase in PHASES:
        rows = patches.where(phase=phase, split="test")
        if len(rows):
            chosen[phase] = rows[: limits[phase] or None]
    return chosen


def targets(
    audio_of: Callable[[int], Clip],
    patches: Patches | PatchTable,
    chosen: Mapping[str, np.ndarray],
    settings: config.Evaluate,
    sample_rate: int,
) -> list[ScoreTarget]:
    """Return the targets of all phases, in order. Raises StageError when there is no test clip."""
    if not any(len(rows) for rows in chosen.values()):
        raise StageError(
            "the clips hold no test split; run `dvc repro render_patches` with sample.n_test "
            "above 0."
        )
    result = []
    for phase, rows in chosen.items():
        for place, clip in enumerate(map(int, rows)):
            audio = audio_of(clip)
            target = ScoreTarget(
                clip=clip,
                id=int(patches.id[clip]),
                phase=phase,
                patch=patches[clip],
                audio=audio,
                features=metrics_sound.mss_features(audio, sample_rate),
                baseline=place < settings.n_baseline,
                detail=place < settings.n_detail,
            )
            result.append(target)
    return result


def spread(total: int, n: int) -> np.ndarray:
    """Return n of the indices 0 ... total - 1, evenly spaced (0 or more than `total`: all)."""
    if n <= 0 or n >= total:
        return np.arange(total)
    return np.linspace(0, total - 1, n).round().astype(np.int64)


def some(test: Sequence[ScoreTarget], n: int) -> list[ScoreTarget]:
    """Return n of the targets, evenly spaced over all phases (0: none)."""
    if n == 0:
        return []
    return [test[i] for i in spread(len(test), n)]


def shown(test: Sequence[ScoreTarget], n: int) -> list[ScoreTarget]:
    """Return the n clips of the last phase whose sounds go into the report."""
    last_phase = test[-1].phase
    return some([target for target in test if target.phase == last_phase], n)


def prior(patches: Patches | PatchTable, at_most: int = 20_000) -> Patches:
    """Return the training patches of the random and the mean baseline, evenly spaced."""
    train = patches.where(split="train")
    return patches.select(train[spread(len(train), at_most)])
