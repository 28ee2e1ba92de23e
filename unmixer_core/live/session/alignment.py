"""How late a host sounds: a click is recorded, and where it begins is compared with where the
embedded host begins.

Live's takes come late by buffers, latency compensation and look-ahead, and nothing says by how
much. The embedded host is sample-exact, so its click is the reference, and its own offset is 0 by
definition.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unmixer_core.errors import RecordingError
from unmixer_core.schema.patch import Patch

#: A short note of Wavetable's defaults with the fastest attack that is learned (0.8 ms).
CLICK = Patch.init(note=72, gate_s=0.05).with_values(
    {"wavetable.amp_attack": 0.0, "wavetable.amp_decay": 0.0, "wavetable.amp_release": 0.0}
)
#: The click begins where it first reaches this part of its peak.
RISE = 0.25
#: Where that is in the embedded host's take.
REFERENCE_S = 4.6e-4
#: Differences below this are the onset's own uncertainty, not an offset.
JITTER_S = 1e-4
EARLY_S, LATEST_S = 0.05, 0.5


def onset_offset(clip: NDArray[np.float32], sample_rate: int) -> int | None:
    """Samples by which the click in `clip` [2, n] comes later than the embedded host's.

    None when it begins too early to see.

    Raises RecordingError when nothing sounds.
    """
    level = np.abs(clip).max(axis=0)
    if not level.max() > 1e-4:
        raise RecordingError(
            "the calibration click is silent: is the lane routed to its capture track, and "
            "Wavetable on?"
        )
    onset = int(np.argmax(level >= RISE * level.max()))
    offset = onset - round(REFERENCE_S * sample_rate)
    if onset == 0:
        return None
    return 0 if abs(offset) <= JITTER_S * sample_rate else offset
