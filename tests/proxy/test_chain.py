"""The chain runner: order, grouping, weights."""

from __future__ import annotations

import torch

from unmixer_core.proxy.chain import run_chain

SCALE = torch.arange(1.0, 9.0)


def apply(effect: int, audio: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Effect e: x → (e + 1) x + 1: no two of them commute."""
    assert len(audio) == len(rows)
    return SCALE[effect] * audio + 1.0


def sound(n: int) -> torch.Tensor:
    return torch.randn(n, 2, 5, generator=torch.Generator().manual_seed(0))


CHAINS = torch.tensor(
    [
        [2, 0, 5, -1, -1, -1, -1, -1],
        [-1] * 8,
        [0, 2, -1, -1, -1, -1, -1, -1],
        [7, 6, 5, 4, 3, 2, 1, 0],
    ]
)


def by_hand(audio: torch.Tensor, codes: list[int]) -> torch.Tensor:
    for code in codes:
        audio = audio if code < 0 else SCALE[code] * audio + 1.0
    return audio


def test_every_row_goes_through_its_own_chain_in_order() -> None:
    audio = sound(4)
    expected = torch.stack(
        [by_hand(a, codes) for a, codes in zip(audio, CHAINS.tolist(), strict=True)]
    )
    assert torch.equal(run_chain(audio, CHAINS, apply), expected)


def test_one_hot_weights_equal_codes_and_have_a_gradient() -> None:
    audio = sound(4)
    weights = (
        torch.nn.functional.one_hot(CHAINS % 9, 9).float().requires_grad_()
    )  # −1 % 9 = 8 = END
    result = run_chain(audio, weights, apply)
    assert torch.allclose(result, run_chain(audio, CHAINS, apply), rtol=1e-5)
    result.square().sum().backward()
    chosen = weights.grad[weights.detach() > 0].reshape(4, 8)
    assert (chosen[CHAINS >= 0] != 0).all()


def test_relaxed_slots_mix_what_they_hold() -> None:
    audio, weights = sound(1), torch.zeros(1, 8, 9)
    weights[:, :, 8] = 1.0
    weights[0, 0] = torch.tensor([0.5, 0, 0.2, 0, 0, 0, 0, 0, 0.3])
    expected = 0.5 * by_hand(audio, [0]) + 0.2 * by_hand(audio, [2]) + 0.3 * audio
    assert torch.allclose(run_chain(audio, weights, apply), expected, atol=1e-5)


def test_only_active_effects_are_computed() -> None:
    calls: list[tuple[int, int]] = []

    def counting(effect: int, audio: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        calls.append((effect, len(rows)))
        return apply(effect, audio, rows)

    run_chain(sound(4), CHAINS, counting)
    assert sum(n for _, n in calls) == int((CHAINS >= 0).sum())
