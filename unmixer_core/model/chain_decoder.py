"""The hyperbolic sequence decoder.

Which effects, in which order, as a tree walk in the Poincare ball.

The encoder's vector becomes a point z of the ball (clipped to a radius, then the exponential map);
each effect is a learned point of the same ball. A gated recurrent unit walks the tangent space at
the origin: it reads the tangent vectors of the effects chosen so far and of the place reached, and
moves z to the next place by Mobius addition, whose order matters as an effect chain's does. Signed
distances to hyperplanes (geometry.logits) are the logits of the next effect; used effects are
masked, a ninth class ends the chain. After Wada, Nakamura, Saruwatari, "Hyperbolic Embeddings for
Order-Aware Classification of Audio Effect Chains", DAFx 2025, who embed whole chains; the walk over
prefixes and `manifold: euclidean` (the same widths on flat space) are ours. Shapes: b clips, w
beams, d dimensions of the ball.
"""

from __future__ import annotations

from dataclasses import dataclass

import geoopt
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from unmixer_core.model import geometry
from unmixer_core.model.mixture import gumbel_one_hot
from unmixer_core.model.targets import N_EFFECTS, slots_of

CLASSES = N_EFFECTS + 1
END = N_EFFECTS
NEVER = -1e4


@dataclass(frozen=True)
class State:
    """A walk under way: hidden [b, hidden]; tangents of the last effect and of the place [b, d].

    Free [b, 8], 1 = unused.
    """

    hidden: Float[Tensor, "batch hidden"]
    last: Float[Tensor, "batch dim"]
    place: Float[Tensor, "batch dim"]
    free: Float[Tensor, "batch effects"]


