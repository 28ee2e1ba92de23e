"""Untrusted sound files: read with limits, refused in one sentence; and written.

A header may claim anything, so no memory is allocated for its claims: blocks are read until the
decoder has no more, or until `MAX_S` seconds. Only regular files are opened, because a pipe would
wait for ever. libsndfile gets no format: it recognises WAV, AIFF, FLAC, OGG and MP3 by content,
whatever the name says. Python opens the files and not libsndfile, which knows neither names outside
UTF-8 nor why a file cannot be written.
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

#: Seconds that are read of a file: enough for a note with silence before it.
MAX_S = 60.0
#: Sample rates in Hz. Below, a pitch cannot be read; above, a header is wrong.
MIN_RATE = 4000
MAX_RATE = 384_000
MAX_CHANNELS = 64
#: 2 GiB: three hours of 16-bit stereo at 44.1 kHz.
MAX_BYTES = 2 << 30
#: Samples read at a time, over all channels: 1 MiB of float32.
BLOCK_SAMPLES = 1 << 18
#: libsndfile's names of the formats that are read. It knows more, raw ones among them.
FORMATS = {"WAV", "WAVEX", "RF64", "AIFF", "FLAC", "OGG", "MP3", "W64", "CAF", "AU"}
#: libsndfile's words for an MP3 file that exists and that its decoder refuses.
NO_FILE = "File does not exist"
#: The longest path and the longest reason that a sentence holds.
LONGEST_PATH = 200
LONGEST_REASON = 160
#: Suffixes of the files that a batch takes from a folder.
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
    """The content of a file.

    samples: float32 [channel, time], its first one or two channels. rate: Hz. channels: how many
    the file has. longer: whether it goes on after MAX_S seconds.
    """

    samples: NDArray[np.float32]
    rate: int
    channels: int
    longer: bool


def read(path: Path) -> Sound:
    """Decode a file's first two channels.

    Raises:
        AudioError: in one sentence, for everything that is no usable sound.
    """
    _check_regular(path)
    try:
        with (
            path.open("rb") as opened,
            _stderr_silenced(),
            soundfile.SoundFile(opened.fileno(), closefd=False) as file,
        ):
            _check_header(path, file)
            samples = _read_blocks(file)
            channels = int(file.channels)
            rate = int(file.samplerate)
    except (soundfile.SoundFileError, RuntimeError, OSError, ValueError, TypeError) as error:
        raise AudioError(f"{shown(path)} cannot be read as audio ({_reason(error)}).") from None
    limit = int(MAX_S * rate)
    if samples.shape[1] == 0:
        raise AudioError(f"{shown(path)} holds no samples.")
    if not np.isfinite(samples).all():
        raise AudioError(f"{shown(path)} holds samples that are not numbers; export it again.")
    return Sound(samples[:, :limit], rate, channels, samples.shape[1] > limit)


def write(path: Path, clip: NDArray[np.float32], rate: int, subtype: str | None = None) -> None:
    """Write float32 [channel, time] as a file whose format follows its suffix.

    subtype: libsndfile's sample format, such as "PCM_24".

    Raises:
        AudioError: the format cannot hold the clip.
        OSError: the file cannot be written.
    """
    encoded = io.BytesIO()
    file_format = path.suffix.lstrip(".").upper()
    try:
        soundfile.write(encoded, clip.T, rate, subtype=subtype, format=file_format)
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
        raise AudioError(f"{shown(path)} cannot be written as audio ({_reason(error)}).") from None
    try:
        with files.replacing(path) as temporary:
            temporary.write_bytes(encoded.getbuffer())
    except OSError as error:
        # the error of a full disk names no file, others name the temporary one
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextmanager
def _stderr_silenced() -> Iterator[None]:
    """Discard what C code writes to standard error: the MP3 decoder warns of every bad frame."""
    sys.stderr.flush()
    # Python's sys.stderr does not reach C code, so the file descriptor is replaced
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _check_regular(path: Path) -> None:
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise AudioError(f"{shown(path)} cannot be opened ({_reason(error)}).") from None
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(f"{shown(path)} is no file but a {_kind(status.st_mode)}.")
    if status.st_size == 0:
        raise AudioError(f"{shown(path)} is empty.")
    if status.st_size > MAX_BYTES:
        raise AudioError(
            f"{shown(path)} has {status.st_size >> 20} MiB, more than the {MAX_BYTES >> 20} that "
            f"are read."
        )


def _kind(mode: int) -> str:
    kinds = {stat.S_ISDIR: "folder", stat.S_ISFIFO: "pipe", stat.S_ISSOCK: "socket"}
    return next((word for test, word in kinds.items() if test(mode)), "device")


def _check_header(path: Path, file: soundfile.SoundFile) -> None:
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


def _read_blocks(file: soundfile.SoundFile) -> NDArray[np.float32]:
    """The first two channels [channel, time], up to one block beyond MAX_S."""
    size = max(1, BLOCK_SAMPLES // file.channels)
    wanted = int(MAX_S * file.samplerate)
    # an empty part, so that a file without samples has a shape
    parts = [np.zeros((0, min(2, file.channels)), dtype=np.float32)]
    total = 0
    while total <= wanted:
        block = file.read(size, dtype="float32", always_2d=True)
        if len(block) == 0:
            break
        parts.append(block[:, :2].copy())
        total += len(block)
    return np.ascontiguousarray(np.concatenate(parts).T)


def shown(path: Path) -> str:
    """Return a path on one line, cut to what a person can read."""
    text = "".join(c if c.isprintable() else "?" for c in str(path))
    if len(text) <= LONGEST_PATH:
        return text
    # the end of a path says more than its beginning
    return f"...{text[3 - LONGEST_PATH :]}"


def _reason(error: BaseException) -> str:
    # libsndfile's words, else the operating system's, else whatever the error says
    text = str(getattr(error, "error_string", "") or getattr(error, "strerror", "") or error)
    line = " ".join(text.split()).rstrip(".")
    if line.startswith(NO_FILE):
        return "its content is damaged"
    if len(line) <= LONGEST_REASON:
        return line
    return f"{line[: LONGEST_REASON - 3]}..."
