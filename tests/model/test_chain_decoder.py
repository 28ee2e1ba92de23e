from __future__ import annotations

from itertools import permutations

import pytest
import torch

from unmixer_core.model.chain_decoder import ChainDecoder
from unmixer_core.model.targets import N_EFFECTS, slots_of

WIDTH = 12


def decoder(manifold: str = "poincare", seed: int = 1) -> ChainDecoder:
    torch.manual_seed(seed)
    made = ChainDecoder(WIDTH, manifold=manifold, dim=4, curvature=0.5, radius=1.0, hidden=8)
    with torch.no_grad():
        made.normals.mul_(4.0)  # sharper than at initialisation
    return made


def inputs(b: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(4)
    return torch.randn(b, WIDTH, generator=g), torch.randn(b, N_EFFECTS, generator=g)


def all_chains() -> torch.Tensor:
    rows = [c for n in range(N_EFFECTS + 1) for c in permutations(range(N_EFFECTS), n)]
    return torch.tensor([[*c, *[-1] * (N_EFFECTS - len(c))] for c in rows])


@pytest.mark.parametrize("manifold", ["poincare", "euclidean"])
def test_probabilities_of_all_chains_sum_to_one_and_beam_equals_exhaustive(manifold: str) -> None:
    made, (vector, present) = decoder(manifold), inputs(1)
    chains = all_chains()  # 109,601 of them
    with torch.no_grad():
        log_probs = torch.cat(
            [
                made.log_prob(vector.expand(len(c), -1), present.expand(len(c), -1), c)
                for c in chains.split(20_000)
            ]
        )
        found, scores = made.beam(vector, present, 400)
    assert log_probs.double().exp().sum().item() == pytest.approx(1.0, abs=1e-4)
    best = log_probs.topk(5)
    assert torch.equal(found[0, :5], chains[best.indices])
    torch.testing.assert_close(scores[0, :5], best.values, rtol=1e-4, atol=1e-4)


def test_beam_scores_are_the_chains_log_probabilities_best_first_without_repeats() -> None:
    made, (vector, present) = decoder(), inputs()
    chains, scores = made.beam(vector, present, 12)
    for i in range(len(vector)):
        expected = made.log_prob(
            vector[i : i + 1].expand(12, -1), present[i : i + 1].expand(12, -1), chains[i]
        )
        torch.testing.assert_close(scores[i], expected.detach(), rtol=1e-4, atol=1e-4)
        assert (scores[i].diff() <= 0).all()
        assert len({tuple(c) for c in chains[i].tolist()}) == 12


def test_beam_of_one_clip_does_not_depend_on_the_batch() -> None:
    made, (vector, present) = decoder(), inputs()
    apart = [made.beam(v[None], p[None], 6)[0] for v, p in zip(vector, present, strict=True)]
    assert torch.equal(made.beam(vector, present, 6)[0], torch.cat(apart))


def test_used_effects_cannot_come_again_and_nothing_follows_the_end() -> None:
    made, (vector, present) = decoder(), inputs(64)
    slots = (
        made.sample(vector, present, 1.0, torch.Generator().manual_seed(5))
        .detach()
        .round(decimals=4)
    )
    assert (slots.sum(-1) == 1).all() and (slots[..., :N_EFFECTS].sum(1) <= 1).all()
    assert (slots[:, 1:, N_EFFECTS] >= slots[:, :-1, N_EFFECTS]).all()
    log_probs = made(vector[:1], present[:1], torch.tensor([[3, 1, -1, -1, -1, -1, -1, -1]]))
    assert (log_probs[0, 1, 3] < -100) and (log_probs[0, 2, [1, 3]] < -100).all()
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(1, 8))


def test_samples_follow_the_probabilities() -> None:
    made, (vector, present) = decoder(), inputs(1)
    n = 6000
    with torch.no_grad():
        slots = made.sample(
            vector.expand(n, -1), present.expand(n, -1), 1.0, torch.Generator().manual_seed(6)
        )
        chains, scores = made.beam(vector, present, 3)
    for chain, score in zip(chains[0], scores[0], strict=True):
        same = (slots.argmax(-1) == slots_of(chain).argmax(-1)).all(-1).float().mean()
        assert same.item() == pytest.approx(score.exp().item(), abs=0.03)


def test_order_is_seen_through_the_walk() -> None:
    made, (vector, present) = decoder(), inputs(1)
    one, two = (
        torch.tensor([[0, 1, 2, -1, -1, -1, -1, -1]]),
        torch.tensor([[1, 0, 2, -1, -1, -1, -1, -1]]),
    )
    assert (made(vector, present, one)[:, 2] - made(vector, present, two)[:, 2]).abs().max() > 1e-4


def test_both_geometries_have_the_same_widths() -> None:
    shapes = [
        [(n, tuple(p.shape)) for n, p in decoder(m).named_parameters()]
        for m in ("poincare", "euclidean")
    ]
    assert shapes[0] == shapes[1]
