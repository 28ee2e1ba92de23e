"""200 inputs that a person, a broken disk or an attacker may hand to `unmix`."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile

RATE = 44100
Maker = Callable[[Path], None]


def tone(
    seconds: float = 0.5, note: float = 57.0, rate: int = RATE, channels: int = 1
) -> np.ndarray:
    """A decaying sawtooth-like note, float32 [time, channel]."""
    t = np.arange(int(seconds * rate)) / rate
    hertz = 440.0 * 2.0 ** ((note - 69.0) / 12.0)
    top = max(2, min(20, int(0.45 * rate / hertz)))
    wave = (
        sum(np.sin(2 * np.pi * hertz * h * t) / h for h in range(1, top)) * np.exp(-2.0 * t) * 0.4
    )
    return np.repeat(np.asarray(wave, dtype=np.float32)[:, None], channels, axis=1)


def encoded(
    samples: np.ndarray, format: str = "WAV", subtype: str | None = None, rate: int = RATE
) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
    return buffer.getvalue()


def wav(
    data: bytes,
    *,
    rate: int = RATE,
    channels: int = 1,
    bits: int = 16,
    code: int = 1,
    claimed: int | None = None,
    block: int | None = None,
) -> bytes:
    """A WAV file whose header says what it is told to."""
    claimed = len(data) if claimed is None else claimed
    block = channels * bits // 8 if block is None else block
    form = struct.pack(
        "<HHIIHH", code, channels, rate, (rate * block) & 0xFFFFFFFF, block & 0xFFFF, bits
    )
    riff = (36 + claimed) & 0xFFFFFFFF
    return (
        b"RIFF"
        + struct.pack("<I", riff)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + b"data"
        + struct.pack("<I", claimed & 0xFFFFFFFF)
        + data
    )


def pcm(samples: np.ndarray) -> bytes:
    return np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def written(data: bytes) -> Maker:
    return lambda path: path.write_bytes(data)  # type: ignore[return-value]


def cases() -> Iterator[tuple[str, Maker]]:
    """(file name, what puts it there): 200 of them."""
    yield from _headers()
    yield from _contents()
    yield from _places()
    yield from _names()
    yield from _fuzzed(111)


def _headers() -> Iterator[tuple[str, Maker]]:
    sound = pcm(tone())
    for rate in (
        0,
        1,
        7,
        100,
        3999,
        4000,
        8000,
        11025,
        44099,
        96000,
        192000,
        384000,
        384001,
        2**31,
        2**32 - 1,
    ):
        yield f"rate-{rate}.wav", written(wav(sound, rate=rate))
    for channels in (0, 2, 3, 6, 8, 64, 65, 255, 1024, 65535):
        yield f"channels-{channels}.wav", written(wav(sound, channels=channels))
    for bits in (0, 1, 7, 8, 24, 32, 64, 65535):
        yield f"bits-{bits}.wav", written(wav(sound, bits=bits))
    for claimed in (0, 1, len(sound) * 2, 10 * 10**9, 2**32 - 1, 2**31):
        yield f"claims-{claimed}.wav", written(wav(sound, claimed=claimed))
    for code in (0, 2, 3, 6, 7, 17, 49, 0x55, 0xFFFE, 0xFFFF):
        yield f"code-{code}.wav", written(wav(sound, code=code))


def _contents() -> Iterator[tuple[str, Maker]]:
    def floats(values: np.ndarray) -> Maker:
        return written(wav(values.astype("<f4").tobytes(), bits=32, code=3))

    good = tone()[:, 0]
    bad = good.copy()
    bad[1000] = np.nan
    yield "nan.wav", floats(bad)
    yield "all-nan.wav", floats(np.full(4000, np.nan))
    yield "inf.wav", floats(np.where(np.arange(len(good)) == 9, np.inf, good))
    yield "minus-inf.wav", floats(np.where(np.arange(len(good)) == 9, -np.inf, good))
    yield "huge.wav", floats(good * 1e30)
    yield "largest.wav", floats(np.sign(good) * 3.4e38)
    yield "loud.wav", floats(good * 50)
    yield "tiny.wav", floats(good * 1e-9)
    yield "denormal.wav", floats(good * 1e-40)
    yield "silence.wav", floats(np.zeros(RATE))
    yield "offset.wav", floats(np.full(RATE, 0.5))
    yield "click.wav", floats(np.eye(1, RATE, 500)[0])
    yield "one-sample.wav", floats(np.ones(1))
    yield "two-samples.wav", floats(np.array([0.5, -0.5]))
    yield "ten-samples.wav", floats(good[:10])
    yield "no-samples.wav", floats(np.zeros(0))
    yield "noise.wav", floats(np.random.default_rng(0).normal(size=RATE) * 0.1)
    yield "clipped.wav", floats(np.clip(good * 20, -1, 1))
    yield "square-dc.wav", floats(np.clip(good * 20, -1, 1) + 0.5)
    yield "backwards.wav", floats(good[::-1])
    for kind, subtype in (
        ("WAV", "PCM_U8"),
        ("WAV", "DOUBLE"),
        ("AIFF", "PCM_24"),
        ("FLAC", "PCM_16"),
    ):
        yield f"good-{subtype}.{kind.lower()}", written(encoded(tone(), kind, subtype))
    for kind in ("OGG", "MP3"):
        yield f"good.{kind.lower()}", written(encoded(tone(), kind))


def _places() -> Iterator[tuple[str, Maker]]:
    yield "missing.wav", lambda path: None
    yield "folder.wav", lambda path: path.mkdir()
    yield "pipe.wav", lambda path: os.mkfifo(path)
    yield "dangling.wav", lambda path: path.symlink_to(path.with_name("nowhere"))
    yield "loop.wav", lambda path: path.symlink_to(path)
    yield "device.wav", lambda path: path.symlink_to("/dev/zero")
    yield "null.wav", lambda path: path.symlink_to("/dev/null")

    def forbidden(path: Path) -> None:
        path.write_bytes(encoded(tone()))
        path.chmod(0)

    def sparse(path: Path) -> None:
        with path.open("wb") as file:
            file.write(wav(b"", claimed=2**32 - 1))
            file.truncate(10 * 10**9)

    yield "forbidden.wav", forbidden
    yield "ten-gigabytes.wav", sparse


def _names() -> Iterator[tuple[str, Maker]]:
    yield "line\nbreak.wav", written(b"no sound")
    yield "escape\x1b[31m.wav", written(b"no sound")
    yield "flac-called.mp3", written(encoded(tone(), "FLAC"))
    yield "wav-called.txt", written(encoded(tone()))
    yield "text.wav", written(b"hello, I am a sound\n" * 100)


def _fuzzed(n: int) -> Iterator[tuple[str, Maker]]:
    """Good files of every format with bytes changed, cut off, or repeated, from a seed."""
    rng = np.random.default_rng(6)
    formats = [
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("AIFF", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("MP3", None),
    ]
    sources = [(kind, encoded(tone(0.3), kind, subtype)) for kind, subtype in formats]
    for i in range(n):
        kind, data = sources[i % len(sources)]
        changed = bytearray(data)
        region = (64, len(changed), 400)[i % 3]
        for _ in range(int(rng.integers(1, 12))):
            changed[int(rng.integers(0, min(region, len(changed))))] = int(rng.integers(0, 256))
        if i % 4 == 3:
            changed = changed[: int(rng.integers(1, len(changed)))]
        if i % 7 == 6:
            changed = changed + changed
        yield f"fuzzed-{i}.{kind.lower()}", written(bytes(changed))
