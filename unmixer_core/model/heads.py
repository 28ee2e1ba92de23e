"""What is read off the encoder's vector: classes first, then knobs given classes and chain.

`Classifier` gives each choice, each effect's presence and each modulation amount's use; `KnobHead`
gives one device's mixture density. A knob head sees which effects stand before and after its
device, since a drive in front of a filter leaves other traces than one behind it. Shapes: b clips,
C choices, A amounts, n knobs of a device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from unmixer_core.model.mixture import Mixture
from unmixer_core.model.noise import Dropout
from unmixer_core.model.targets import AMOUNTS, N_EFFECTS
from unmixer_core.schema.rack import RACK

#: Means stay within this of the middle, in logits: just beyond a knob's stops.
LOGIT_RANGE = 5.4
#: What the logits of the atoms at a knob's stops begin with, beside 0 for between them: 2 % each.
RARELY = -4.0


@dataclass(frozen=True)
class Classes:
    """Logits: one [b, size] a choice; present [b, 8]; moving [b, A]."""

    choices: list[Float[Tensor, "batch _items"]]
    present: Float[Tensor, "batch effects"]
    moving: Float[Tensor, "batch amounts"]


class Classifier(nn.Module):
    """One hidden layer for the synth's and effects' choices, one for which effects there are."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.widths = [*RACK.sizes, len(AMOUNTS)]
        self.choices = _perceptron(width, hidden, sum(self.widths), dropout)
        self.present = _perceptron(width, hidden, N_EFFECTS, dropout)

    def forward(self, vector: Float[Tensor, "batch width"]) -> Classes:
        """Logits of all classes from the encoder's vector."""
        *choices, moving = self.choices(vector).split(self.widths, dim=-1)
        return Classes(choices, self.present(vector), moving)


def _perceptron(width: int, hidden: int, out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden), nn.ReLU(), Dropout(dropout), nn.Linear(hidden, out)
    )


@dataclass(frozen=True)
class Context:
    """What knobs are conditioned on, hard or soft.

    One weight tensor [b, size] a choice, slots [b, 8, 9] (END last), moving [b, A].
    """

    choices: list[Float[Tensor, "batch _items"]]
    slots: Float[Tensor, "batch slots codes"]
    moving: Float[Tensor, "batch amounts"]

    def features(self) -> Float[Tensor, "batch context"]:
        """[b, classes + A + 8 + 64]: classes, moving amounts, presence, and for each effect
        which others come before.
        """
        effects = self.slots[..., :N_EFFECTS]
        earlier = effects.cumsum(1) - effects
        before = (earlier.mT @ effects).flatten(1)  # b, 8 * 8: weight of "row stands before column"
        return torch.cat([*self.choices, self.moving, effects.sum(1), before], dim=-1)

    @staticmethod
    def width() -> int:
        """The size of `features`."""
        return sum(RACK.sizes) + len(AMOUNTS) + N_EFFECTS + N_EFFECTS**2


class KnobHead(nn.Module):
    """The mixture density of one device's n knobs given the sound and the context."""

    def __init__(
        self,
        embedding: int,
        n: int,
        *,
        hidden: int,
        components: int,
        rank: int,
        sigma_floor: float,
        stops: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.n, self.components, self.rank, self.sigma_floor = n, components, rank, sigma_floor
        self.stops = 2 if stops else 0
        self.sound = nn.Linear(embedding, hidden)
        self.context = nn.Linear(Context.width(), hidden)
        self.hidden = nn.Sequential(
            nn.ReLU(), Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.out = nn.Linear(hidden, components * (1 + n * (2 + rank + self.stops)))
        with torch.no_grad():
            self.out.weight.mul_(0.5)
            spread = torch.linspace(-1.5, 1.5, components) if components > 1 else torch.zeros(1)
            self.out.bias.zero_()
            self.out.bias[components : components * (1 + n)] = spread.repeat_interleave(n)

    def forward(
        self, vector: Float[Tensor, "batch embedding"], context: Float[Tensor, "batch context"]
    ) -> Mixture:
        """The distribution of the device's knobs for each clip."""
        k, n, r = self.components, self.n, self.rank
        raw = self.out(self.hidden(self.sound(vector) + self.context(context)))
        weight, mean, scale, factor, stops = raw.split(
            [k, k * n, k * n, k * n * r, k * n * self.stops], dim=-1
        )
        mean = LOGIT_RANGE * torch.tanh(mean.unflatten(-1, (k, n)) / LOGIT_RANGE)
        return Mixture(
            weight,
            mean,
            self._floored(scale.unflatten(-1, (k, n)), mean),
            0.3 * factor.unflatten(-1, (k, n, r)),
            self._places(stops.unflatten(-1, (k, n, self.stops))) if self.stops else None,
        )

    @staticmethod
    def _places(
        stops: Float[Tensor, "batch components knobs 2"],
    ) -> Float[Tensor, "batch components knobs 3"]:
        """Logits of between, low and high [..., 3] from those of low and high."""
        return torch.nn.functional.pad(RARELY + stops, (1, 0))

    def _floored(
        self,
        raw: Float[Tensor, "batch components knobs"],
        mean: Float[Tensor, "batch components knobs"],
    ) -> Float[Tensor, "batch components knobs"]:
        """Standard deviations in logits that are never below `sigma_floor` in unit terms (d unit
        / d logit = u (1 - u)).
        """
        unit = torch.sigmoid(mean.detach())
        return torch.nn.functional.softplus(raw + 0.5) + self.sigma_floor / (unit * (1 - unit))


class KnobHeads(nn.Module):
    """One KnobHead a device, over the rack's list of knobs."""

    def __init__(self, embedding: int, **settings: float) -> None:
        super().__init__()
        columns = [
            np.flatnonzero(RACK.device_of_knob == device) for device in range(len(RACK.devices))
        ]
        self.columns = [torch.as_tensor(c) for c in columns]
        self.heads = nn.ModuleList(KnobHead(embedding, len(c), **settings) for c in columns)  # type: ignore[arg-type]

    def forward(self, vector: Float[Tensor, "batch embedding"], context: Context) -> list[Mixture]:
        """One mixture a device, Wavetable first.

        Their knobs are RACK.knobs[self.columns[device]].
        """
        features = context.features()
        return [head(vector, features) for head in self.heads]

    def scatter(self, parts: list[Float[Tensor, "*batch _knobs"]]) -> Float[Tensor, "*batch knobs"]:
        """One [..., n] a device -> [..., K] in the rack's order."""
        order = torch.cat(self.columns).argsort()
        return torch.cat(parts, dim=-1)[..., order.to(parts[0].device)]
