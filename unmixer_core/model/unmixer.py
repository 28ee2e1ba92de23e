"""The inverse map F: one encoder and three heads, from a clip's features, note and gate to a
distribution over patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Real, Shaped
from torch import Tensor, nn

from unmixer_core import config
from unmixer_core.features.frames import FeatureSpec
from unmixer_core.model.chain_decoder import ChainDecoder
from unmixer_core.model.encoder import Encoder
from unmixer_core.model.heads import Classes, Classifier, Context, KnobHeads
from unmixer_core.model.mixture import Mixture, gumbel_one_hot, to_unit
from unmixer_core.model.targets import AMOUNTS, Targets, one_hot_choices


@dataclass(frozen=True)
class Belief:
    """The encoder's result for b clips: the vector [b, embedding] that chain and knobs start
    from, and the classes' logits.
    """

    vector: Float[Tensor, "batch embedding"]
    classes: Classes

    def __getitem__(self, rows: Int[Tensor, "rows"] | slice) -> Belief:
        classes = self.classes
        return Belief(
            self.vector[rows],
            Classes(
                [x[rows] for x in classes.choices], classes.present[rows], classes.moving[rows]
            ),
        )

    def repeat(self, times: int) -> Belief:
        """Each clip `times` times in a row."""
        return self[
            torch.arange(len(self.vector), device=self.vector.device).repeat_interleave(times)
        ]


@dataclass(frozen=True)
class Draw:
    """A reparameterised sample of patches.

    Knobs [b, K] unit, and the discrete parts as straight-through one-hots.
    """

    knobs: Float[Tensor, "batch knobs"]
    context: Context


class Unmixer(nn.Module):
    """See the module.

    The parameters' first name is the part they belong to: encoder, classifier, neck, chain, knobs.
    """

    def __init__(self, spec: FeatureSpec, settings: config.Model) -> None:
        super().__init__()
        s = settings
        self.spec = spec
        self.encoder = Encoder(spec, width=s.width, harmonics=s.harmonics, dropout=s.dropout)
        self.classifier = Classifier(self.encoder.out_width, s.knob_hidden, s.dropout)
        self.neck = nn.Sequential(
            nn.Linear(self.encoder.out_width, s.embedding), nn.BatchNorm1d(s.embedding), nn.ReLU()
        )
        self.chain = ChainDecoder(
            s.embedding,
            manifold=s.manifold,
            dim=s.ball_dim,
            curvature=s.curvature,
            radius=s.radius,
            hidden=s.chain_hidden,
        )
        self.knobs = KnobHeads(
            s.embedding,
            hidden=s.knob_hidden,
            components=s.components,
            rank=s.rank,
            sigma_floor=s.sigma_floor,
            stops=s.stops,
            dropout=s.dropout,
        )

    def forward(
        self,
        features: Float[Tensor, "batch 2 mels frames"],
        note: Real[Tensor, "batch"],
        gate_s: Real[Tensor, "batch"],
    ) -> Belief:
        """features [b, 2, mels, frames], note [b] (MIDI), gate_s [b] seconds."""
        wide = self.encoder(features.contiguous(memory_format=torch.channels_last), note, gate_s)
        return Belief(self.neck(wide), self.classifier(wide))

    def chain_log_probs(
        self, belief: Belief, chain: Int[Tensor, "batch slots"]
    ) -> Float[Tensor, "batch slots codes"]:
        """Teacher-forced log-probabilities [b, 8, 9]."""
        return self.chain(belief.vector, belief.classes.present, chain)

    def mixtures(self, belief: Belief, context: Context) -> list[Mixture]:
        """The knobs' distribution given classes and chain, one mixture a device."""
        return self.knobs(belief.vector, context)

    def draw(
        self,
        belief: Belief,
        temperature: float,
        generator: torch.Generator | None = None,
        *,
        through_choices: bool = True,
        through_chain: bool = True,
    ) -> Draw:
        """A sample of whole patches, differentiable in every part (or only in the knobs, where a
        switch is off).
        """
        choices = [
            gumbel_one_hot(logits, temperature, generator) for logits in belief.classes.choices
        ]
        slots = self.chain.sample(belief.vector, belief.classes.present, temperature, generator)
        moving = straight_through_bernoulli(belief.classes.moving, temperature, generator)
        if not through_choices:
            choices, moving = [c.detach() for c in choices], moving.detach()
        context = Context(choices, slots if through_chain else slots.detach(), moving)
        parts = [
            mixture.sample(generator, temperature=temperature)
            for mixture in self.mixtures(belief, context)
        ]
        return Draw(self.stilled(to_unit(self.knobs.scatter(parts)), moving), context)

    @staticmethod
    def stilled(
        knobs: Float[Tensor, "*batch knobs"], moving: Shaped[Tensor, "*batch amounts"]
    ) -> Float[Tensor, "*batch knobs"]:
        """Modulation amounts that do not move lie at their atom, zero (unit 0.5).

        knobs [..., K], moving [..., A].
        """
        columns = torch.tensor(AMOUNTS, device=knobs.device)
        amounts = 0.5 + moving * (knobs[..., columns] - 0.5)
        return knobs.index_copy(-1, columns, amounts)


def context_of(targets: Targets) -> Context:
    """The true classes and chain as what the knobs are conditioned on."""
    return Context(one_hot_choices(targets.choices), targets.slots, targets.moving.float())


def straight_through_bernoulli(
    logits: Float[Tensor, "*shape"], temperature: float, generator: torch.Generator | None = None
) -> Float[Tensor, "*shape"]:
    """0/1 samples [...] whose gradient is that of the tempered binary Gumbel-Softmax."""
    pair = torch.stack([logits, torch.zeros_like(logits)], dim=-1)
    return gumbel_one_hot(pair, temperature, generator)[..., 0]
