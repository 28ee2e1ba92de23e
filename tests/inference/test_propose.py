from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.model import tiny
from unmixer_core.inference import marginals, propose
from unmixer_core.model.mixture import to_unit
from unmixer_core.model.targets import AMOUNTS, Targets
from unmixer_core.model.unmixer import context_of
from unmixer_core.schema import chain as chains
from unmixer_core.schema.patch import Patches
from unmixer_core.schema.rack import RACK


@pytest.fixture(scope="module")
def model():  # type: ignore[no-untyped-def]
    return tiny.model().eval()


def test_proposals_are_different_valid_patches_with_the_point_estimate_first(model) -> None:  # type: ignore[no-untyped-def]
    x, targets = tiny.batch(3)
    for clip, proposals in enumerate(propose.propose(model, x, targets.note, targets.gate_s, 8, 1)):
        assert len(proposals) == 8 and proposals[0].source == "point"
        assert {p.source for p in proposals[1:]} == {"ranked", "drawn"}
        assert len({p.patch.digest for p in proposals}) == 8
        for p in proposals:
            assert ((p.patch.knobs >= 0) & (p.patch.knobs <= 1)).all()
            chains.decode(p.patch.chain)
            assert (p.patch.choices >= 0).all() and (p.patch.choices < np.array(RACK.sizes)).all()
            assert (
                p.patch.note == int(targets.note[clip])
                and np.isfinite(p.log_prob)
                and p.log_prob <= 0
            )
        ranked = [p.log_prob for p in proposals if p.source == "ranked"]
        assert len(ranked) >= 3


def test_equal_seeds_give_equal_proposals_and_the_point_needs_no_seed(model) -> None:  # type: ignore[no-untyped-def]
    x, targets = tiny.batch(2)
    a, b, c = (
        propose.propose(model, x, targets.note, targets.gate_s, 6, seed) for seed in (1, 1, 2)
    )
    digests = [[[p.patch.digest for p in clip] for clip in run] for run in (a, b, c)]
    assert digests[0] == digests[1] != digests[2]
    assert [clip[0] for clip in digests[0]] == [clip[0] for clip in digests[2]]
    ((alone,),) = propose.propose(model, x[:1], targets.note[:1], targets.gate_s[:1], 1, 1)
    np.testing.assert_allclose(alone.patch.knobs, a[0][0].patch.knobs, atol=1e-4)
    assert alone.patch.effects == a[0][0].patch.effects


def beam(*rows: tuple[tuple[str, ...], float]) -> tuple[torch.Tensor, torch.Tensor]:
    table = torch.tensor(np.array([chains.encode(names) for names, _ in rows]), dtype=torch.long)
    return table, torch.tensor([p for _, p in rows]).log()


def test_consensus_prefers_what_most_of_the_beam_says() -> None:
    lone = (("Delay",), 0.3)
    family = [
        (("Saturator", "Compressor", name), 0.2) for name in ("Reverb", "Delay", "Chorus-Ensemble")
    ]
    assert propose.consensus(*beam(lone, *family)) in (1, 2, 3)
    assert propose.consensus(*beam((("Delay",), 0.9), (("Saturator",), 0.1))) == 0
    assert propose.consensus(*beam(((), 1.0))) == 0


def test_statements_are_the_audible_pairs() -> None:
    rng = np.random.default_rng(1)
    rows = [tuple(rng.permutation(RACK.effect_names)[: rng.integers(0, 7)]) for _ in range(40)]
    said = propose.statements(beam(*((row, 1.0) for row in rows))[0])
    for row, values in zip(rows, said, strict=True):
        pairs = {
            (RACK.effect_names[a], RACK.effect_names[b])
            for a, b in values[8:].unflatten(0, (8, 8)).nonzero().tolist()
        }
        assert pairs == chains.audible_pairs(row)
        assert {RACK.effect_names[i] for i in values[:8].nonzero()[:, 0].tolist()} == set(row)


def test_intervals_are_nested_around_the_median(model) -> None:  # type: ignore[no-untyped-def]
    x, targets = tiny.batch(3)
    patches = [p[0].patch for p in propose.propose(model, x, targets.note, targets.gate_s, 1, 1)]
    found = marginals.intervals(model, x, targets.note, targets.gate_s, patches)
    (low50, low90), (high50, high90) = found.low, found.high
    assert low50.shape == (3, RACK.n_knobs)
    assert (
        (low90 <= low50).all()
        and (low50 <= found.median).all()
        and (found.median <= high50).all()
        and (high50 <= high90).all()
    )
    assert (low90 >= 0).all() and (high90 <= 1).all()


def test_the_intervals_of_a_patch_do_not_depend_on_what_else_is_asked_of_its_clip(model) -> None:  # type: ignore[no-untyped-def]
    x, targets = tiny.batch(3)
    patches = [p[0].patch for p in propose.propose(model, x, targets.note, targets.gate_s, 1, 1)]
    one = (model, x[:1], targets.note[:1], targets.gate_s[:1])
    together = marginals.intervals(*one, patches)
    for i, patch in enumerate(patches):
        alone = marginals.intervals(*one, [patch], levels=())
        assert alone.low.shape == (0, 1, RACK.n_knobs)
        assert np.abs(alone.median[0] - together.median[i]).max() < 1e-4


def test_pit_is_uniform_when_the_truth_is_drawn_from_the_model(model) -> None:  # type: ignore[no-untyped-def]
    n = 300
    table = tiny.sampling.sample(n, "full", "train", 8, tiny.PRIOR)
    x = tiny.features(table).batch(range(n))
    targets = Targets.of(table)
    belief = model(x, targets.note, targets.gate_s)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        moving = torch.bernoulli(torch.sigmoid(belief.classes.moving), generator=generator)
        context = replace(context_of(targets), moving=moving)
        parts = [mixture.sample(generator) for mixture in model.mixtures(belief, context)]
        knobs = model.stilled(to_unit(model.knobs.scatter(parts)), moving).numpy()
    fields = {name: getattr(table, name) for name in table.__dataclass_fields__}
    place = marginals.pit(
        model, x, targets.note, targets.gate_s, Patches(**{**fields, "knobs": knobs})
    )
    audible = place[np.isfinite(place)]
    for level in (0.1, 0.25, 0.5, 0.75, 0.9):
        assert (audible < level).mean() == pytest.approx(level, abs=0.04)
    amounts = place[:, list(AMOUNTS)]
    assert (amounts[np.isfinite(amounts)] < 0.5).mean() == pytest.approx(0.5, abs=0.05)
    silent = ~Targets.of(Patches(**{**fields, "knobs": knobs})).knob_mask.numpy()
    assert np.array_equal(np.isnan(place), silent)
