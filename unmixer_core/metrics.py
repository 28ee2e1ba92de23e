"""What predictions are judged by: sounds, knobs and classes, calibration, chains.

Audio distances follow Hayes et al., "Audio synthesizer inversion in symmetric spaces" (ISMIR 2025): MSS, wMFCC, SOT and
the RMS envelope cosine. They take float32 [channel, time] (or [time]) and mix stereo down to its mean, as the paper's
code does; `level_mel_l1_db` compares channel by channel instead and is the one that hears level and panning. The
shorter of two sounds is padded with silence. Chains are tuples of effect names; "audible" is `schema.chain`'s notion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.fft import dct
from torch import Tensor

from unmixer_core.ddsp import spectral
from unmixer_core.schema.chain import audible_pairs, canonical, commutes
from unmixer_core.shards import Shard

Audio = NDArray[np.float32]
Bank = NDArray[np.floating] | Shard
Chain = tuple[str, ...]
N_MFCC = 20
POWER_FLOOR = 1e-10
RETRIEVAL_BLOCK = 16
RETRIEVAL_READ = 256  # rows of a bank read at a time where it lies on disk
RETRIEVAL_ROWS = 16  # rows of a bank per step: what a core's cache holds as float32


# Sounds


def mss(audio: Audio, target: Audio, sample_rate: int = 44100) -> float:
    """Multi-scale log-mel distance in dB, each sound relative to its own peak and cut at -80 dB: blind to level."""
    audio, target = _same_length(audio, target)
    return float(mss_from_features(mss_features(audio, sample_rate), mss_features(target, sample_rate)))


def mss_features(audio: Audio, sample_rate: int = 44100) -> NDArray[np.float32]:
    """One vector per sound, such that the mean absolute difference of two vectors *is* their MSS in dB.

    Ordered scale by scale, band by band, frame by frame.
    audio [channel, time] or [time] gives [features]; a batch [n, channel, time] gives [n, features]. 30 944 features
    for 2 s at 44.1 kHz; as float16 (`stack_features`) distances move by about 0.01 dB.
    """
    batch = torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))
    single = batch.ndim < 3
    with torch.no_grad():
        scales = spectral.mss_spectra(_mono(batch)[None] if single else batch.mean(1), sample_rate)
    total = sum(scale[0].numel() for scale in scales)
    weighted = [s.transpose(1, 2).flatten(1) * (total / (len(scales) * s[0].numel())) for s in scales]
    features = torch.cat(weighted, dim=1).numpy()
    return features[0] if single else features


def stack_features(features: Iterable[NDArray[np.floating]]) -> NDArray[np.float16]:
    """Feature vectors of many sounds as one compact bank [n, features] for `mss_from_features`."""
    return np.stack([f.astype(np.float16) for f in features])


def mss_from_features(features: NDArray[np.floating], bank: NDArray[np.floating]) -> np.float32 | NDArray[np.float32]:
    """MSS in dB between one sound's features and another's [features], or every row of a bank [n, features]."""
    if features.shape[-1] != bank.shape[-1]:
        raise ValueError(f"features of clips of different length: {features.shape[-1]} and {bank.shape[-1]} values")
    query = torch.from_numpy(np.asarray(features, dtype=np.float32))
    rows = torch.from_numpy(np.ascontiguousarray(bank)).reshape(-1, bank.shape[-1])
    found = [(part.float() - query).abs_().mean(1) for part in rows.split(RETRIEVAL_ROWS)]
    distance_db = torch.cat(found).numpy()
    return distance_db if bank.ndim > 1 else distance_db[0]


class MssIndex:
    """Exact nearest neighbours under MSS, without comparing the target with every clip of the bank.

    The distance of block averages bounds the distance from below (Jensen), so clips are compared in full in the order
    of that bound, until it exceeds the k-th best.
    """

    def __init__(self, bank: Bank, coarse: Bank | None = None) -> None:
        """bank: [n, features] from `stack_features`, coarse: its `block_means` (made here if not given). Both may lie on
        disk and are then read a block at a time.
        """
        self.bank = bank
        parts = range(0, len(bank), RETRIEVAL_READ)
        self._coarse = (
            coarse if coarse is not None else np.concatenate([block_means(bank[i : i + RETRIEVAL_READ]) for i in parts])
        )

    def nearest(self, features: NDArray[np.floating], k: int = 1) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows of the k nearest clips and their MSS in dB, nearest first."""
        sketch, parts = block_means(features[None])[0], range(0, len(self._coarse), RETRIEVAL_READ)
        bound = np.concatenate(
            [np.atleast_1d(mss_from_features(sketch, self._coarse[i : i + RETRIEVAL_READ])) for i in parts]
        )
        order = np.argsort(bound, kind="stable")
        rows, distances_db = order[:0], np.empty(0, dtype=np.float32)
        for start in range(0, len(order), RETRIEVAL_ROWS):
            part = order[start : start + RETRIEVAL_ROWS]
            if len(rows) >= k and bound[part[0]] > distances_db[k - 1]:
                break
            rows = np.concatenate([rows, part])
            distances_db = np.concatenate([distances_db, np.atleast_1d(mss_from_features(features, self.bank[part]))])
            best = np.argsort(distances_db, kind="stable")[:k]
            rows, distances_db = rows[best], distances_db[best]
        return rows, distances_db


