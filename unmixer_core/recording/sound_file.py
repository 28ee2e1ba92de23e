"""Sound files of strangers: read with limits, block by block, and refused in one sentence.

And written where they ask.

A header may claim anything, so nothing is allocated for what it claims: blocks are read until the
decoder has no more, or until `MAX_S` seconds. Only regular files are opened (a pipe would wait for
ever), and libsndfile is told no format: it recognises WAV, AIFF, FLAC, OGG and MP3 by content,
whatever the file is called. Files are opened here and not by libsndfile, which knows neither names
outside UTF-8 nor why a file cannot be written.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from unmixer_core.errors import AudioError
from unmixer_core.system import files

MAX_S = 60.0
MIN_RATE, MAX_RATE = 4000, 384_000
MAX_CHANNELS = 64
MAX_BYTES = 2 << 30
#: Samples read at a time, over all channels.
BLOCK_SAMPLES = 1 << 18
FORMATS = {"WAV", "WAVEX", "RF64", "AIFF", "FLAC", "OGG", "MP3", "W64", "CAF", "AU"}
#: What libsndfile says of an MP3 file that is there and that its decoder refuses.
NO_FILE = "File does not exist"
SUFFIXES = (
    ".wav",
    ".aif",
    ".aiff",
    ".flac",
    ".ogg",
    ".oga",
    ".opus",
    ".mp3",
    ".w64",
    ".caf",
    ".au",
)


@dataclass(frozen=True)
class Sound:
    """What a file holds: samples float32 [channel, time] (its first one or two channels), rate
    in Hz, channels in the file, and whether it went on after MAX_S seconds.
    """

    samples: NDArray[np.float32]
    rate: int
    channels: int
    longer: bool


def read(path: Path) -> Sound:
    """Decode a file's first two channels.

    Raises AudioError, one sentence, for everything that is no usable sound.
    """
    _regular(path)
    try:
        with (
            path.open("rb") as opened,
            _hushed(),
            soundfile.SoundFile(opened.fileno(), closefd=False) as file,
        ):
            _plausible(path, file)
            samples = _blocks(file)
            channels, rate = int(file.channels), int(file.samplerate)
    except (soundfile.SoundFileError, RuntimeError, OSError, ValueError, TypeError) as error:
        raise AudioError(f"{shown(path)} cannot be read as audio ({_reason(error)}).") from None
    limit = int(MAX_S * rate)
    if samples.shape[1] == 0:
        raise AudioError(f"{shown(path)} holds no samples.")
    if not np.isfinite(samples).all():
        raise AudioError(f"{shown(path)} holds samples that are not numbers; export it again.")
    return Sound(samples[:, :limit], rate, channels, samples.shape[1] > limit)


def write(path: Path, clip: NDArray[np.float32], rate: int, subtype: str | None = None) -> None:
    """float32 [channel, time] → a file whose format follows its suffix.

    Written to a temporary name, then moved. Raises AudioError when the format cannot hold it,
    OSError when the file cannot be written.
    """
    encoded = io.BytesIO()
    try:
        soundfile.write(
            encoded, clip.T, rate, subtype=subtype, format=path.suffix.lstrip(".").upper()
        )
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
        raise AudioError(f"{shown(path)} cannot be written as audio ({_reason(error)}).") from None
    try:
        files.write_bytes(path, encoded.getvalue())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextmanager
def _hushed() -> Iterator[None]:
    """What C code writes to standard error goes nowhere.

    MP3's decoder warns there of every bad frame.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _regular(path: Path) -> None:
    try:
        about = os.stat(path)
    except (OSError, ValueError) as error:
        raise AudioError(f"{shown(path)} cannot be opened ({_reason(error)}).") from None
    if not stat.S_ISREG(about.st_mode):
        raise AudioError(f"{shown(path)} is no file but a {_kind(about.st_mode)}.")
    if about.st_size == 0:
        raise AudioError(f"{shown(path)} is empty.")
    if about.st_size > MAX_BYTES:
        raise AudioError(
            f"{shown(path)} has {about.st_size >> 20} MiB, more than the {MAX_BYTES >> 20} that "
            f"are read."
        )


def _kind(mode: int) -> str:
    kinds = {stat.S_ISDIR: "folder", stat.S_ISFIFO: "pipe", stat.S_ISSOCK: "socket"}
    return next((word for test, word in kinds.items() if test(mode)), "device")


def _plausible(path: Path, file: soundfile.SoundFile) -> None:
    if file.format not in FORMATS:
        raise AudioError(
            f"{shown(path)} is of the format {file.format}; WAV, AIFF, FLAC, OGG and MP3 are read."
        )
    if not MIN_RATE <= file.samplerate <= MAX_RATE:
        raise AudioError(
            f"{shown(path)} claims {file.samplerate} Hz; {MIN_RATE} to {MAX_RATE} Hz are read."
        )
    if not 1 <= file.channels <= MAX_CHANNELS:
        raise AudioError(
            f"{shown(path)} claims {file.channels} channels; 1 to {MAX_CHANNELS} are read."
        )


def _blocks(file: soundfile.SoundFile) -> NDArray[np.float32]:
    """The first two channels [channel, time], up to one block beyond MAX_S."""
    size, wanted = max(1, BLOCK_SAMPLES // file.channels), int(MAX_S * file.samplerate)
    parts, total = [np.zeros((0, min(2, file.channels)), dtype=np.float32)], 0
    while total <= wanted:
        block = file.read(size, dtype="float32", always_2d=True)
        if len(block) == 0:
            break
        parts.append(block[:, :2].copy())
        total += len(block)
    return np.ascontiguousarray(np.concatenate(parts).T)


def shown(path: Path) -> str:
    """A path on one line, cut to what a person can read."""
    text = "".join(c if c.isprintable() else "?" for c in str(path))
    return text if len(text) <= 200 else f"...{text[-197:]}"


def _reason(error: BaseException) -> str:
    text = str(getattr(error, "error_string", "") or getattr(error, "strerror", "") or error)
    line = " ".join(text.split()).rstrip(".")
    if line.startswith(NO_FILE):
        return "its content is damaged"
    return line if len(line) <= 160 else f"{line[:157]}..."
