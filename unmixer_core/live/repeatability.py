"""How alike two takes of one patch are.

The noise floor below which no loss can tell a right patch from a wrong one.

Real Live repeats itself only nearly (free-running modulation, analogue-minded circuits); the
embedded host does exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unmixer_core.errors import HostError
from unmixer_core.live.host import RenderFailure
from unmixer_core.schema.patch import Patch

Clip = NDArray[np.float32]
#: What bit-equal takes are said to differ by.
FLOOR_DB = -200.0
#: Below this level, relative to the loudest bin, spectra are not compared: it is noise to the ear.
QUIETEST_DB = -80.0
WINDOWS = (256, 1024, 4096)


@dataclass(frozen=True)
class RenderDifference:
    """Two takes compared, all in dB.

    `residual` energy over energy, `level` of the second over the first, `spectral`: mean absolute
    difference of log magnitude spectra over three window lengths (a multi-scale spectral distance).
    """

    residual_db: float
    level_db: float
    spectral_db: float


class MapFunction(Protocol):
    """What renders: render.Renderer."""

    def map(self, patches: Sequence[Patch]) -> Iterator[tuple[int, Clip | RenderFailure]]: ...


def compare(first: Clip, second: Clip) -> RenderDifference:
    """Two takes, float32 [2, n] each."""
    return RenderDifference(
        residual_db(first, second),
        _decibels(_energy(second)) - _decibels(_energy(first)),
        float(np.mean([_spectral_db(first, second, window) for window in WINDOWS])),
    )


def worst(differences: Sequence[RenderDifference]) -> RenderDifference:
    """The largest of each kind."""
    return RenderDifference(
        max(d.residual_db for d in differences),
        max((d.level_db for d in differences), key=abs),
        max(d.spectral_db for d in differences),
    )


def measure(renderer: MapFunction, patches: Sequence[Patch]) -> RenderDifference:
    """Renders each patch twice; the worst difference.

    Raises HostError when no patch could be rendered twice.
    """
    takes: dict[int, list[Clip]] = {}
    for position, clip in renderer.map([*patches, *patches]):
        if not isinstance(clip, RenderFailure):
            takes.setdefault(position % len(patches), []).append(clip)
    pairs = [compare(*pair) for pair in takes.values() if len(pair) == 2]
    if not pairs:
        raise HostError(
            f"none of {len(patches)} patches could be rendered twice, so nobody knows how well "
            f"the host repeats itself."
        )
    return worst(pairs)


def residual_db(first: Clip, second: Clip) -> float:
    """Energy of the difference over the first's energy, in dB; FLOOR_DB when they are bit-equal."""
    difference = _energy(first.astype(np.float64) - second)
    if difference == 0.0:
        return FLOOR_DB
    return max(_decibels(difference) - _decibels(_energy(first)), FLOOR_DB)


def _energy(clip: NDArray[np.floating]) -> float:
    return float(np.square(clip, dtype=np.float64).sum())


def _decibels(energy: float) -> float:
    return 10.0 * float(np.log10(max(energy, 1e-20)))


def _spectral_db(first: Clip, second: Clip, window: int) -> float:
    a, b = (_magnitudes(clip, window) for clip in (first, second))
    floor = max(float(a.max()), float(b.max()), 1e-9) * 10.0 ** (QUIETEST_DB / 20.0)
    return float(np.mean(np.abs(20.0 * np.log10(np.maximum(a, floor) / np.maximum(b, floor)))))


def _magnitudes(clip: Clip, window: int) -> NDArray[np.floating]:
    """[2, frames, bins] of a Hann window at half overlap."""
    padded = np.pad(clip, ((0, 0), (0, max(0, window - clip.shape[1]))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window, axis=1)[:, :: window // 2]
    return np.abs(np.fft.rfft(frames * np.hanning(window), axis=-1))