def block_means(features: NDArray[np.floating]) -> NDArray[np.float32]:
    """Means of RETRIEVAL_BLOCK neighbouring features [n, blocks], scaled so that their mean L1 bounds the full one."""
    n, width = features.shape
    n_blocks = -(-width // RETRIEVAL_BLOCK)
    padded = np.zeros((n, n_blocks * RETRIEVAL_BLOCK), dtype=np.float32)
    padded[:, :width] = features
    return padded.reshape(n, n_blocks, -1).mean(2) * np.float32(padded.shape[1] / width)


def wmfcc(audio: Audio, target: Audio, sample_rate: int = 44100) -> float:
    """Cost of warping one MFCC sequence onto the other: mean absolute difference of 20 coefficients, under DTW.

    Symmetric steps (a diagonal step counts twice), normalised by the sum of both lengths.
    """
    a, b = mfcc(audio, sample_rate), mfcc(target, sample_rate)
    return dtw(np.abs(a[:, None] - b[None]).mean(-1))


def mfcc(audio: Audio, sample_rate: int = 44100) -> NDArray[np.float32]:
    """20 cepstral coefficients [frames, 20] of 128 Slaney mel bands in dB (top 80 dB), 50 ms windows, 10 ms hop."""
    size, hop = 50 * sample_rate // 1000, 10 * sample_rate // 1000
    with torch.no_grad():
        power = spectral.stft_magnitude(_mono_row(audio), size, hop)[0].square()
        power_db = 10.0 * torch.log10((power @ spectral.mel_bank(size, 128, sample_rate)).clamp(min=POWER_FLOOR))
        power_db = power_db.clamp(min=power_db.max() - 80.0)
    return dct(power_db.numpy(), norm="ortho", axis=1)[:, :N_MFCC]


def dtw(cost: NDArray[np.floating]) -> float:
    """Normalised cost of the cheapest monotone path through a cost matrix [n, m], from corner to corner.

    Recursion D(i, j) = min(D(i-1, j) + c, D(i, j-1) + c, D(i-1, j-1) + 2 c), divided by n + m (Sakoe and Chiba 1978,
    symmetric, P = 0), one anti-diagonal at a time.
    """
    n, m = cost.shape
    i, j = np.indices((n, m))
    skewed = np.full((n + m - 1, n), np.inf)
    skewed[i + j, i] = cost
    before, last = np.full(n + 1, np.inf), np.full(n + 1, np.inf)  # entry i + 1 is row i; entry 0 stays infinite
    last[1] = skewed[0, 0]
    for c in skewed[1:]:
        now = np.full(n + 1, np.inf)
        now[1:] = np.minimum(np.minimum(last[:-1], last[1:]) + c, before[:-1] + 2.0 * c)
        before, last = last, now
    return float(last[n] / (n + m))


def sot(audio: Audio, target: Audio, sample_rate: int = 44100) -> float:
    """Spectral optimal transport: mean Wasserstein-1 distance of normalised spectra (50 ms, 20 ms hop), Nyquist = 1."""
    a, b = (_normalised_spectra(x, sample_rate) for x in _same_length(audio, target))
    return float(np.abs(np.cumsum(a - b, axis=1)).sum(1).mean() / a.shape[1])


def _normalised_spectra(audio: Audio, sample_rate: int) -> NDArray[np.float64]:
    with torch.no_grad():
        magnitude = spectral.stft_magnitude(_mono_row(audio), 50 * sample_rate // 1000, 20 * sample_rate // 1000)[0]
    spectra = magnitude.double().numpy()
    return spectra / np.maximum(spectra.sum(1, keepdims=True), 1e-6)


def rms_envelope(audio: Audio, sample_rate: int = 44100) -> NDArray[np.float32]:
    """RMS of centred 50 ms windows every 25 ms, [frames], linear."""
    size, hop = 50 * sample_rate // 1000, 25 * sample_rate // 1000
    padded = torch.nn.functional.pad(_mono_row(audio)[0], (size // 2, size // 2))
    return padded.unfold(0, size, hop).square().mean(1).sqrt().numpy()


def rms_cosine(audio: Audio, target: Audio, sample_rate: int = 44100) -> float:
    """Cosine between RMS envelopes, 0 ... 1, higher is better; two silent sounds agree, silence and sound do not."""
    a, b = (rms_envelope(x, sample_rate).astype(np.float64) for x in _same_length(audio, target))
    lengths = np.linalg.norm(a), np.linalg.norm(b)
    return float(a @ b / (lengths[0] * lengths[1])) if min(lengths) > 0.0 else float(max(lengths) == 0.0)


def level_mel_l1_db(audio: Audio, target: Audio, sample_rate: int = 44100) -> float:
    """Mean absolute difference of log-mel levels in dB, channel by channel, on the MSS scales: hears gain and panning.

    Both sounds are cut 80 dB under the louder one's peak. Mono is compared with both channels of stereo.
    """
    pair = [torch.from_numpy(np.atleast_2d(x).astype(np.float32)) for x in _same_length(audio, target)]
    with torch.no_grad():
        scales = zip(*(spectral.mel_powers(x, sample_rate) for x in pair), strict=True)
        return float(np.mean([_level_difference_db(a, b) for a, b in scales]))


def _level_difference_db(a: Tensor, b: Tensor) -> float:
    floor = max(float(a.max()), float(b.max()), torch.finfo(a.dtype).tiny * 1e8) * 1e-8
    return float((10.0 * (torch.log10(a.clamp(min=floor)) - torch.log10(b.clamp(min=floor)))).abs().mean())


def _mono(audio: Tensor) -> Tensor:
    return audio.mean(0) if audio.ndim == 2 else audio


def _mono_row(audio: Audio) -> Tensor:
    return _mono(torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32)))[None]


def _same_length(a: Audio, b: Audio) -> tuple[Audio, Audio]:
    n = max(a.shape[-1], b.shape[-1])
    first, second = (np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, n - x.shape[-1])]) for x in (a, b))
    return first, second


