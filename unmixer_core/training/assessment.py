"""How good a model is on validation clips while it is trained, and what a phase gained and
forgot.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from unmixer_core import config
from unmixer_core.distributed import ALONE, Ranks
from unmixer_core.model.targets import N_EFFECTS
from unmixer_core.model.unmixer import Unmixer
from unmixer_core.schema.rack import RACK
from unmixer_core.training import losses
from unmixer_core.training.curriculum import PhaseData, batches_of

VALID_BATCH = 64
REPORTED_CHOICES = {
    "wavetable_accuracy": "wavetable.osc_1_wavetable",
    "filter_accuracy": "wavetable.filter_1_type",
}


def assess_all(
    model: Unmixer,
    data: PhaseData,
    settings: config.Loss,
    device: torch.device | str,
    ranks: Ranks = ALONE,
) -> dict[str, dict[str, float]]:
    """`assess` on the validation clips of this phase and every earlier one."""
    return {
        name: assess(model, data, rows, settings, device, ranks)
        for name, rows in data.valid.items()
    }


@torch.no_grad()
def assess(
    model: Unmixer,
    data: PhaseData,
    rows: NDArray[np.int64],
    settings: config.Loss,
    device: torch.device | str = "cpu",
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Loss and terms, accuracy of two choices where audible, macro-F1 of the effect set and exact
    chains (greedy).

    Ranks share the batches; all of them get the same numbers, which are those of one process.
    """
    model.eval()
    batches = batches_of(rows, VALID_BATCH)
    judged = ranks.together(
        [
            _judge(model, data, batch, settings, device)
            for batch in batches[ranks.rows(len(batches))]
        ]
    )
    sums: dict[str, float] = {}
    for batch, (found, _) in zip(batches, judged, strict=True):
        sums = {
            name: sums.get(name, 0.0) + value * len(batch) / len(rows)
            for name, value in found.items()
        }
    kept = {name: torch.cat([answers[name] for _, answers in judged]) for name in judged[0][1]}
    accuracy = {name: kept[name].float().mean().item() for name in REPORTED_CHOICES}
    f1 = macro_f1(kept["guessed"], kept["true"])
    return sums | accuracy | {"effects_f1": f1, "chain_exact": kept["exact"].float().mean().item()}


def _judge(
    model: Unmixer,
    data: PhaseData,
    batch: NDArray[np.int64],
    settings: config.Loss,
    device: torch.device | str,
) -> tuple[dict[str, float], dict[str, Bool[Tensor, "..."]]]:
    """One batch: its mean losses, and its answers, right or wrong, clip by clip."""
    targets = data.targets(batch).to(device)
    belief = model(data.features.batch(batch).to(device), targets.note, targets.gate_s)
    terms = losses.parametric(model, belief, targets, settings)
    chain = model.chain.beam(belief.vector, belief.classes.present, 4)[0][:, 0]
    answers = {
        "guessed": (chain[..., None] == torch.arange(N_EFFECTS, device=chain.device)).any(1),
        "true": targets.present.bool(),
        "exact": (chain == targets.chain).all(-1),
    }
    for name, key in REPORTED_CHOICES.items():
        column = RACK.choice_index[key]
        right = belief.classes.choices[column].argmax(-1) == targets.choices[:, column]
        answers[name] = right[targets.choice_mask[:, column]]
    return terms.floats() | {"loss": float(terms.total(settings))}, {
        n: x.cpu() for n, x in answers.items()
    }


def macro_f1(guessed: Bool[Tensor, "clips classes"], true: Bool[Tensor, "clips classes"]) -> float:
    """Mean over the classes that occur of F1: bool [n, classes] each.

    1 when none occurs and none is guessed.
    """
    both, either = (guessed & true).sum(0).float(), guessed.sum(0) + true.sum(0)
    occurs = either > 0
    return float((2 * both[occurs] / either[occurs]).mean()) if occurs.any() else 1.0


def report(
    before: Mapping[str, Mapping[str, float]], after: Mapping[str, Mapping[str, float]], phase: str
) -> dict[str, float]:
    """`<phase>.<measure>` after training, `gained` = fall of this phase's loss,
    `forgotten.<earlier>` = rise of theirs.
    """
    found = {
        f"{name}.{measure}": value
        for name, values in after.items()
        for measure, value in values.items()
    }
    found["gained"] = before[phase]["loss"] - after[phase]["loss"]
    earlier = [name for name in after if name != phase]
    return found | {
        f"forgotten.{name}": after[name]["loss"] - before[name]["loss"] for name in earlier
    }
