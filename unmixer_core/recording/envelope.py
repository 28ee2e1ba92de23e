"""Envelope of a recording: where a note begins, and when its key was released.

Onset: from the first loud frame back to where the sound rises out of the noise floor.
Release: the frame at which the levels of all bands of the spectrum bend downwards together. A decay
or a moving filter bends only a few bands, or bends them slowly.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

#: Seconds of a level frame: the resolution of the onset.
FRAME_S = 0.002
#: A frame above this level, relative to the peak, belongs to a note.
LOUD_DB = -30.0
#: A note begins no lower than this, relative to the peak.
QUIET_DB = -80.0
#: The floor lies this far above the quietest twentieth of the frames ...
ABOVE_NOISE_DB = 10.0
#: ... and at least this far below LOUD_DB.
BELOW_LOUD_DB = 6.0
#: Shorter gaps than this do not end a sound.
GAP_S = 0.06
#: Hop and window of the band levels in which a release is sought.
HOP_S = 0.01
WINDOW_S = 0.0232
BANDS = 12
#: The bend is the slope over this many frames before, against as many after.
BEND_FRAMES = 6
#: Levels further below the loudest are noise and are cut.
BAND_RANGE_DB = 50.0
#: One band counts at most this much, so that no single band decides.
MOST_DB = 12.0
#: Earlier bends belong to the attack.
EARLIEST_RELEASE_S = 0.08
#: Two candidates are at least this far apart.
RELEASES_APART_S = 0.08

Array = NDArray[np.float32]


def levels_db(samples: Array, rate: int) -> Array:
    """Return the RMS of each FRAME_S of [channel, time], channels summed, in dB.

    Relative to the loudest frame, not below -120.
    """
    size = max(1, round(FRAME_S * rate))
    n_frames = max(1, -(-samples.shape[1] // size))
    missing = max(0, n_frames * size - samples.shape[1])
    padded = np.pad(samples, [(0, 0), (0, missing)])[:, : n_frames * size].astype(np.float64)
    power = np.square(padded).sum(axis=0).reshape(n_frames, size).mean(axis=1)
    relative = power / max(power.max(), 1e-300)
    return (10.0 * np.log10(np.maximum(relative, 1e-12))).astype(np.float32)


def sounding(samples: Array, rate: int) -> list[tuple[float, float]]:
    """Return the stretches (start, end) in seconds that hold a loud frame, in order.

    They are apart by at least GAP_S of quiet. samples: [channel, time].
    """
    level_db = levels_db(samples, rate)
    noise_db = np.quantile(level_db, 0.05)
    floor_db = float(np.clip(noise_db + ABOVE_NOISE_DB, QUIET_DB, LOUD_DB - BELOW_LOUD_DB))
    above = np.flatnonzero(level_db > floor_db)
    if len(above) == 0:
        return []
    gaps = np.flatnonzero(np.diff(above) > GAP_S / FRAME_S)
    starts = above[np.r_[0, gaps + 1]]
    ends = above[np.r_[gaps, len(above) - 1]] + 1
    frame_s = max(1, round(FRAME_S * rate)) / rate
    length_s = samples.shape[1] / rate
    stretches = []
    for start, end in zip(starts, ends, strict=True):
        if (level_db[start:end] > LOUD_DB).any():
            stretches.append((float(start) * frame_s, min(float(end) * frame_s, length_s)))
    return stretches


def releases(mono: Array, rate: int, n: int) -> list[tuple[float, float]]:
    """Return at most n moments at which the key may have been released, sharpest bend first.

    Each is (seconds from the start of the note, bend in dB); they are apart by at least
    RELEASES_APART_S. An echo or a reverb bends the levels too, often more. mono: a note [time].
    """
    bands_db = _bands_db(mono, rate)
    width = BEND_FRAMES
    first = max(width, round(EARLIEST_RELEASE_S / HOP_S))
    last = len(bands_db) - width
    if last <= first:
        return []
    at = np.arange(first, last)
    fall_before_db = bands_db[at - width] - bands_db[at]
    fall_after_db = bands_db[at] - bands_db[at + width]
    bend_of_bands_db = fall_after_db - np.abs(fall_before_db)
    bend_db = np.clip(bend_of_bands_db, -MOST_DB / 2.0, MOST_DB).mean(axis=1)
    moments: list[tuple[float, float]] = []
    while len(moments) < n and bend_db.max() > 0.0:
        best = int(np.argmax(bend_db))
        moments.append((float(at[best]) * HOP_S, float(bend_db[best])))
        bend_db[np.abs(at - at[best]) * HOP_S < RELEASES_APART_S] = 0.0
    return moments


def _bands_db(mono: Array, rate: int) -> Array:
    """Smoothed levels [frames, BANDS] in dB, every HOP_S, cut BAND_RANGE_DB below the loudest."""
    size = round(WINDOW_S * rate)
    hop = round(HOP_S * rate)
    n_frames = max(1, len(mono) // hop)
    padded = np.pad(mono, (size // 2, size))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][:n_frames]
    window = np.hanning(size).astype(np.float32)
    power = np.square(np.abs(np.fft.rfft(frames * window, axis=1)))
    # from bin 2: the lowest two hold the constant part
    edges = np.unique(np.geomspace(2, power.shape[1], BANDS + 1).astype(int))
    band_power = np.stack([power[:, a:b].sum(axis=1) for a, b in pairwise(edges)], axis=1)
    level_db = 10.0 * np.log10(band_power + 1e-20)
    level_db = np.maximum(level_db, level_db.max() - BAND_RANGE_DB)
    # a Hann kernel of 5 frames; the two outermost values of 7 are zero
    kernel = np.hanning(7)[1:-1] / np.hanning(7)[1:-1].sum()
    padded_db = np.pad(level_db, [(2, 2), (0, 0)], mode="edge")
    smooth_db = [np.convolve(band_db, kernel, "valid") for band_db in padded_db.T]
    return np.stack(smooth_db, axis=1).astype(np.float32)