# Knobs, classes, calibration


def knob_mae(predicted: ArrayLike, actual: ArrayLike, active: ArrayLike) -> float:
    """Mean absolute error over active knobs only; arrays [clips, knobs], active boolean. nan when none is active."""
    return _masked_mean(np.abs(np.asarray(predicted) - np.asarray(actual)), np.asarray(active, dtype=bool))


def mae_by_knob(predicted: ArrayLike, actual: ArrayLike, active: ArrayLike) -> NDArray[np.float64]:
    """The same per knob, [knobs]; nan for knobs that are never active."""
    error, mask = np.abs(np.asarray(predicted) - np.asarray(actual)), np.asarray(active, dtype=bool)
    return np.array([_masked_mean(error[:, k], mask[:, k]) for k in range(error.shape[1])])


def class_accuracy(predicted: ArrayLike, actual: ArrayLike, active: ArrayLike) -> float:
    """Share of active choices that are right; arrays [clips, choices] of class indices. nan when none is active."""
    return _masked_mean(np.asarray(predicted) == np.asarray(actual), np.asarray(active, dtype=bool))


def majority_accuracy(train: ArrayLike, actual: ArrayLike, active: ArrayLike) -> float:
    """`class_accuracy` of always answering each choice's commonest training class; train [clips, choices]."""
    guess = np.array([np.bincount(column).argmax() for column in np.asarray(train).T])
    return class_accuracy(np.broadcast_to(guess, np.asarray(actual).shape), actual, active)


def pit(samples: ArrayLike, actual: ArrayLike) -> NDArray[np.float64]:
    """Probability integral transform: share of posterior samples [draws, ...] below the truth [...], ties half."""
    draws, truth = np.asarray(samples), np.asarray(actual)
    return (draws < truth).mean(0) + 0.5 * (draws == truth).mean(0)


def coverage(pit_values: ArrayLike, active: ArrayLike, levels: Sequence[float] = (0.5, 0.9)) -> dict[float, float]:
    """Share of active truths inside each central predictive interval; calibrated when every share equals its level."""
    offset, mask = np.abs(np.asarray(pit_values) - 0.5), np.asarray(active, dtype=bool)
    return {level: _masked_mean(offset <= level / 2.0, mask) for level in levels}


def _masked_mean(values: NDArray, mask: NDArray[np.bool_]) -> float:
    return float(values[mask].mean()) if mask.any() else float("nan")


