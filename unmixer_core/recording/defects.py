"""Defects of a recording that mislead the search: offset, clipping, noise.

The search takes every property of the recording for a property of the synthesizer. So each defect
becomes a remark, one sentence for the person.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import welch

from unmixer_core import audio
from unmixer_core.errors import AudioError
from unmixer_core.recording import sound_file

#: -80 dBFS: nothing below this peak is a note.
SILENT_PEAK = 1e-4
#: Full scale is 1; a file with samples above this holds no audio.
ABSURD_PEAK = 1e6
#: A constant offset above this share of the peak is removed. A smaller one may belong to the sound.
OFFSET_SHARE = 0.05
#: Channels with a lower peak are not said to be clipped, whatever their shape.
CLIPPED_LOUD = 0.25
#: Samples from this share of the channel's peak on count as flat.
CLIPPED_FLAT = 0.9995
#: Flat samples in a row that make a run: two of them may be the top of a sine.
CLIPPED_RUN = 3
#: Runs per loud sample from which on the recording is clipped.
CLIPPED_SHARE = 0.002
#: A clipped channel has few different values at its extremes. This many are looked at ...
CLIPPED_LOOKED_AT = 1000
#: ... and fewer than this many are different.
CLIPPED_LEVELS = 20
#: A channel is clipped at full scale; below this peak a plateau is taken for the synthesizer's.
CLIPPED_PEAK = 0.95
#: Seconds of the block that is the quietest moment.
NOISE_BLOCK_S = 0.05
#: Fewer samples give no spectrum to judge.
NOISE_SAMPLES = 64
#: The noise lies between this and the next far below the loudest block. Closer, it is the note;
#: further, nobody hears it.
NOISE_CLOSEST_DB = 6.0
NOISE_FURTHEST_DB = 50.0
#: Flatness of the quietest block's spectrum (white: 1) from which on it is noise. Inside a note,
#: chorus and saturation look like noise, so only the quietest block is judged.
NOISE_FLATNESS = 0.2

Array = NDArray[np.float32]


def file_remarks(sound: sound_file.Sound) -> list[str]:
    """Return a remark for each part of the file that is not used."""
    remarks = []
    if sound.channels > 2:
        remarks.append(
            f"The file has {sound.channels} channels; the first two are taken for left and right."
        )
    if sound.longer:
        remarks.append(f"Only the first {sound_file.MAX_S:g} s of the file were read.")
    return remarks


def centred_stereo(sound: sound_file.Sound, path: Path) -> Array:
    """Return the sound without offset as two channels [2, time].

    Raises:
        AudioError: the file is silent, or its level is absurd.
    """
    samples = sound.samples
    silent = f"{sound_file.shown(path)} is silent"
    if sound.longer:
        silent += f" in its first {sound_file.MAX_S:g} s, and no more is read"
    loudest = audio.peak(samples)
    if loudest < SILENT_PEAK:
        raise AudioError(f"{silent}: nothing there is above -80 dBFS.")
    if loudest > ABSURD_PEAK:
        raise AudioError(
            f"{sound_file.shown(path)} holds samples up to {loudest:.1e}, but full scale is 1."
        )
    offset = np.median(samples, axis=1, keepdims=True)
    centred = samples - np.where(np.abs(offset) > OFFSET_SHARE * loudest, offset, 0.0)
    if audio.peak(centred) < SILENT_PEAK:
        raise AudioError(f"{silent}, but for a constant offset.")
    if len(centred) == 1:
        centred = np.repeat(centred, 2, axis=0)
    return centred.astype(np.float32)


def is_clipped(samples: Array) -> bool:
    """Return whether many loud samples stand in flat runs at the extremes of a channel.

    samples: [channel, time] as they are in the file.
    """
    return any(_channel_is_clipped(np.abs(channel)) for channel in samples)


def _channel_is_clipped(level: Array) -> bool:
    top = level.max()
    if top < CLIPPED_LOUD:
        return False
    flat = level >= CLIPPED_FLAT * top
    runs = np.convolve(flat, np.ones(CLIPPED_RUN), "valid") >= CLIPPED_RUN
    n_loud = max(1, int((level > 0.5 * top).sum()))
    n_levels = len(np.unique(np.round(level[flat][:CLIPPED_LOOKED_AT], 6)))
    if runs.sum() <= CLIPPED_SHARE * n_loud:
        return False
    return bool(n_levels < CLIPPED_LEVELS and top > CLIPPED_PEAK)


def noise_remark(samples: Array, rate: int) -> str | None:
    """Return a remark when the quietest moment of [channel, time] is broadband noise."""
    n = round(NOISE_BLOCK_S * rate)
    power = np.square(samples.astype(np.float64)).mean(axis=0)
    if n < NOISE_SAMPLES or len(power) < 2 * n:
        return None
    blocks = power[: len(power) // n * n].reshape(-1, n).mean(axis=1)
    quietest = int(blocks.argmin())
    below_db = 10.0 * np.log10(blocks.max() / max(blocks[quietest], 1e-30))
    block = samples[:, quietest * n : (quietest + 1) * n]
    if not NOISE_CLOSEST_DB < below_db < NOISE_FURTHEST_DB:
        return None
    if _flatness(block, rate) <= NOISE_FLATNESS:
        return None
    return (
        f"Noise {below_db:.0f} dB below the note runs through the recording; it will be taken "
        f"for the synth's."
    )


def _flatness(block: Array, rate: int) -> float:
    """Spectral flatness: geometric by arithmetic mean of the power density, 1 for white noise."""
    _, density = welch(block, rate, nperseg=min(512, block.shape[1]))
    # the outermost bins hold the constant part and the converter's filter
    bins = density.mean(axis=0)[2:-2] + 1e-30
    return float(np.exp(np.log(bins).mean()) / bins.mean())
