"""Patches as the tensors that training and inference work on, with the masks of what can be
heard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unmixer_core.schema import chain as chains
from unmixer_core.schema.patch import Patch, Patches
from unmixer_core.schema.rack import RACK

N_EFFECTS = len(RACK.effects)
#: A modulation amount within this of zero (unit 0.5) counts as unused: the atom of its
#: distribution.
STILL = 0.02
#: Knobs that have an atom: the modulation amounts, which stand still in about half of all patches.
AMOUNTS = tuple(i for i, ref in enumerate(RACK.knobs) if ref.knob.bipolar_amount)


@dataclass(frozen=True)
class Targets:
    """b clips: knobs [b, K] unit, choices [b, C], chain [b, 8] effect ids (-1 = none), note [b],
    gate_s [b]; what can be heard: knob_mask [b, K], choice_mask [b, C]; moving [b, A]: which
    modulation amounts are not at their atom.
    """

    knobs: Float[Tensor, "batch knobs"]
    choices: Int[Tensor, "batch choices"]
    chain: Int[Tensor, "batch slots"]
    note: Float[Tensor, "batch"]
    gate_s: Float[Tensor, "batch"]
    knob_mask: Bool[Tensor, "batch knobs"]
    choice_mask: Bool[Tensor, "batch choices"]
    moving: Bool[Tensor, "batch amounts"]

    @classmethod
    def of(cls, patches: Patches) -> Targets:
        """Chains are replaced by the canonical order that sounds the same, so that one sound has
        one answer.
        """
        chain = canonical_chains(patches.chain)
        knob_mask, choice_mask = RACK.active(patches.choices, chain, patches.knobs)
        amounts = patches.knobs[:, list(AMOUNTS)]
        return cls(
            torch.as_tensor(patches.knobs, dtype=torch.float32),
            torch.as_tensor(patches.choices, dtype=torch.int64),
            torch.as_tensor(chain, dtype=torch.int64),
            torch.as_tensor(patches.note, dtype=torch.float32),
            torch.as_tensor(patches.gate_s, dtype=torch.float32),
            torch.as_tensor(knob_mask),
            torch.as_tensor(choice_mask),
            torch.as_tensor(np.abs(amounts - 0.5) > STILL),
        )

    @classmethod
    def of_list(cls, patches: Sequence[Patch]) -> Targets:
        """The same for single patches."""
        return cls.of(Patches.stack(patches, "full", "train"))

    def __len__(self) -> int:
        return len(self.knobs)

    def __getitem__(self, rows: Int[Tensor, "rows"] | slice) -> Targets:
        """Those clips, in the order of `rows`."""
        return Targets(*(getattr(self, f.name)[rows] for f in fields(self)))

    def to(self, device: torch.device | str) -> Targets:
        """The same on a device."""
        return Targets(*(getattr(self, f.name).to(device) for f in fields(self)))

    @property
    def slots(self) -> Float[Tensor, "batch slots codes"]:
        """The chain as slot weights [b, 8, 9], the last class END."""
        return slots_of(self.chain)

    @property
    def present(self) -> Float[Tensor, "batch effects"]:
        """Which effects occur, float [b, 8]."""
        return self.slots[..., :N_EFFECTS].sum(1)


def slots_of(chain: Int[Tensor, "*batch slots"]) -> Float[Tensor, "*batch slots codes"]:
    """Effect ids [..., 8], -1 = none -> one-hot float [..., 8, 9], END last."""
    return torch.nn.functional.one_hot(
        torch.where(chain < 0, N_EFFECTS, chain).long(), N_EFFECTS + 1
    ).float()


def one_hot_choices(
    choices: Int[Tensor, "*batch choices"],
) -> list[Float[Tensor, "*batch _items"]]:
    """Item indices [..., C] -> one float one-hot [..., size] a choice."""
    return [
        torch.nn.functional.one_hot(choices[..., i], size).float()
        for i, size in enumerate(RACK.sizes)
    ]


def canonical_chains(chain: np.ndarray) -> np.ndarray:
    """Effect ids [n, 8] -> the representative of all orders that sound the same."""
    rows = [chains.encode(chains.canonical(chains.decode(row))) for row in np.atleast_2d(chain)]
    return np.array(rows, dtype=np.int64).reshape(-1, chains.MAX_EFFECTS)
