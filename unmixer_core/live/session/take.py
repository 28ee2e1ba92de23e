"""One take: what to record, and how its sound file becomes a clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from unmixer_core.errors import RecordingError

TEMPO_BPM = 120.0
BEATS_PER_S = TEMPO_BPM / 60.0

#: float32 [2, samples].
Clip = NDArray[np.float32]


@dataclass(frozen=True)
class Take:
    """What to record.

    `sample_rate`: the file's expected rate in Hz; `clip_s`: length of the clip in seconds;
    `velocity`: MIDI velocity of the note.
    """

    sample_rate: int
    clip_s: float
    velocity: int = 100

    @property
    def samples(self) -> int:
        return round(self.clip_s * self.sample_rate)

    @property
    def beats(self) -> float:
        return self.clip_s * BEATS_PER_S


class FileNotReady(RecordingError):
    """The file is missing, locked or too short. It may be complete a moment later."""


def read_take(file: Path, take: Take, start_marker_s: float, offset_samples: int = 0) -> Clip:
    """Read a recording: float32 [2, take.samples] from the marker plus offset on.

    A mono file is doubled. Raises FileNotReady, and RecordingError for a wrong rate or number of
    channels.
    """
    try:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise FileNotReady(f"the recording {file} cannot be read ({error})") from error
    if rate != take.sample_rate:
        raise RecordingError(
            f"{file} has {rate} Hz, but {take.sample_rate} Hz is wanted: set it in Live's "
            f"Settings > Audio, or audio.sample_rate."
        )
    start = round(start_marker_s * rate) + offset_samples
    if start < 0 or len(samples) < start + take.samples:
        raise FileNotReady(
            f"{file} has {len(samples)} samples, but {take.samples} are wanted after a pre-roll "
            f"of {start}"
        )
    if samples.shape[1] not in (1, 2):
        raise RecordingError(
            f"{file} has {samples.shape[1]} channels, but a stereo recording is expected."
        )
    stereo = samples if samples.shape[1] == 2 else np.repeat(samples, 2, axis=1)
    return np.ascontiguousarray(stereo[start : start + take.samples].T)
