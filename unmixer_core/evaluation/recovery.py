"""How much of the true patches was recovered.

Knobs, classes, chains and their calibration, next to what guessing reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from unmixer_core.metrics import patch as metrics_patch
from unmixer_core.metrics import statistics
from unmixer_core.schema import chain as chains
from unmixer_core.schema.patch import Patch, Patches
from unmixer_core.schema.rack import RACK
from unmixer_core.scoring.baselines import Majority

CHAIN_MEASURES = (
    "exact",
    "exact_audible",
    "levenshtein",
    "set_f1",
    "pair_order",
    "pair_order_present",
    "precision",
    "recall",
    "f1",
)
NAMED_CHOICES = {"wavetable": "wavetable.osc_1_wavetable", "filter": "wavetable.filter_1_type"}
NONE = "(none)"


@dataclass(frozen=True)
class Recovered:
    """True and predicted patches of the same n clips, the majority guess, and the PIT of every
    knob [n, K] (nan: unknown).
    """

    true: Patches
    predicted: Sequence[Patch]
    majority: Majority
    pit: np.ndarray

    @property
    def knobs(self) -> np.ndarray:
        """Predicted unit values [n, K]."""
        return np.stack([patch.knobs for patch in self.predicted])

    @property
    def choices(self) -> np.ndarray:
        """Predicted classes [n, C]."""
        return np.stack([patch.choices for patch in self.predicted])

    @property
    def active(self) -> tuple[np.ndarray, np.ndarray]:
        """Which knobs [n, K] and choices [n, C] can be heard in the true patch."""
        return RACK.active(self.true.choices, self.true.chain, self.true.knobs)

    @property
    def chains(self) -> tuple[list[metrics_patch.Chain], list[metrics_patch.Chain]]:
        """Predicted and true effect names in order."""
        return [patch.effects for patch in self.predicted], [patch.effects for patch in self.true]

    def select(self, rows: np.ndarray) -> Recovered:
        """The same of some clips."""
        return Recovered(
            self.true.select(rows),
            [self.predicted[int(i)] for i in rows],
            self.majority,
            self.pit[rows],
        )


def flat(found: Recovered, levels: Sequence[float]) -> dict[str, float]:
    """Numbers of one set of clips.

    knob_mae, class_accuracy and chain.* with their `_majority` twins, chain.ceiling,
    coverage_<percent> of central predictive intervals over active knobs.
    """
    knob_mask, choice_mask = found.active
    n = len(found.true)
    guess_knobs = np.broadcast_to(found.majority.knobs, (n, RACK.n_knobs))
    guess_choices = np.broadcast_to(found.majority.choices, (n, RACK.n_choices))
    result = {
        "knob_mae": metrics_patch.knob_mae(found.knobs, found.true.knobs, knob_mask),
        "knob_mae_majority": metrics_patch.knob_mae(guess_knobs, found.true.knobs, knob_mask),
        "class_accuracy": metrics_patch.class_accuracy(
            found.choices, found.true.choices, choice_mask
        ),
        "class_accuracy_majority": metrics_patch.class_accuracy(
            guess_choices, found.true.choices, choice_mask
        ),
    }
    result |= _named_choices(found)
    known = knob_mask & np.isfinite(found.pit)
    covered = statistics.coverage(np.nan_to_num(found.pit, nan=0.5), known, levels)
    result |= {f"coverage_{round(100 * level)}": share for level, share in covered.items()}
    table = chain_table(found)
    result |= {f"chain.{name}": float(value) for name, value in table["prediction"].items()}
    result |= {f"chain.{name}_majority": float(value) for name, value in table["majority"].items()}
    result["chain.ceiling"] = float(table["ceiling"]["exact"])
    return result


def _named_choices(found: Recovered) -> dict[str, float]:
    """Accuracy of the choices that people ask for first, where they can be heard, and of the
    majority class.
    """
    table = choice_table(found)
    return {
        f"{name}_accuracy{ending}": float(table[column][key])
        for name, key in NAMED_CHOICES.items()
        if key in table.index
        for ending, column in (("", "accuracy"), ("_majority", "majority"))
    }


def by_phase(found: Recovered, levels: Sequence[float]) -> dict[str, float]:
    """`flat` of each phase, keys prefixed with its name.

    What cannot be measured there (order of no effects) is left out.
    """
    result: dict[str, float] = {}
    for phase in dict.fromkeys(found.true.phase.tolist()):
        part = found.select(np.flatnonzero(found.true.phase == phase))
        result |= {
            f"{phase}.{key}": value
            for key, value in flat(part, levels).items()
            if np.isfinite(value)
        }
    return result


def chain_table(found: Recovered) -> pd.DataFrame:
    """Chain measures (index) of the prediction and of the majority chain, and the ceiling of
    those that have one.
    """
    predicted, true = found.chains
    guess = chains.decode(found.majority.chain)
    scores, guessed = (
        metrics_patch.chain_scores(predicted, true),
        metrics_patch.chain_scores([guess] * len(true), true),
    )
    ceiling = dict.fromkeys(CHAIN_MEASURES, 1.0) | {"exact": scores["ceiling"], "levenshtein": 0.0}
    columns = {"prediction": scores, "majority": guessed, "ceiling": ceiling}
    return pd.DataFrame(
        {name: [values[m] for m in CHAIN_MEASURES] for name, values in columns.items()},
        index=list(CHAIN_MEASURES),
    )


def knob_table(found: Recovered) -> pd.DataFrame:
    """Per knob id: MAE, that of the mean patch, number of clips it can be heard in.

    Knobs never heard are left out.
    """
    mask, _ = found.active
    guess = np.broadcast_to(found.majority.knobs, found.knobs.shape)
    table = pd.DataFrame(
        {
            "mae": metrics_patch.mae_by_knob(found.knobs, found.true.knobs, mask),
            "mean_patch": metrics_patch.mae_by_knob(guess, found.true.knobs, mask),
            "n": mask.sum(axis=0),
        },
        index=[ref.id for ref in RACK.knobs],
    )
    return table[table["n"] > 0]


def choice_table(found: Recovered) -> pd.DataFrame:
    """Per choice id: accuracy, that of the majority class, number of clips it can be heard in.

    Choices never heard are left out.
    """
    _, mask = found.active
    hit, guessed = found.choices == found.true.choices, found.majority.choices == found.true.choices
    lines = {
        ref.id: {
            "accuracy": hit[mask[:, c], c].mean(),
            "majority": guessed[mask[:, c], c].mean(),
            "n": int(mask[:, c].sum()),
        }
        for c, ref in enumerate(RACK.choices)
        if mask[:, c].any()
    }
    return pd.DataFrame.from_dict(lines, orient="index", columns=["accuracy", "majority", "n"])


def slot_confusion(found: Recovered) -> tuple[np.ndarray, list[str]]:
    """Counts [9, 9] of true against predicted effect at the same slot, slots empty in both left
    out; the last is "(none)".
    """
    labels = [*RACK.effect_names, NONE]
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for patch, codes in zip(found.predicted, found.true.chain, strict=True):
        for guess, truth in zip(patch.chain, codes, strict=True):
            if guess != chains.END or truth != chains.END:
                counts[int(truth), int(guess)] += 1  # END is -1: the last row and column
    return counts, labels


def active_pit(found: Recovered) -> np.ndarray:
    """PIT values of the knobs that can be heard, flat."""
    values = found.pit[found.active[0]]
    return values[np.isfinite(values)]
