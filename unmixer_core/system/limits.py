"""What keeps a re-render from the recording.

Where in time and frequency the two still differ, in a person's words.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BANDS_HZ = {
    "the lows, below 200 Hz": (20.0, 200.0),
    "the low mids, 200 to 800 Hz": (200.0, 800.0),
    "the mids, 800 Hz to 3 kHz": (800.0, 3000.0),
    "the highs, 3 to 8 kHz": (3000.0, 8000.0),
    "the air above 8 kHz": (8000.0, 18000.0),
}
ATTACK_S = 0.06
FLOOR_DB = -70.0
SIZE, HOP = 2048, 512
BINS_PER_OCTAVE = 6
#: Mean difference below which a person would call the sounds the same.
PLAIN_DB = 1.5
NOTABLE_DB = 3.0


def sentences(
    target: NDArray[np.float32], rerender: NDArray[np.float32], rate: int, gate_s: float
) -> list[str]:
    """target, rerender: [2, time] of one length at one level.

    The largest differences first; at most three sentences.
    """
    frames_s, hertz, wanted = _levels(target, rate)
    _, _, had = _levels(rerender, rate)
    gap = np.abs(wanted - had)
    heard = np.maximum(wanted, had) > FLOOR_DB
    if not heard.any() or gap[heard].mean() < PLAIN_DB:
        return ["Nothing that is left would be heard as a difference."]
    return [
        *_bands(gap, heard, wanted - had, hertz),
        *_times(gap, heard, frames_s, gate_s),
        *_width(target, rerender),
    ][:3]


def _levels(
    sound: NDArray[np.float32], rate: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Frame times in s [F], band centres in Hz [B], levels in dB below the sound's own loudest
    band [B, F].
    """
    mid = np.pad(sound.mean(axis=0, dtype=np.float64), (SIZE // 2, SIZE))
    frames = np.lib.stride_tricks.sliding_window_view(mid, SIZE)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(SIZE), axis=1)) ** 2
    edges = 40.0 * 2.0 ** (np.arange(0, 9 * BINS_PER_OCTAVE) / BINS_PER_OCTAVE)
    edges = edges[edges < min(18_000.0, rate / 2)]
    columns = np.maximum(np.searchsorted(np.fft.rfftfreq(SIZE, 1 / rate), edges), 1)
    starts = np.unique(columns)
    bands = np.add.reduceat(power, starts[:-1], axis=1)
    levels = 10.0 * np.log10(np.maximum(bands / max(float(bands.max()), 1e-20), 1e-9)).T
    centres = (starts[:-1] + np.diff(starts) / 2) * rate / SIZE
    return np.arange(len(frames)) * HOP / rate, centres, np.maximum(levels, FLOOR_DB - 10.0)


def _bands(gap: NDArray, heard: NDArray, signed: NDArray, hertz: NDArray) -> list[str]:
    """The band that holds the largest share of the difference, and in which direction."""
    total, found = float((gap * heard).sum()), []
    for name, (low, high) in BANDS_HZ.items():
        rows = (hertz >= low) & (hertz < high)
        if heard[rows].any():
            found.append(
                (
                    float((gap * heard)[rows].sum()) / total,
                    float(signed[rows][heard[rows]].mean()),
                    name,
                )
            )
    share, direction, name = max(found)
    which = (
        "too quiet" if direction > 1.0 else "too loud" if direction < -1.0 else "of another shape"
    )
    return [
        f"{100 * share:.0f} % of what is left lies in {name}, where the patch is {which} "
        f"({abs(direction):.0f} dB on average)."
    ]


def _times(gap: NDArray, heard: NDArray, frames_s: NDArray, gate_s: float) -> list[str]:
    """The part of the note that differs most, if it stands out."""
    parts = {
        "the attack (the first 60 ms)": frames_s < ATTACK_S,
        "the held note": (frames_s >= ATTACK_S) & (frames_s < gate_s),
        "the tail after the key is released": frames_s >= gate_s,
    }
    means = {
        name: float(gap[:, columns][heard[:, columns]].mean())
        for name, columns in parts.items()
        if heard[:, columns].any()
    }
    name = max(means, key=lambda part: means[part])
    if len(means) < 2 or means[name] < max(NOTABLE_DB, 1.25 * float(gap[heard].mean())):
        return []
    return [f"It differs most in {name}: {means[name]:.0f} dB on average."]


def _width(target: NDArray[np.float32], rerender: NDArray[np.float32]) -> list[str]:
    """Stereo: the share of energy at the sides, when it differs clearly.

    The distance (MSS) does not hear it.
    """
    wanted, had = (_side(sound) for sound in (target, rerender))
    if abs(wanted - had) < 0.15:
        return []
    return [
        f"The recording is {'wider' if wanted > had else 'narrower'} than the patch, which the "
        f"similarity does not count."
    ]


def _side(sound: NDArray[np.float32]) -> float:
    mid, side = (
        np.square(part, dtype=np.float64).mean()
        for part in (sound[0] + sound[1], sound[0] - sound[1])
    )
    return float(side / max(mid + side, 1e-20))
