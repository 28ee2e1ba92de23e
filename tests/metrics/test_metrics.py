"""Laws of the metrics: what is blind to what, what is zero when, and fast paths against slow
ones.
"""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from unmixer_core.dsp import spectral
from unmixer_core.metrics import patch, sound, statistics
from unmixer_core.schema.chain import LTI, canonical
from unmixer_core.schema.rack import RACK
from unmixer_core.scoring import mss_index

RATE = 22050
N = RATE // 2
LINEAR = sorted(LTI)
NONLINEAR = sorted(set(RACK.effect_names) - LTI)
DISTANCES = [sound.mss, sound.wmfcc, sound.sot, sound.level_mel_l1_db]


def note(
    frequency_hz: float = 220.0, *, delay: int = 0, pan: float = 0.5, seed: int = 0
) -> np.ndarray:
    """A decaying tone with a little noise, float32 [2, N]."""
    t = np.arange(N) / RATE
    tone = sum(np.sin(2 * np.pi * k * frequency_hz * t) / k for k in range(1, 6)) * np.exp(-4.0 * t)
    mono = np.roll(tone + 1e-3 * np.random.default_rng(seed).standard_normal(N), delay)
    mono[:delay] = 0.0
    return (np.stack([(1.0 - pan) * mono, pan * mono])).astype(np.float32)


# Sounds


@pytest.mark.parametrize("distance", DISTANCES)
def test_distance_is_zero_for_equal_sounds_positive_and_symmetric_otherwise(distance):
    a, b = note(220.0), note(330.0, seed=1)
    assert distance(a, a, RATE) == 0.0
    assert distance(a, b, RATE) > 1e-3
    assert distance(a, b, RATE) == pytest.approx(distance(b, a, RATE), rel=1e-5)


@pytest.mark.parametrize("distance", [*DISTANCES, sound.rms_cosine])
def test_silence_and_mono_are_taken(distance):
    silent = np.zeros((2, N), dtype=np.float32)
    assert np.isfinite(distance(silent, note(), RATE))
    assert distance(silent, silent, RATE) == (1.0 if distance is sound.rms_cosine else 0.0)
    assert np.isfinite(distance(note()[0], note(330.0)[0], RATE))


@pytest.mark.parametrize("distance", [sound.mss, sound.sot])
def test_gain_is_not_heard(distance):
    a, b = note(), note(330.0)
    assert distance(0.05 * a, b, RATE) == pytest.approx(distance(a, b, RATE), rel=1e-3)


def test_the_level_sensitive_distance_reads_a_gain_in_db():
    a = np.random.default_rng(0).standard_normal((2, N)).astype(np.float32)
    assert sound.level_mel_l1_db(0.5 * a, a, RATE) == pytest.approx(6.02, abs=0.01)
    assert sound.level_mel_l1_db(0.5 * a, 0.5 * note(), RATE) == pytest.approx(
        sound.level_mel_l1_db(a, note(), RATE), rel=1e-4
    )


def test_only_the_level_sensitive_distance_hears_panning():
    left, right = note(pan=0.2), note(pan=0.8)
    assert sound.mss(left, right, RATE) < 1e-3
    assert sound.level_mel_l1_db(left, right, RATE) > 3.0


def test_the_worse_the_pitch_the_worse_the_transport():
    found = [sound.sot(note(220.0 * 2.0**octave), note(220.0), RATE) for octave in (0, 1, 2)]
    assert found == sorted(found) and found[1] > 0.0


def test_transport_equals_scipy():
    spectra = np.abs(np.random.default_rng(0).standard_normal((2, 40)))
    a, b = spectra / spectra.sum(1, keepdims=True)
    bins = np.arange(40)
    assert np.abs(np.cumsum(a - b)).sum() == pytest.approx(wasserstein_distance(bins, bins, a, b))


