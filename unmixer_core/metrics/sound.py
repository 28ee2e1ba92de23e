"""What predictions are judged by: sounds, knobs and classes, calibration, chains.

Audio distances follow Hayes et al., "Audio synthesizer inversion in symmetric spaces" (ISMIR 2025):
MSS, wMFCC, SOT and the RMS envelope cosine. They take float32 [channel, time] (or [time]) and mix
stereo down to its mean, as the paper's code does; `level_mel_l1_db` compares channel by channel
instead and is the one that hears level and panning. The shorter of two sounds is padded with
silence. Chains are tuples of effect names; "audible" is `schema.chain`'s notion.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dct
from torch import Tensor

from unmixer_core.dataset.shards import Shard
from unmixer_core.dsp import spectral

Audio = NDArray[np.float32]
Bank = NDArray[np.floating] | Shard
N_MFCC = 20
POWER_FLOOR = 1e-10
RETRIEVAL_ROWS = 16  # rows of a bank per step: what a core's cache holds as float32


# Sounds


def mss(audio: Audio, target: Audio, sample_rate: int = 44100) -> float:
    """Multi-scale log-mel distance in dB, each sound relative to its own peak and cut at -80 dB.

    Blind to level.
    """
    audio, target = _same_length(audio, target)
    return mss_to(mss_features(audio, sample_rate), target, sample_rate)


def mss_features(audio: Audio, sample_rate: int = 44100) -> NDArray[np.float32]:
    """One vector per sound, such that the mean absolute difference of two vectors *is* their MSS in
    dB.

    Ordered scale by scale, band by band, frame by frame. audio [channel, time] or [time] gives
    [features]; a batch [n, channel, time] gives [n, features]. 30 944 features for 2 s at 44.1 kHz;
    as float16 (`stack_features`) distances move by about 0.01 dB.
    """
    batch = torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))
    single = batch.ndim < 3
    with torch.no_grad():
        scales = spectral.mss_spectra(_mono(batch)[None] if single else batch.mean(1), sample_rate)
    total = sum(scale[0].numel() for scale in scales)
    weighted = [
        s.transpose(1, 2).flatten(1) * (total / (len(scales) * s[0].numel())) for s in scales
    ]
    features = torch.cat(weighted, dim=1).numpy()
    return features[0] if single else features


def mss_from_features(
    features: NDArray[np.floating], bank: NDArray[np.floating]
) -> np.float32 | NDArray[np.float32]:
    """MSS in dB between one sound's features and another's [features], or every row of a bank
    [n, features].
    """
    if features.shape[-1] != bank.shape[-1]:
        raise ValueError(
            f"features of clips of different length: {features.shape[-1]} and {bank.shape[-1]} "
            f"values"
        )
    query = torch.from_numpy(np.asarray(features, dtype=np.float32))
    rows = torch.from_numpy(np.ascontiguousarray(bank)).reshape(-1, bank.shape[-1])
    found = [(part.float() - query).abs_().mean(1) for part in rows.split(RETRIEVAL_ROWS)]
    distance_db = torch.cat(found).numpy()
    return distance_db if bank.ndim > 1 else distance_db[0]


def mss_to(features: NDArray[np.floating], audio: Audio, sample_rate: int) -> float:
    """MSS in dB between a target given by its features [features] and one sound as long as it.

    Raises ValueError when the lengths differ.
    """
    return float(mss_from_features(features, mss_features(audio, sample_rate)))


def wmfcc(audio: Audio, target: Audio, sample_rate: int = 44100) -> float:
    """Cost of warping one MFCC sequence onto the other.

    Mean absolute difference of 20 coefficients, under DTW.

    Symmetric steps (a diagonal step counts twice), normalised by the sum of both lengths.
    """
    a, b = mfcc(audio, sample_rate), mfcc(target, sample_rate)
    return dtw(np.abs(a[:, None] - b[None]).mean(-1))


def mfcc(audio: Audio, sample_rate: int = 44100) -> NDArray[np.float32]:
    """20 cepstral coefficients [frames, 20] of 128 Slaney mel bands in dB (top 80 dB), 50 ms
    windows, 10 ms hop.
    """
    size, hop = 50 * sample_rate // 1000, 10 * sample_rate // 1000
    with torch.no_grad():
        power = spectral.stft_magnitude(_mono_row(audio), size, hop)[0].square()
        power_db = 10.0 * torch.log10(
            (power @ spectral.mel_bank(size, 128, sample_rate)).clamp(min=POWER_FLOOR)
        )
        power_db = power_db.clamp(min=power_db.max() - 80.0)
    return dct(power_db.numpy(), norm="ortho", axis=1)[:, :N_MFCC]


def dtw(cost: NDArray[np.floating]) -> float:
    """Normalised cost of the cheapest monotone path through a cost matrix [n, m], from corner to
    corner.

    Recursion D(i, j) = min(D(i-1, j) + c, D(i, j-1) + c, D(i-1, j-1) + 2 c), divided by n + m
    (Sakoe and Chiba 1978, symmetric, P = 0), one anti-diagonal at a time.
    """
    n, m = cost.shape
    i, j = np.indices((n, m))
    skewed = np.full((n + m - 1, n), np.inf)
    skewed[i + j, i] = cost
    before, last = (
        np.full(n + 1, np.inf),
        np.full(n + 1, np.inf),
    )  # entry i + 1 is row i; entry 0 stays infinite
    last[1] = skewed[0, 0]
    for c in skewed[1:]:
        now = np.full(n + 1, np.inf)
        now[1:] = np.minimum(np.minimum(last[:-1], last[1:]) + c, before[:-1] + 2.0 * c)
        before, last = last, now
    return float(last[n] / (n + m))


def sot(audio: Audio, target: Audio, sample_rate: int = 44100) -> float:
    """Spectral optimal transport.

    Mean Wasserstein-1 distance of normalised spectra (50 ms, 20 ms hop), Nyquist = 1.
    """
    a, b = (_normalised_spectra(x, sample_rate) for x in _same_length(audio, target))
    return float(np.abs(np.cumsum(a - b, axis=1)).sum(1).mean() / a.shape[1])


def _normalised_spectra(audio: Audio, sample_rate: int) -> NDArray[np.float64]:
    with torch.no_grad():
        magnitude = spectral.stft_magnitude(
            _mono_row(audio), 50 * sample_rate // 1000, 20 * sample_rate // 1000
        )[0]
    spectra = magnitude.double().numpy()
    return spectra / np.maximum(spectra.sum(1, keepdims=True), 1e-6)


def rms_envelope(audio: Audio, sample_rate: int = 44100) -> NDArray[np.float32]:
    """RMS of centred 50 ms windows every 25 ms, [frames], linear."""
    size, hop = 50 * sample_rate // 1000, 25 * sample_rate // 1000
    padded = torch.nn.functional.pad(_mono_row(audio)[0], (size // 2, size // 2))
    return padded.unfold(0, size, hop).square().mean(1).sqrt().numpy()


def rms_cosine(audio: Audio, target: Audio, sample_rate: int = 44100) -> float:
    """Cosine between RMS envelopes, 0 ...

    1, higher is better; two silent sounds agree, silence and sound do not.
    """
    a, b = (rms_envelope(x, sample_rate).astype(np.float64) for x in _same_length(audio, target))
    lengths = np.linalg.norm(a), np.linalg.norm(b)
    return (
        float(a @ b / (lengths[0] * lengths[1]))
        if min(lengths) > 0.0
        else float(max(lengths) == 0.0)
    )


def level_mel_l1_db(audio: Audio, target: Audio, sample_rate: int = 44100) -> float:
    """Mean absolute difference of log-mel levels in dB, channel by channel, on the MSS scales.

    Hears gain and panning.

    Both sounds are cut 80 dB under the louder one's peak. Mono is compared with both channels of
    stereo.
    """
    pair = [
        torch.from_numpy(np.atleast_2d(x).astype(np.float32)) for x in _same_length(audio, target)
    ]
    with torch.no_grad():
        scales = zip(*(spectral.mel_powers(x, sample_rate) for x in pair), strict=True)
        return float(np.mean([_level_difference_db(a, b) for a, b in scales]))


def _level_difference_db(a: Tensor, b: Tensor) -> float:
    floor = max(float(a.max()), float(b.max()), torch.finfo(a.dtype).tiny * 1e8) * 1e-8
    return float(
        (10.0 * (torch.log10(a.clamp(min=floor)) - torch.log10(b.clamp(min=floor)))).abs().mean()
    )


def _mono(audio: Tensor) -> Tensor:
    return audio.mean(0) if audio.ndim == 2 else audio


def _mono_row(audio: Audio) -> Tensor:
    return _mono(torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32)))[None]


def _same_length(a: Audio, b: Audio) -> tuple[Audio, Audio]:
    n = max(a.shape[-1], b.shape[-1])
    first, second = (np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, n - x.shape[-1])]) for x in (a, b))
    return first, second