class ChainDecoder(nn.Module):
    """See the module.

    `present` [b, 8] are the presence logits of the classifier, a prior that the walk corrects.
    """

    def __init__(
        self,
        embedding: int,
        *,
        manifold: str,
        dim: int,
        curvature: float,
        radius: float,
        hidden: int,
    ) -> None:
        super().__init__()
        self.space, self.radius, self.dim = geometry.space(manifold, curvature), radius, dim
        self.root = nn.Linear(embedding, dim)
        self.start = nn.Linear(embedding, hidden)
        self.cell = nn.GRUCell(2 * dim + 2 * N_EFFECTS, hidden)
        self.move = nn.Linear(hidden, dim)
        tokens = 0.3 * torch.nn.functional.normalize(
            torch.randn(N_EFFECTS, dim, dtype=torch.float64), dim=-1
        )
        self.effects = geoopt.ManifoldParameter(
            self.space.expmap0(tokens), manifold=self.space.manifold
        )
        self.normals = nn.Parameter(torch.randn(CLASSES, dim, dtype=torch.float64) * dim**-0.5)
        self.offsets = nn.Parameter(torch.zeros(CLASSES, dtype=torch.float64))
        self.trust = nn.Parameter(torch.tensor([1.0, 0.5]))

    def begin(
        self, vector: Float[Tensor, "batch embedding"]
    ) -> tuple[State, Float64[Tensor, "batch dim"]]:
        """The state before the first effect, and the clip's point z in the ball [b, d]."""
        tangent = geometry.clip_radius(self.root(vector).double(), self.radius)
        place = tangent.to(vector)
        free = vector.new_ones(len(vector), N_EFFECTS)
        hidden = torch.tanh(self.start(vector))
        return State(hidden, torch.zeros_like(place), place, free), self.space.expmap0(tangent)

    def advance(
        self,
        state: State,
        root: Float64[Tensor, "batch dim"],
        present: Float[Tensor, "batch effects"],
    ) -> tuple[State, Float[Tensor, "batch codes"]]:
        """One step of the walk: the new state and the log-probabilities [b, 9] of the next
        class.
        """
        waiting = state.free * torch.sigmoid(present)
        hidden = self.cell(
            torch.cat([state.last, state.place, state.free, waiting], dim=-1), state.hidden
        )
        point = self.space.add(
            root, self.space.expmap0(geometry.clip_radius(self.move(hidden).double(), self.radius))
        )
        walk = self.space.logits(point, self.normals, self.offsets).to(present)
        prior = self.trust[0] * present
        nothing_left = -self.trust[1] * torch.logsumexp(
            present + (1 - state.free) * NEVER, dim=-1, keepdim=True
        ).clamp_min(-8.0)
        masked = torch.cat(
            [walk[:, :END] + prior + (1 - state.free) * NEVER, walk[:, END:] + nothing_left], dim=-1
        )
        place = self.space.logmap0(point).to(present)
        return State(hidden, state.last, place, state.free), masked.log_softmax(-1)

    def choose(self, state: State, weights: Float[Tensor, "batch codes"]) -> State:
        """The state after an effect was chosen: weights [b, 9], hard or soft, END last."""
        effects = weights[:, :END]
        last = (effects.double() @ self.space.logmap0(self.effects)).to(weights)
        return State(state.hidden, last, state.place, state.free * (1 - effects))

    def forward(
        self,
        vector: Float[Tensor, "batch embedding"],
        present: Float[Tensor, "batch effects"],
        chain: Int[Tensor, "batch slots"],
    ) -> Float[Tensor, "batch slots codes"]:
        """Teacher-forced log-probabilities [b, 8, 9] of each slot of chain [b, 8] given the
        slots before it.
        """
        slots = slots_of(chain).to(vector)
        state, root = self.begin(vector)
        steps = []
        for slot in slots.unbind(1):
            state, log_probs = self.advance(state, root, present)
            steps.append(log_probs)
            state = self.choose(state, slot)
        return torch.stack(steps, dim=1)

    def log_prob(
        self,
        vector: Float[Tensor, "batch embedding"],
        present: Float[Tensor, "batch effects"],
        chain: Int[Tensor, "batch slots"],
    ) -> Float[Tensor, "batch"]:
        """Log-probability [b] of whole chains [b, 8]; a full chain of eight needs no END."""
        log_probs = self(vector, present, chain)
        each = (log_probs * slots_of(chain).to(log_probs)).sum(-1)
        ended = torch.cat(
            [torch.zeros_like(chain[:, :1], dtype=torch.bool), chain[:, :-1] < 0], dim=1
        )
        return each.masked_fill(ended, 0.0).sum(-1)

    def sample(
        self,
        vector: Float[Tensor, "batch embedding"],
        present: Float[Tensor, "batch effects"],
        temperature: float,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch slots codes"]:
        """Slot weights [b, 8, 9], one-hot in value, with the gradient of the straight-through
        Gumbel-Softmax.
        """
        state, root = self.begin(vector)
        going = vector.new_ones(len(vector), 1)
        stop = nn.functional.one_hot(torch.tensor(END, device=vector.device), CLASSES).to(vector)
        slots = []
        for _ in range(N_EFFECTS):
            state, log_probs = self.advance(state, root, present)
            drawn = gumbel_one_hot(log_probs, temperature, generator)
            drawn = going * drawn + (1 - going) * stop
            going = going * (1 - drawn[:, END:])
            slots.append(drawn)
            state = self.choose(state, drawn)
        return torch.stack(slots, dim=1)

    @torch.no_grad()
    def beam(
        self,
        vector: Float[Tensor, "batch embedding"],
        present: Float[Tensor, "batch effects"],
        width: int,
    ) -> tuple[Int[Tensor, "batch beams slots"], Float[Tensor, "batch beams"]]:
        """The most probable chains: effect ids [b, w, 8] (-1 = none) and log-probabilities [b, w],
        best first.

        Rows beyond the number of chains there are have log-probability -inf.
        """
        b = len(vector)
        first, root = self.begin(vector)
        state = State(
            *(_repeat(x, width) for x in (first.hidden, first.last, first.place, first.free))
        )
        root, present = _repeat(root, width), _repeat(present, width)
        score = vector.new_full((b, width), -torch.inf)
        score[:, 0] = 0.0
        ended = torch.zeros(b, width, dtype=torch.bool, device=vector.device)
        chain = torch.full((b, width, N_EFFECTS), -1, device=vector.device)
        for step in range(N_EFFECTS):
            state, log_probs = self.advance(state, root, present)
            log_probs = log_probs.unflatten(0, (b, width))
            # What has ended stays as it is: only END, at no cost.
            log_probs = torch.where(
                ended[..., None], torch.full_like(log_probs, -torch.inf), log_probs
            )
            log_probs[..., END] = torch.where(ended, 0.0, log_probs[..., END])
            used = torch.cat(
                [state.free.unflatten(0, (b, width)) < 0.5, torch.zeros_like(ended)[..., None]],
                dim=-1,
            )
            score, index = (
                (score[..., None] + log_probs.masked_fill(used, -torch.inf)).flatten(1).topk(width)
            )
            parent, picked = index // CLASSES, index % CLASSES
            chain = chain.gather(1, parent[..., None].expand(-1, -1, N_EFFECTS))
            chain[..., step] = torch.where(picked == END, -1, picked)
            ended = ended.gather(1, parent) | (picked == END)
            rows = (torch.arange(b, device=vector.device)[:, None] * width + parent).flatten()
            state = State(*(x[rows] for x in (state.hidden, state.last, state.place, state.free)))
            state = self.choose(state, nn.functional.one_hot(picked.flatten(), CLASSES).to(vector))
        return chain, score


def _repeat(x: Float[Tensor, "batch size"], times: int) -> Float[Tensor, "rows size"]:
    return x.repeat_interleave(times, dim=0)