def test_a_late_note_costs_mss_more_than_warped_mfcc():
    near, far = note(delay=5 * RATE // 100), note(440.0)
    assert sound.mss(near, note(), RATE) > 1.0
    assert sound.wmfcc(near, note(), RATE) < 0.5 * sound.wmfcc(far, note(), RATE)


def test_rms_cosine_sees_the_envelope_alone():
    a = note()
    assert sound.rms_cosine(0.1 * a, a, RATE) == pytest.approx(1.0, abs=1e-6)
    assert sound.rms_cosine(a[:, ::-1].copy(), a, RATE) < 0.7
    assert sound.rms_cosine(np.zeros_like(a), a, RATE) == 0.0


def test_rms_of_a_constant_is_the_constant():
    envelope = sound.rms_envelope(np.full((2, N), 0.25, dtype=np.float32), RATE)
    np.testing.assert_allclose(envelope[2:-2], 0.25, rtol=1e-5)


def test_the_shorter_sound_is_padded_with_silence():
    a = note()
    padded = np.pad(a[:, : N // 2], ((0, 0), (0, N - N // 2)))
    for distance in (sound.mss, sound.sot, sound.rms_cosine, sound.level_mel_l1_db):
        assert distance(a[:, : N // 2], a, RATE) == pytest.approx(distance(padded, a, RATE))


# Warping


def slow_dtw(cost: np.ndarray) -> float:
    n, m = cost.shape
    total = np.full((n, m), np.inf)
    for i, j in product(range(n), range(m)):
        steps = [cost[0, 0]] if i == j == 0 else []
        steps += [total[i - 1, j] + cost[i, j]] if i else []
        steps += [total[i, j - 1] + cost[i, j]] if j else []
        steps += [total[i - 1, j - 1] + 2 * cost[i, j]] if i and j else []
        total[i, j] = min(steps)
    return total[-1, -1] / (n + m)


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (7, 4), (9, 9)])
def test_dtw_equals_the_double_loop(shape):
    cost = np.random.default_rng(sum(shape)).random(shape)
    assert sound.dtw(cost) == pytest.approx(slow_dtw(cost))


def test_dtw_forgives_repeated_frames():
    frames = np.random.default_rng(0).standard_normal(12)
    slower = np.repeat(frames, 3)
    assert sound.dtw(np.abs(frames[:, None] - slower[None])) == 0.0


# Retrieval


def test_features_are_an_embedding_of_mss():
    sounds = [note(110.0 * 2 ** (k / 3), seed=k) for k in range(6)]
    features = [sound.mss_features(s, RATE) for s in sounds]
    slow = [sound.mss(sounds[0], s, RATE) for s in sounds]
    np.testing.assert_allclose(
        sound.mss_from_features(features[0], np.stack(features)), slow, atol=1e-5
    )
    compact = sound.mss_from_features(features[0], mss_index.stack_features(features))
    np.testing.assert_allclose(compact, slow, atol=0.03)
    assert sound.mss_from_features(features[0], features[1]) == pytest.approx(slow[1])


def test_batched_features_equal_single_ones():
    sounds = np.stack([note(220.0), note(330.0)])
    single = np.stack([sound.mss_features(s, RATE) for s in sounds])
    np.testing.assert_allclose(sound.mss_features(sounds, RATE), single, atol=1e-3)


def test_mss_equals_its_definition():
    a, b = note(220.0), note(300.0)
    parts = []
    start = sound.mss_features(a, RATE), sound.mss_features(b, RATE)
    for x, y in zip(*(spectral.mss_spectra(sound._mono_row(s), RATE) for s in (a, b)), strict=True):
        assert float(x.max()) == 0.0 and float(x.min()) >= -80.0
        parts.append(float((x - y).abs().mean()))
    assert sound.mss_from_features(*start) == pytest.approx(np.mean(parts), rel=1e-5)


@pytest.mark.parametrize("k", [1, 5, 40, 60])
def test_index_finds_what_the_full_comparison_finds(k):
    rng = np.random.default_rng(0)
    sounds = [
        note(80.0 * 2.0 ** rng.uniform(0, 3), delay=int(rng.integers(0, 2000)), seed=i)
        for i in range(50)
    ]
    bank = mss_index.stack_features(sound.mss_features(s, RATE) for s in sounds)
    target = sound.mss_features(note(200.0, seed=99), RATE)
    slow = sound.mss_from_features(target, bank)
    rows, distances_db = mss_index.MssIndex(bank).nearest(target, k)
    np.testing.assert_allclose(distances_db, np.sort(slow)[:k], rtol=1e-5)
    np.testing.assert_allclose(slow[rows], distances_db, rtol=1e-5)


def test_block_means_bound_the_distance_from_below():
    a, b = np.random.default_rng(0).standard_normal((2, 1, 1003)).astype(np.float32) - 40.0
    coarse = np.abs(mss_index.block_means(a) - mss_index.block_means(b)).mean()
    assert coarse <= np.abs(a - b).mean()


def test_features_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="different length"):
        sound.mss_from_features(
            sound.mss_features(note(), RATE), sound.mss_features(note()[:, :-5000], RATE)
        )


# Knobs, classes, calibration


def test_inactive_knobs_and_choices_do_not_count():
    actual, active = np.zeros((2, 3)), np.array([[1, 0, 1], [0, 0, 1]], dtype=bool)
    predicted = np.array([[0.3, 9.0, 0.1], [9.0, 9.0, 0.2]])
    assert patch.knob_mae(predicted, actual, active) == pytest.approx(0.2)
    np.testing.assert_allclose(patch.mae_by_knob(predicted, actual, active), [0.3, np.nan, 0.15])
    assert patch.class_accuracy(
        [[1, 0], [1, 1]], [[1, 1], [0, 1]], [[1, 0], [1, 1]]
    ) == pytest.approx(2 / 3)
    assert np.isnan(patch.knob_mae(predicted, actual, np.zeros((2, 3), dtype=bool)))


def pit(samples: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Share of samples [draws, ...] below the truth [...], ties half."""
    return (samples < actual).mean(0) + 0.5 * (samples == actual).mean(0)


def test_a_true_posterior_is_covered_as_often_as_it_says():
    rng = np.random.default_rng(0)
    centre = rng.standard_normal((2000, 2))
    actual = centre + rng.standard_normal((2000, 2))
    samples = centre + rng.standard_normal((200, 2000, 2))
    active = np.ones((2000, 2), dtype=bool)
    right = statistics.coverage(pit(samples, actual), active)
    assert right[0.5] == pytest.approx(0.5, abs=0.03) and right[0.9] == pytest.approx(0.9, abs=0.03)
    narrow = statistics.coverage(pit(centre + 0.2 * (samples - centre), actual), active)
    assert narrow[0.9] < 0.5


def test_bootstrap_brackets_the_statistic_and_repeats_by_seed():
    values = np.random.default_rng(0).standard_normal(200)
    low, high = statistics.bootstrap(values, seed=3)
    assert low <= np.median(values) <= high
    assert (low, high) == statistics.bootstrap(values, seed=3)
    wide = statistics.bootstrap(values[:20], seed=3)
    assert wide[1] - wide[0] > high - low
    mean = statistics.bootstrap(values, np.mean, n=4000)
    assert mean[1] - mean[0] == pytest.approx(2 * 1.96 * values.std() / np.sqrt(200), rel=0.1)
    assert all(np.isnan(statistics.bootstrap([])))


# Chains


def slow_levenshtein(a: tuple, b: tuple) -> int:
    if not a or not b:
        return len(a) + len(b)
    same = slow_levenshtein(a[1:], b[1:]) + (a[0] != b[0])
    return min(same, slow_levenshtein(a[1:], b) + 1, slow_levenshtein(a, b[1:]) + 1)


def test_levenshtein_equals_the_recursion():
    chains = [c for n in range(4) for c in permutations("abcd", n)]
    for a, b in product(chains[::3], chains[::2]):
        assert patch.levenshtein(a, b) == slow_levenshtein(a, b)


@pytest.mark.parametrize("n_linear", [0, 1, 2, 3])
@pytest.mark.parametrize("n_nonlinear", [0, 1, 2])
def test_class_size_counts_orders_with_the_same_canonical_form(n_linear, n_nonlinear):
    for chain in permutations(LINEAR[:n_linear] + NONLINEAR[:n_nonlinear]):
        alike = sum(canonical(other) == canonical(chain) for other in permutations(chain))
        assert patch.class_size(chain) == alike


def test_ceiling_is_the_share_of_audible_classes():
    orders = [c for n in range(5) for c in permutations(RACK.effect_names, n)]
    assert len(orders) == 2081
    scores = np.mean([1.0 / patch.class_size(c) for c in orders])
    assert scores == pytest.approx(len({canonical(c) for c in orders}) / 2081)


def test_a_right_chain_scores_one_everywhere():
    actual = [(NONLINEAR[0], LINEAR[0]), (), tuple(NONLINEAR[:3])]
    scores = patch.chain_scores(actual, actual)
    assert scores["levenshtein"] == 0.0
    perfect = set(scores) - {"levenshtein", "ceiling"}
    assert {scores[name] for name in perfect} == {1.0}


def test_inaudible_swaps_cost_exactness_only():
    a, b = LINEAR[:2]
    scores = patch.chain_scores([(a, b, NONLINEAR[0])], [(b, a, NONLINEAR[0])])
    assert scores["exact"] == 0.0 and scores["exact_audible"] == 1.0
    assert scores["pair_order"] == 1.0 and scores["ceiling"] == 0.5


def test_a_reversed_chain_has_the_right_set_and_no_right_pair():
    chain = tuple(NONLINEAR[:3])
    scores = patch.chain_scores([chain[::-1]], [chain])
    assert scores["set_f1"] == scores["f1"] == 1.0
    assert scores["pair_order"] == scores["exact"] == 0.0


def test_missing_effects_are_order_misses_but_not_among_the_present():
    a, b, c = NONLINEAR[:3]
    scores = patch.chain_scores([(a, b)], [(a, b, c)])
    assert scores["pair_order"] == pytest.approx(1 / 3)
    assert scores["pair_order_present"] == 1.0


def test_effect_scores_equal_their_definition():
    a, b = NONLINEAR[:2]
    scores = patch.effect_scores([(a,), (a, b), ()], [(a,), (b,), (b,)])
    assert scores[a] == {
        "precision": 0.5,
        "recall": 1.0,
        "f1": pytest.approx(2 / 3),
        "support": 1.0,
    }
    assert scores[b] == {
        "precision": 1.0,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "support": 2.0,
    }


def test_empty_sets_have_no_scores_and_majority_is_a_chain():
    assert np.isnan(patch.chain_scores([], [])["exact"])
    assert patch.majority_chain([("x",), ("y",), ("y",)]) == ("y",)
