"""What can be known from the sound at all.

How often another answer would sound different on the host.

For some test clips the host renders the true patch with one answer replaced: two neighbouring
effects whose order should be heard the other way round, another wavetable, another filter type.
Where that changes the sound by less than AUDIBLE_DB, not even a perfect model can tell, and half of
such questions are lost; the share that remains is the ceiling of the accuracy beside which it
stands. A chain can be exact only where each of its effects can be heard, and a pair of effects can
be found only where both can.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from unmixer_core.evaluation.detection import AUDIBLE_DB, WITHOUT, audible
from unmixer_core.evaluation.recovery import NAMED_CHOICES
from unmixer_core.metrics import patch as metrics_patch
from unmixer_core.schema import chain as chains
from unmixer_core.schema.patch import Patch, Patches
from unmixer_core.schema.rack import RACK
from unmixer_core.scoring.score import ScoreJob
from unmixer_core.scoring.targets import ScoreTarget

OTHER = "other "
ORDER = "order"


def other_jobs(test: Sequence[ScoreTarget], n: int, seed: int) -> list[ScoreJob]:
    """The replaced patches of the first n full-chain targets, rows "other order", "other
    wavetable", "other filter"; what a patch has no audible answer for is left out.
    """
    jobs = []
    for target in [target for target in test if target.phase == "full"][:n]:
        rng = np.random.default_rng([seed, target.id])
        others = {ORDER: _swapped(target.patch, rng)}
        others |= {name: _rechosen(target.patch, key, rng) for name, key in NAMED_CHOICES.items()}
        jobs += [
            ScoreJob(OTHER + name, target.clip, patch, False)
            for name, patch in others.items()
            if patch is not None
        ]
    return jobs


def _swapped(patch: Patch, rng: np.random.Generator) -> Patch | None:
    """Two neighbours that do not commute, swapped.

    Exactly one audible pair is the other way round.
    """
    names = list(patch.effects)
    places = [i for i in range(len(names) - 1) if not chains.commutes(names[i], names[i + 1])]
    if not places:
        return None
    i = int(rng.choice(places))
    names[i], names[i + 1] = names[i + 1], names[i]
    return replace(patch, chain=chains.encode(names))


def _rechosen(patch: Patch, key: str, rng: np.random.Generator) -> Patch | None:
    """Another item of a choice, if the choice is heard at all."""
    column = RACK.choice_index[key]
    if not RACK.active(patch.choices, patch.chain, patch.knobs)[1][column]:
        return None
    choices = patch.choices.copy()
    choices[column] = (choices[column] + rng.integers(1, RACK.sizes[column])) % RACK.sizes[column]
    return replace(patch, choices=choices)


def ceilings(rows: pd.DataFrame, test: Sequence[ScoreTarget]) -> dict[str, float]:
    """From the measured `other_jobs` and `detection.without_jobs`, keys beside those they bound.

    full.chain.pair_order_present_ceiling, full.chain.pair_order_ceiling (that, where both effects
    are heard at all), full.chain.exact_audible_ceiling, full.wavetable_accuracy_ceiling,
    full.filter_accuracy_ceiling, and the clips each rests on. What was not measured has no key.
    """
    found: dict[str, float] = {}
    keys = {ORDER: "chain.pair_order_present"} | {
        name: f"{name}_accuracy" for name in NAMED_CHOICES
    }
    for name, key in keys.items():
        heard = rows.loc[rows["row"] == OTHER + name, "mss_db"].to_numpy() >= AUDIBLE_DB
        if len(heard):
            found[f"full.{key}_ceiling"] = float(0.5 + 0.5 * heard.mean())
            found[f"full.{key}_ceiling_n"] = float(len(heard))
    judged = [target for target in test if target.baseline and target.phase == "full"]
    if (
        rows.loc[rows["id"].isin({target.id for target in judged}), "row"]
        .str.startswith(WITHOUT)
        .any()
    ):
        heard_of = [set(np.array(RACK.effect_names)[row]) for row in audible(rows, judged)]
        true = [target.patch.effects for target in judged]
        found["full.chain.exact_audible_ceiling"] = float(
            np.mean([set(c) <= h for c, h in zip(true, heard_of, strict=True)])
        )
        found["full.chain.exact_audible_ceiling_n"] = float(len(judged))
        pairs = [
            set(pair) <= h
            for c, h in zip(true, heard_of, strict=True)
            for pair in chains.audible_pairs(c)
        ]
        if pairs and "full.chain.pair_order_present_ceiling" in found:
            found["full.chain.pair_order_ceiling"] = (
                float(np.mean(pairs)) * found["full.chain.pair_order_present_ceiling"]
            )
            found["full.chain.pair_order_ceiling_n"] = float(len(judged))
    return found


def beside(rows: pd.DataFrame, test: Sequence[ScoreTarget], train: Patches) -> dict[str, float]:
    """`ceilings`, and full.chain.pair_order_present_majority.

    `usual_order` of the full-chain targets.
    """
    usual = usual_order(train, [target.patch.effects for target in test if target.phase == "full"])
    known = {"full.chain.pair_order_present_majority": usual} if np.isfinite(usual) else {}
    return ceilings(rows, test) | known


def usual_order(train: Patches, true: Sequence[metrics_patch.Chain]) -> float:
    """Share of the true chains' audible pairs that are right when each pair is answered in its
    commoner training order; nan when there is no such pair.
    """
    seen = Counter(pair for patch in train for pair in chains.audible_pairs(patch.effects))
    pairs = [pair for chain in true for pair in chains.audible_pairs(chain)]
    return float(np.mean([seen[a, b] >= seen[b, a] for a, b in pairs])) if pairs else float("nan")
