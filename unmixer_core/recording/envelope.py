"""Where in a recording a note begins, and when its key was let go.

Onset: from the first loud frame back to where the sound rises out of what was there before.
Release: the frame at which the levels of the spectrum's bands bend downwards most, all together (a
decay or a moving filter bends a few, or slowly).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

FRAME_S = 0.002
#: Relative to the peak: a frame above LOUD_DB belongs to a note, the note began where it came above
#: QUIET_DB.
LOUD_DB, QUIET_DB = -30.0, -80.0
GAP_S = 0.06
HOP_S, WINDOW_S = 0.01, 0.0232
BANDS = 12
BEND_FRAMES = 6
BAND_RANGE_DB = 50.0
MOST_DB = 12.0
EARLIEST_RELEASE_S = 0.08
RELEASES_APART_S = 0.08

Array = NDArray[np.float32]


def levels_db(samples: Array, rate: int) -> Array:
    """RMS of each FRAME_S of [channel, time], channels summed, in dB relative to the loudest
    frame, not below -120.
    """
    size = max(1, round(FRAME_S * rate))
    n = max(1, -(-samples.shape[1] // size))
    padded = np.pad(samples, [(0, 0), (0, max(0, n * size - samples.shape[1]))])[
        :, : n * size
    ].astype(np.float64)
    power = np.square(padded).sum(axis=0).reshape(n, size).mean(axis=1)
    return (10.0 * np.log10(np.maximum(power / max(power.max(), 1e-300), 1e-12))).astype(np.float32)


def sounding(samples: Array, rate: int) -> list[tuple[float, float]]:
    """Stretches (start, end) in seconds that hold a loud frame, apart by at least GAP_S of
    quiet, in order.
    """
    level = levels_db(samples, rate)
    floor = float(np.clip(np.quantile(level, 0.05) + 10.0, QUIET_DB, LOUD_DB - 6.0))
    heard = np.flatnonzero(level > floor)
    if len(heard) == 0:
        return []
    gaps = np.flatnonzero(np.diff(heard) > GAP_S / FRAME_S)
    starts, ends = heard[np.r_[0, gaps + 1]], heard[np.r_[gaps, len(heard) - 1]] + 1
    loud = [bool((level[a:b] > LOUD_DB).any()) for a, b in zip(starts, ends, strict=True)]
    kept = [(a, b) for a, b, yes in zip(starts, ends, loud, strict=True) if yes]
    frame_s = max(1, round(FRAME_S * rate)) / rate
    return [(float(a) * frame_s, min(float(b) * frame_s, samples.shape[1] / rate)) for a, b in kept]


def releases(mono: Array, rate: int, n: int) -> list[tuple[float, float]]:
    """When the key may have been let go, seconds from the start of a note [time], and how sharp
    each bend is in dB: at most n, sharpest first, apart by at least RELEASES_APART_S. An echo or
    a reverb bends the levels too, often more.
    """
    bands = _bands_db(mono, rate)
    w = BEND_FRAMES
    first, last = max(w, round(EARLIEST_RELEASE_S / HOP_S)), len(bands) - w
    if last <= first:
        return []
    at = np.arange(first, last)
    before, after = bands[at - w] - bands[at], bands[at] - bands[at + w]
    bend = np.clip(after - np.abs(before), -MOST_DB / 2.0, MOST_DB).mean(axis=1)
    found: list[tuple[float, float]] = []
    while len(found) < n and bend.max() > 0.0:
        best = int(np.argmax(bend))
        found.append((float(at[best]) * HOP_S, float(bend[best])))
        bend[np.abs(at - at[best]) * HOP_S < RELEASES_APART_S] = 0.0
    return found


def _bands_db(mono: Array, rate: int) -> Array:
    """Smoothed levels [frames, BANDS] in dB, every HOP_S, cut BAND_RANGE_DB below the loudest."""
    size, hop = round(WINDOW_S * rate), round(HOP_S * rate)
    padded = np.pad(mono, (size // 2, size))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][
        : max(1, len(mono) // hop)
    ]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(size).astype(np.float32), axis=1)))
    edges = np.unique(np.geomspace(2, power.shape[1], BANDS + 1).astype(int))
    summed = np.stack([power[:, a:b].sum(axis=1) for a, b in pairwise(edges)], axis=1)
    level = 10.0 * np.log10(summed + 1e-20)
    level = np.maximum(level, level.max() - BAND_RANGE_DB)
    kernel = np.hanning(7)[1:-1] / np.hanning(7)[1:-1].sum()
    ends = np.pad(level, [(2, 2), (0, 0)], mode="edge")
    return np.stack([np.convolve(column, kernel, "valid") for column in ends.T], axis=1).astype(
        np.float32
    )
