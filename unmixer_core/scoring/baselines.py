"""What the network has to beat: chance, the mean, retrieval, and black-box search on the host.

Retrieval and search are the bar, not published networks (methods §5). Every baseline knows the
target's note and gate, as the model does. `Retrieval` is exhaustive: it finds the training render
with the smallest MSS, not an approximate one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from unmixer_core.schema import chain as chains
from unmixer_core.schema.patch import Patch, Patches
from unmixer_core.schema.rack import RACK

#: MSS counted for a patch that the host could not render: the floor of the scale.
UNHEARD_DB = 80.0


def at_note(patch: Patch, note: int, gate_s: float) -> Patch:
    """The same sound played as another note."""
    return replace(patch, note=int(note), gate_s=float(gate_s))


def random_patches(
    train: Patches, phases: Sequence[str], targets: Sequence[Patch], seed: int
) -> list[Patch]:
    """For each target a random training patch of its phase (the prior, after loudness redraws)
    at the target's note and gate.
    """
    rng = np.random.default_rng(seed)
    drawn = []
    for phase, target in zip(phases, targets, strict=True):
        pool = train.where(phase=phase)
        pick = int(rng.choice(pool if len(pool) else np.arange(len(train))))
        drawn.append(at_note(train[pick], target.note, target.gate_s))
    return drawn


@dataclass(frozen=True)
class Majority:
    """What a model that hears nothing would answer.

    Mean of each knob where it is audible, the most frequent class and chain.
    """

    knobs: np.ndarray  # [K] unit
    choices: np.ndarray  # [C]
    chain: np.ndarray  # [8]

    @classmethod
    def of(cls, train: Patches) -> Majority:
        """Learned from the training patches.

        The most frequent chain is counted among audible classes.
        """
        knob_mask, choice_mask = RACK.active(train.choices, train.chain)
        heard = knob_mask.sum(axis=0)
        mean = (train.knobs * knob_mask).sum(axis=0) / np.maximum(heard, 1)
        knobs = np.where(heard > 0, mean, RACK.knob_defaults).astype(np.float32)
        choices = np.array(
            [
                _most_frequent(train.choices[choice_mask[:, c], c], RACK.choice_defaults[c])
                for c in range(RACK.n_choices)
            ]
        )
        names = Counter(chains.canonical(chains.decode(codes)) for codes in train.chain)
        return cls(
            knobs,
            choices.astype(np.int64),
            chains.encode(names.most_common(1)[0][0] if names else ()),
        )

    def patch(self, note: int, gate_s: float) -> Patch:
        """The mean patch, played as this note."""
        return Patch(
            self.knobs.copy(), self.choices.copy(), self.chain.copy(), int(note), float(gate_s)
        )


def _most_frequent(values: np.ndarray, default: int) -> int:
    return int(np.bincount(values).argmax()) if len(values) else int(default)
