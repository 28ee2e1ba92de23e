"""Which effects are in a sound.

Probabilities, the decision that F1 asks for, and how many effects can be heard at all.

A chain is one answer; this is another question. F1 is maximised by saying yes above half of the F1
that is reached (Lipton, Elkan, Naryanaswamy, ECML 2014), a threshold well under one half for an
effect that is hard to hear. It is found on the validation clips from the predicted probabilities
alone. The ceiling is an oracle's that knows every effect whose removal changes the host's sound by
at least AUDIBLE_DB, and none of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from unmixer_core.features.store import FeatureTable
from unmixer_core.metrics.statistics import f1
from unmixer_core.model.unmixer import Unmixer
from unmixer_core.schema import chain as chains
from unmixer_core.schema.rack import RACK
from unmixer_core.scoring.score import ScoreJob
from unmixer_core.scoring.targets import ScoreTarget

#: MSS between a sound and itself without one effect, from which that effect counts as audible.
AUDIBLE_DB = 1.0
WITHOUT = "without "
BATCH = 64


@torch.no_grad()
def probabilities(
    model: Unmixer, frames: FeatureTable, rows: Sequence[int] | NDArray[np.integer]
) -> NDArray[np.float64]:
    """Probability of every effect [n, 8] in clips `rows`, at their true note and gate."""
    model.eval()
    device, found = next(model.parameters()).device, [np.zeros((0, len(RACK.effects)))]
    for start in range(0, len(rows), BATCH):
        part = np.asarray(rows[start : start + BATCH])
        table = frames.patches.select(part)
        note, gate_s = (
            torch.as_tensor(x, dtype=torch.float32, device=device)
            for x in (table.note, table.gate_s)
        )
        belief = model(frames.batch(part).to(device), note, gate_s)
        found.append(torch.sigmoid(belief.classes.present.double()).cpu().numpy())
    return np.concatenate(found)


def thresholds(probability: NDArray[np.floating]) -> NDArray[np.float64]:
    """Per column of [n, effects], the threshold with the highest expected F1 if the
    probabilities are right.
    """
    return np.array([_threshold(column) for column in np.asarray(probability, dtype=np.float64).T])


def _threshold(probability: NDArray[np.float64]) -> float:
    """Half of the best expected F1, 2 Σ p over those said yes / (how many they are + Σ p over
    all).
    """
    falling = np.sort(probability)[::-1]
    expected = 2.0 * np.cumsum(falling) / (np.arange(1, len(falling) + 1) + falling.sum())
    return float(expected.max(initial=0.0) / 2.0)


def judged(
    model: Unmixer, frames: FeatureTable, test: Sequence[ScoreTarget], rows: pd.DataFrame
) -> pd.DataFrame:
    """`table` of full-chain targets (those with baselines first), thresholds from the validation
    clips of that phase; rows: measured `without_jobs`, among others.
    """
    valid = frames.patches.where(phase="full", split="valid")
    limits = (
        thresholds(probabilities(model, frames, valid))
        if len(valid)
        else np.full(len(RACK.effects), 0.5)
    )
    found = probabilities(model, frames, [target.clip for target in test])
    heard = audible(rows, [target for target in test if target.baseline])
    return table(found, limits, presence([target.patch.effects for target in test]), heard)


def presence(patches: Sequence[Sequence[str]]) -> NDArray[np.bool_]:
    """Which effects occur in chains of names: bool [n, 8]."""
    return np.array(
        [[name in chain for name in RACK.effect_names] for chain in patches], dtype=bool
    ).reshape(-1, len(RACK.effect_names))


def table(
    probability: NDArray[np.floating],
    threshold: NDArray[np.floating],
    true: NDArray[np.bool_],
    audible: NDArray[np.bool_] | None = None,
) -> pd.DataFrame:
    """Per effect that occurs: f1, that of always saying yes, area under the ROC curve, share of
    clips that have it.

    With `audible` [n, 8] (what of `true` can be heard; rows may be fewer, the first of `true`):
    share audible and ceiling.
    """
    lines = {}
    for column, name in enumerate(RACK.effect_names):
        have = true[:, column]
        if not have.any():
            continue
        said = probability[:, column] >= threshold[column]
        lines[name] = {
            "f1": _effect_f1(said, have),
            "always": _effect_f1(np.ones_like(have), have),
            "auc": _auc(probability[:, column], have),
            "share": float(have.mean()),
        }
        if audible is not None:
            part, heard = have[: len(audible)], audible[:, column]
            lines[name] |= {
                "audible": float(heard[part].mean()) if part.any() else np.nan,
                "ceiling": _effect_f1(heard, part),
            }
    return pd.DataFrame.from_dict(lines, orient="index")


def flat(found: pd.DataFrame, phase: str) -> dict[str, float]:
    """`<phase>.effects.<measure>`: macro means over effects; `<phase>.effects.<effect>.<measure>`.

    each.
    """
    means = {
        f"{phase}.effects.{name}": float(value)
        for name, value in found.drop(columns="share").mean().items()
    }
    keys = {effect.name: effect.key for effect in RACK.effects}
    each = {
        f"{phase}.effects.{keys[str(n)]}.{c}": float(v)
        for n, line in found.iterrows()
        for c, v in line.items()
    }
    return {key: value for key, value in (means | each).items() if np.isfinite(value)}


def without_jobs(test: Sequence[ScoreTarget]) -> list[ScoreJob]:
    """For every target with baselines, its true patch without each of its effects in turn."""
    jobs = []
    for target in (t for t in test if t.baseline):
        for name in target.patch.effects:
            rest = tuple(other for other in target.patch.effects if other != name)
            jobs.append(
                ScoreJob(
                    WITHOUT + name,
                    target.clip,
                    replace(target.patch, chain=chains.encode(rest)),
                    False,
                )
            )
    return jobs


def audible(rows: pd.DataFrame, test: Sequence[ScoreTarget]) -> NDArray[np.bool_]:
    """From the measured `without_jobs`.

    Which effects of each target can be heard, bool [targets, 8].
    """
    part = rows[rows["row"].str.startswith(WITHOUT)]
    names = [str(name).removeprefix(WITHOUT) for name in part["row"]]
    changed = dict(
        zip(zip(part["id"].tolist(), names, strict=True), part["mss_db"].tolist(), strict=True)
    )
    heard = [
        [changed.get((target.id, name), 0.0) >= AUDIBLE_DB for name in RACK.effect_names]
        for target in test
    ]
    return np.array(heard, dtype=bool).reshape(-1, len(RACK.effect_names))


def _effect_f1(said: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    hits = (said & true).sum()
    return f1(hits, said.sum(), true.sum(), empty=float("nan"))


def _auc(score: NDArray[np.floating], true: NDArray[np.bool_]) -> float:
    """Chance that a clip that has the effect scores above one that has not, ties half.

    Nan when all are alike.
    """
    yes, no = score[true], score[~true]
    if not len(yes) or not len(no):
        return float("nan")
    return float(
        ((yes[:, None] > no).sum() + 0.5 * (yes[:, None] == no).sum()) / (len(yes) * len(no))
    )
