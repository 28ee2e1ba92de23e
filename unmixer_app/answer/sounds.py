"""Sound files that are whole or not there, whatever lies in the folder already."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unmixer_core.recording import sound_file
from unmixer_core.system import files


def write(path: Path, clip: np.ndarray, rate: int, subtype: str | None = None) -> None:
    """Write float32 [channel, time] to `path`; the format follows its suffix.

    The temporary name cannot be guessed, so that no link in the folder can lead the write
    elsewhere. Raises AudioError when the format cannot hold it, OSError (naming `path`) when
    the file cannot be written.
    """
    try:
        with files.replacing(path) as temporary:
            sound_file.write(temporary, clip, rate, subtype)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
