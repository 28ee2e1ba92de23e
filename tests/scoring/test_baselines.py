"""Laws of the baselines, with a host whose sound is a known function of two knobs."""

from __future__ import annotations

import numpy as np
import pytest

from unmixer_core.comparison import cma_es
from unmixer_core.live.host import RenderFailure
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.schema import chain as chains
from unmixer_core.schema.patch import Patch, Patches
from unmixer_core.schema.rack import RACK
from unmixer_core.scoring import baselines
from unmixer_core.scoring import retrieval as scoring_retrieval
from unmixer_core.scoring import targets as scoring_targets

RATE = 44100
POSITION, ATTACK = RACK.knob_index["wavetable.osc_1_pos"], RACK.knob_index["wavetable.amp_attack"]


def tone(patch: Patch) -> np.ndarray:
    """Knob POSITION sets the pitch, knob ATTACK the slope of the level: [2, 0.25 s]."""
    time_s = np.arange(RATE // 4) / RATE
    level = np.exp(-time_s * 30 * float(patch.knobs[ATTACK]))
    return np.tile(
        level * np.sin(2 * np.pi * 220 * 2 ** (3 * float(patch.knobs[POSITION])) * time_s), (2, 1)
    ).astype(np.float32)


class FakeHost:
    """Counts its renders; refuses patches with knob POSITION above `refuse_above`."""

    def __init__(self, refuse_above: float = 2.0) -> None:
        self.refuse_above, self.renders = refuse_above, 0

    def render(self, patches: list[Patch]) -> list[object]:
        self.renders += len(patches)
        return [
            tone(p) if p.knobs[POSITION] <= self.refuse_above else RenderFailure(p, "refused")
            for p in patches
        ]


def patch(position: float = 0.5, attack: float = 0.5, effects: tuple[str, ...] = ()) -> Patch:
    return Patch.init(60, 1.0, effects).with_values(
        {"wavetable.osc_1_pos": position, "wavetable.amp_attack": attack}
    )


def table(*patches: Patch, phase: str = "full", split: str = "train") -> Patches:
    return Patches.stack(list(patches), phase, split)


def search(host: FakeHost, **budget: object) -> cma_es.SearchResult:
    options: dict[str, object] = {
        "sample_rate": RATE,
        "population": 6,
        "sigma": 0.25,
        "seed": 3,
    } | budget
    return cma_es.cma_search(host, tone(patch(0.8, 0.2)), patch(0.3, 0.7), **options)  # type: ignore[arg-type]


def test_majority_of_equal_patches_is_that_patch() -> None:
    one = patch(0.3, 0.9, ("Reverb", "Saturator")).with_values(
        {"wavetable.osc_1_wavetable": RACK.choices[0].choice.items[2]}
    )
    majority = baselines.Majority.of(table(one, one, one)).patch(40, 0.5)
    active = one.active_knobs
    assert majority.knobs[active] == pytest.approx(one.knobs[active])
    assert majority.effects == one.effects and (majority.note, majority.gate_s) == (40, 0.5)
    assert majority.choices[0] == 2


def test_a_knob_is_averaged_only_where_it_is_heard() -> None:
    decay = RACK.knob_index["reverb.decay_time"]
    silent = patch().with_values({"reverb.decay_time": 0.0})
    heard = [
        patch(effects=("Reverb",)).with_values({"reverb.decay_time": value}) for value in (0.6, 0.8)
    ]
    assert baselines.Majority.of(table(silent, *heard)).knobs[decay] == pytest.approx(0.7)
    assert baselines.Majority.of(table(silent)).knobs[decay] == pytest.approx(
        RACK.knob_defaults[decay]
    )


def test_majority_counts_audible_classes_of_chains() -> None:
    same = [
        patch(effects=("EQ Eight", "Reverb")),
        patch(effects=("Reverb", "EQ Eight")),
        patch(effects=("Reverb", "Delay", "Saturator")),
    ]
    assert set(baselines.Majority.of(table(*same)).patch(60, 1.0).effects) == {"EQ Eight", "Reverb"}


def test_random_patches_come_from_the_targets_phase_and_play_its_note() -> None:
    train = Patches.concat([table(patch(0.1), phase="dry"), table(patch(0.9), phase="full")])
    goals = [Patch.init(50, 0.4), Patch.init(70, 0.8)]
    dry, full = baselines.random_patches(train, ["dry", "full"], goals, seed=1)
    assert (dry.knobs[POSITION], full.knobs[POSITION]) == pytest.approx((0.1, 0.9))
    assert [(p.note, p.gate_s) for p in (dry, full)] == [(50, 0.4), (70, 0.8)]


def test_retrieval_finds_the_clip_itself_at_distance_zero_and_sorts() -> None:
    sounds = [tone(patch(position, 0.2)) for position in (0.1, 0.4, 0.45, 0.9)]
    retrieval = scoring_retrieval.Retrieval.build(
        lambda i: sounds[i - 10], [10, 11, 12, 13], RATE, threads=2
    )
    clips, mss_db = retrieval.nearest(metrics_sound.mss_features(sounds[1], RATE), k=4)
    assert clips[0] == 11 and mss_db[0] == pytest.approx(0.0, abs=0.05)
    assert list(clips[:2]) == [11, 12] and np.all(np.diff(mss_db) >= 0)


def test_retrieval_is_exhaustive_mss() -> None:
    sounds = [tone(patch(position, 0.4)) for position in np.linspace(0, 1, 7)]
    goal = tone(patch(0.37, 0.1))
    clips, mss_db = scoring_retrieval.Retrieval.build(lambda i: sounds[i], range(7), RATE).nearest(
        metrics_sound.mss_features(goal, RATE), k=7
    )
    direct = {i: metrics_sound.mss(goal, sound, RATE) for i, sound in enumerate(sounds)}
    assert mss_db == pytest.approx([direct[int(i)] for i in clips], abs=0.05)


def test_a_bank_on_disk_finds_what_one_in_memory_does(tmp_path, monkeypatch) -> None:
    sounds = [tone(patch(position, 0.3)) for position in np.linspace(0, 1, 9)]
    kept = scoring_retrieval.Retrieval.build(lambda i: sounds[i], range(9), RATE, spool=tmp_path)
    assert not list(tmp_path.iterdir()), "few clips stay in memory"
    monkeypatch.setattr(scoring_retrieval, "IN_MEMORY", 4)
    monkeypatch.setattr(scoring_retrieval.mss_index, "RETRIEVAL_READ", 3)
    spooled = scoring_retrieval.Retrieval.build(
        lambda i: sounds[i], range(9), RATE, spool=tmp_path, threads=2
    )
    assert {file.name for file in tmp_path.iterdir()} == {"bank.npy", "coarse.npy"}
    for goal in (sounds[3], tone(patch(0.61, 0.1))):
        features = metrics_sound.mss_features(goal, RATE)
        assert all(
            np.array_equal(a, b)
            for a, b in zip(kept.nearest(features, 4), spooled.nearest(features, 4), strict=True)
        )


def test_the_prior_is_the_training_patches_and_at_most_so_many() -> None:
    tables = [
        table(patch(x), phase="full", split=split)
        for x, split in ((0.1, "train"), (0.2, "valid"), (0.3, "train"))
    ]
    whole = Patches.concat(tables)
    assert scoring_targets.prior(whole).knobs[:, POSITION] == pytest.approx([0.1, 0.3])
    assert len(scoring_targets.prior(whole, 1)) == 1


@pytest.mark.parametrize(
    "effects", [(), ("Reverb",), ("Saturator", "Delay", "EQ Eight"), tuple(RACK.effect_names)[::-1]]
)
def test_genome_round_trips_a_patch(effects: tuple[str, ...]) -> None:
    rng = np.random.default_rng(len(effects))
    start = patch(effects=effects)
    start = Patch(
        rng.uniform(0, 1, RACK.n_knobs).astype(np.float32),
        rng.integers(0, RACK.sizes),
        start.chain,
        60,
        1.0,
    )
    genome = cma_es.Genome(Patch.init(60, 1.0))
    again = genome.decode(genome.encode(start))
    assert again.knobs == pytest.approx(start.knobs, abs=1e-6)
    assert np.array_equal(again.choices, start.choices) and again.effects == effects


def test_every_point_of_the_cube_is_a_patch() -> None:
    genome, rng = cma_es.Genome(Patch.init(60, 1.0)), np.random.default_rng(0)
    size = len(genome.encode(Patch.init(60, 1.0)))
    for point in [np.zeros(size), np.ones(size), *rng.uniform(-0.2, 1.2, (30, size))]:
        decoded = genome.decode(point)
        assert decoded.knobs.min() >= 0 and decoded.knobs.max() <= 1
        assert np.all((decoded.choices >= 0) & (decoded.choices < RACK.sizes))
        assert len(chains.decode(decoded.chain)) <= chains.MAX_EFFECTS


def test_a_genome_of_knobs_keeps_everything_that_is_discrete_or_unheard() -> None:
    start = patch(effects=("Saturator",))
    genome = cma_es.Genome(start, free="knobs")
    moved = genome.decode(np.ones(len(genome.encode(start))))
    active, _ = RACK.active(start.choices, start.chain)
    assert np.array_equal(moved.choices, start.choices) and moved.effects == start.effects
    assert np.all(moved.knobs[active] == 1.0) and np.array_equal(
        moved.knobs[~active], start.knobs[~active]
    )


def test_search_improves_on_its_start_within_its_renders() -> None:
    host = FakeHost()
    found = search(host, max_renders=61, free="knobs")
    start_db = metrics_sound.mss(tone(patch(0.3, 0.7)), tone(patch(0.8, 0.2)), RATE)
    assert found.renders == host.renders == 61
    assert found.mss_db < 0.8 * start_db
    assert found.mss_db == pytest.approx(
        metrics_sound.mss(tone(found.patch), tone(patch(0.8, 0.2)), RATE), rel=1e-2
    )
    assert np.array_equal(found.audio, tone(found.patch))


@pytest.mark.parametrize("renders", [1, 9, 20])
def test_a_longer_search_holds_the_shorter_ones(renders: int) -> None:
    """So one run answers for every budget of renders, bit for bit."""
    long, short = search(FakeHost(), max_renders=61), search(FakeHost(), max_renders=renders)
    part = long.within(renders=renders)
    assert (part.mss_db, part.renders) == (short.mss_db, short.renders)
    assert np.array_equal(part.patch.knobs, short.patch.knobs) and np.array_equal(
        part.audio, short.audio
    )


def test_a_search_cut_at_a_time_holds_what_was_heard_by_then() -> None:
    ticks = iter(range(10_000))
    long = search(FakeHost(), max_renders=61, clock=lambda: float(next(ticks)))
    for limit_s in (0.0, 10.0, 25.0, 1e9):
        part = long.within(seconds=limit_s)
        by_then = [i for i in long.improvements if i.seconds <= limit_s] or long.improvements[:1]
        assert part.mss_db == min(i.mss_db for i in by_then)
    assert long.within().mss_db == long.mss_db and long.within().renders == long.renders


def test_the_curve_of_a_search_only_falls() -> None:
    curve = search(FakeHost(), max_renders=25).curve
    assert (
        np.all(np.diff(curve[:, 2]) <= 0)
        and np.all(np.diff(curve[:, 0]) > 0)
        and np.all(np.diff(curve[:, 1]) >= 0)
    )


def test_no_generation_begins_after_the_seconds_are_spent() -> None:
    ticks = iter(range(10_000))
    host = FakeHost()
    found = search(host, max_seconds=8.0, clock=lambda: float(next(ticks)))
    assert 1 < found.renders < 60


def test_search_is_repeatable_and_leaves_the_global_generator_alone() -> None:
    np.random.seed(7)  # noqa: NPY002 (the global state is what is under test)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = search(FakeHost(), max_renders=20), search(FakeHost(), max_renders=20)
    assert np.array_equal(first.patch.knobs, second.patch.knobs) and first.mss_db == second.mss_db
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_search_survives_renders_that_fail() -> None:
    found = search(FakeHost(refuse_above=0.6), max_renders=30)
    assert found.mss_db < baselines.UNHEARD_DB and found.patch.knobs[POSITION] <= 0.6


def test_search_needs_a_budget() -> None:
    with pytest.raises(ValueError, match="max_renders"):
        search(FakeHost())
