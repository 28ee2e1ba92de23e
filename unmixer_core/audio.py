"""Samples of a clip: sound files, resampling, loudness and peak level.

A clip is float32 [channel, time].
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from unmixer_core.errors import AudioError
from unmixer_core.system import files

Clip = NDArray[np.float32]
SILENCE_LUFS = -120.0


def read(path: Path) -> tuple[Clip, int]:
    """A sound file → (float32 [channel, time], rate in Hz).

    Raises AudioError when it cannot be decoded or is empty.
    """
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise AudioError(f"{path} cannot be read as audio ({error}).") from error
    if samples.size == 0 or not np.isfinite(samples).all():
        raise AudioError(
            f"{path} holds {'no samples' if samples.size == 0 else 'samples that are not numbers'}."
        )
    return np.ascontiguousarray(samples.T), int(rate)


def write(path: Path, clip: Clip, rate: int, subtype: str | None = None) -> None:
    """float32 [channel, time] → a file whose format follows its suffix.

    Written to a temporary name, then moved.
    """
    ending = path.suffix.lstrip(".").upper()
    with files.replacing(path) as temporary:
        soundfile.write(temporary, clip.T, rate, subtype=subtype, format=ending)


def resample(clip: Clip, rate_in: int, rate_out: int) -> Clip:
    """Polyphase resampling along the last axis (scipy); exact copy when the rates are equal."""
    if rate_in == rate_out:
        return clip.copy()
    from scipy.signal import resample_poly  # 1 s to import, and most processes never resample

    factor = gcd(rate_in, rate_out)
    return resample_poly(clip, rate_out // factor, rate_in // factor, axis=-1).astype(np.float32)


def fit_length(clip: Clip, samples: int) -> Clip:
    """[channel, time] cut or padded with silence to `samples`."""
    return np.pad(clip[:, :samples], [(0, 0), (0, max(0, samples - clip.shape[-1]))])


def loudness_lufs(clip: Clip, rate: int) -> float:
    """Integrated loudness (ITU-R BS.1770-4, by pyloudnorm) of [channel, time].

    SILENCE_LUFS for silence.
    """
    value = float(_meter(rate).integrated_loudness(clip.T.astype(np.float64)))
    return value if np.isfinite(value) else SILENCE_LUFS


@lru_cache(maxsize=4)
def _meter(rate: int) -> Any:
    import pyloudnorm

    return pyloudnorm.Meter(rate)


def peak(clip: Clip) -> float:
    """Largest absolute sample."""
    return float(np.abs(clip).max(initial=0.0))
