"""Writing a recording: a stereo float32 WAV that appears under its name only when it is whole."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

IEEE_FLOAT = 3


def write(path: Path, audio: NDArray[np.float32], sample_rate: int) -> None:
    """audio: float32 [channels, samples].

    Writes beside `path`, then renames. Raises OSError, leaving nothing behind.
    """
    channels, samples = audio.shape
    data = np.ascontiguousarray(audio.T, dtype="<f4").tobytes()
    form = struct.pack(
        "<HHIIHHH",
        IEEE_FLOAT,
        channels,
        sample_rate,
        sample_rate * channels * 4,
        channels * 4,
        32,
        0,
    )
    chunks = (
        _chunk(b"fmt ", form) + _chunk(b"fact", struct.pack("<I", samples)) + _chunk(b"data", data)
    )
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(_chunk(b"RIFF", b"WAVE" + chunks))
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body