def bootstrap(
    values: ArrayLike,
    statistic: Callable[..., NDArray] = np.median,
    *,
    n: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of a statistic (called with axis=1) under resampling of `values` with replacement."""
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        return float("nan"), float("nan")
    drawn = data[np.random.default_rng(seed).integers(0, data.size, (n, data.size))]
    low, high = np.quantile(statistic(drawn, axis=1), [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    return float(low), float(high)


# Chains


def chain_scores(predicted: Sequence[Chain], actual: Sequence[Chain]) -> dict[str, float]:
    """Every chain metric of a set of clips, by name; orders are scored on audible pairs only.

    exact, exact_audible: share right, literally and up to swaps nobody can hear. ceiling: best `exact` in reach of a
    model that cannot hear those swaps. levenshtein: mean edits. set_f1: mean over clips, order ignored. precision,
    recall, f1: mean over effects. pair_order: share of the truth's audible pairs found in the right order (a missing
    effect is a miss); pair_order_present: the same among pairs of which both effects were predicted.
    """
    pairs = list(zip(predicted, actual, strict=True))
    by_effect = effect_scores(predicted, actual).values()
    right, present, total = np.sum([order_hits(p, a) for p, a in pairs], axis=0) if pairs else (0, 0, 0)
    return {
        "exact": _mean(p == a for p, a in pairs),
        "exact_audible": _mean(canonical(p) == canonical(a) for p, a in pairs),
        "ceiling": _mean(1.0 / class_size(a) for a in actual),
        "levenshtein": _mean(levenshtein(p, a) for p, a in pairs),
        "set_f1": _mean(set_f1(p, a) for p, a in pairs),
        **{name: _mean(scores[name] for scores in by_effect) for name in ("precision", "recall", "f1")},
        "pair_order": float(right / total) if total else float("nan"),
        "pair_order_present": float(right / present) if present else float("nan"),
    }


def majority_chain(train: Sequence[Chain]) -> Chain:
    """The commonest chain: score `[majority_chain(train)] * n` with `chain_scores` for the baseline."""
    return Counter(train).most_common(1)[0][0]


def levenshtein(a: Sequence[str], b: Sequence[str]) -> int:
    """Fewest insertions, deletions and substitutions that turn one chain into the other."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        previous, row = row, [i]
        for j, y in enumerate(b, start=1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (x != y)))
    return row[-1]


def set_f1(predicted: Iterable[str], actual: Iterable[str]) -> float:
    """F1 of the effects present, order ignored; 1 when both chains are empty."""
    p, a = set(predicted), set(actual)
    return 2.0 * len(p & a) / (len(p) + len(a)) if p or a else 1.0


def effect_scores(predicted: Sequence[Chain], actual: Sequence[Chain]) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and support (clips that have it) of every effect that occurs on either side; 0/0 = 0."""
    hits = Counter(e for p, a in zip(predicted, actual, strict=True) for e in set(p) & set(a))
    found, wanted = Counter(e for p in predicted for e in set(p)), Counter(e for a in actual for e in set(a))
    return {
        e: {
            "precision": hits[e] / max(found[e], 1),
            "recall": hits[e] / max(wanted[e], 1),
            "f1": 2.0 * hits[e] / (found[e] + wanted[e]),
            "support": float(wanted[e]),
        }
        for e in sorted(found | wanted)
    }


def order_hits(predicted: Chain, actual: Chain) -> tuple[int, int, int]:
    """Audible pairs of the true chain: (in the right order in the prediction, with both effects in it, in all)."""
    place = {effect: i for i, effect in enumerate(predicted)}
    pairs = audible_pairs(actual)
    present = [(a, b) for a, b in pairs if a in place and b in place]
    return sum(place[a] < place[b] for a, b in present), len(present), len(pairs)


@lru_cache(maxsize=65536)
def class_size(chain: Chain) -> int:
    """Number of orders of these effects that sound like this one, itself included.

    Counts the orders that keep every non-commuting pair, by dynamic programming over prefixes as sets.
    """
    before = [{j for j in range(i) if not commutes(chain[j], chain[i])} for i in range(len(chain))]
    ways = {frozenset[int](): 1}
    for _ in chain:
        longer: Counter[frozenset[int]] = Counter()
        for prefix, count in ways.items():
            for i in set(range(len(chain))) - prefix:
                if before[i] <= prefix:
                    longer[prefix | {i}] += count
        ways = longer
    return next(iter(ways.values()))


def _mean(values: Iterable[float]) -> float:
    numbers = [float(v) for v in values]
    return float(np.mean(numbers)) if numbers else float("nan")
