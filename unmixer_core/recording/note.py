"""A recording → what the un-mixer listens to.

Its first note, aligned as the host renders it, with what was noticed.

The host plays a note at time 0 into a clip of `clip_s`; so the recording is cut there, brought to
the clip's rate, and its note and gate are estimated where they are not given. Everything that may
mislead the answer becomes a remark; what cannot be answered at all is refused (AudioError).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import welch

from unmixer_core import audio
from unmixer_core.errors import AudioError
from unmixer_core.recording import envelope, pitch, sound_file

SILENT_PEAK = 1e-4
#: Constant part, relative to the peak, above which it is taken out.
OFFSET = 0.05
SHORTEST_S, SHORT_S = 0.02, 0.15
N_GATES = 4
CLIPPED_RUN, CLIPPED_SHARE = 3, 0.002
#: Salience of what is left without the note, and of another note beside it, above which more than
#: one note seems to sound: 8 % of single rendered notes with one oscillator exceed one of them, 22
#: % of those with a second oscillator.
POLYPHONIC, RIVAL = 0.2, 0.6
CHANGE_ST, CHANGE_FRAMES = 0.8, 5
#: Times TONAL: salience of a pitch that is beyond doubt. Share of the best's salience below which
#: another note is none of it: single tones have less than 0.2 of one a semitone to a fifth away.
SURE, UNLIKE = 4.0, 0.3
#: Salience a candidate loses per octave outside the notes the model was trained on.
OUTSIDE = 0.2
#: Seconds of the quietest moment, how far it lies below the loudest, and from which flatness of its
#: spectrum (white: 1) on it is the recording's noise. Inside a note chorus and saturation look like
#: noise, so nothing is said of it there.
HISS_S, HISS_DB, HISS_FLAT = 0.05, (6.0, 50.0), 0.2
SETTLED_S = 0.05
PITCH_S = 0.6
FADE_S = 0.005

Array = NDArray[np.float32]


@dataclass(frozen=True)
class RecordedNote:
    """A note to be un-mixed: clip float32 [2, samples] at `rate`, from its onset.

    Its note (MIDI) and gate; the notes it may be, best first; remarks, one sentence each; facts
    about the file; what a person told ("note", "gate_s"), which then stays; and the gates it may
    be, best first (none: that one).
    """

    clip: Array
    rate: int
    note: int
    gate_s: float
    notes: tuple[int, ...]
    remarks: tuple[str, ...]
    about: dict[str, Any] = field(default_factory=dict)
    told: tuple[str, ...] = ()
    gates_s: tuple[float, ...] = ()


def detect_note(
    path: Path,
    *,
    rate: int,
    clip_s: float,
    note_range: tuple[int, int],
    note: int | None = None,
    gate_s: float | None = None,
) -> RecordedNote:
    """The first note of a file. `note_range`: the notes the model knows.

    Raises AudioError when there is none to be had.
    """
    sound = sound_file.read(path)
    remarks = _about_file(sound)
    samples, clipped = _levelled(sound, path)
    if clipped:
        remarks.append("The recording is clipped: its distortion will be taken for the synth's.")
    start_s, end_s = _first(samples, sound, path, remarks)
    _hiss(samples, sound.rate, remarks)
    clip, more = _clip(samples, sound.rate, start_s, end_s, rate, clip_s)
    if more:
        remarks.append(f"The sound goes on after {clip_s:g} s; only that much of it is compared.")
    if end_s - start_s < SHORT_S:
        remarks.append(
            f"The sound lasts {1000 * (end_s - start_s):.0f} ms: too short to tell most knobs."
        )
    candidates = _notes(clip, rate, note_range, note, remarks)
    clip = _first_pitch(clip, rate, remarks)
    gates_s = (
        _gates(clip, rate, min(end_s - start_s, clip_s)) if gate_s is None else [float(gate_s)]
    )
    about = {
        "file": sound_file.shown(path),
        "rate_hz": sound.rate,
        "channels": sound.channels,
        "start_s": round(start_s, 4),
        "peak_db": round(20.0 * float(np.log10(max(audio.peak(sound.samples), 1e-30))), 2),
        "loudness_lufs": round(_loudness(clip, rate), 2),
    }
    told = tuple(name for name, value in (("note", note), ("gate_s", gate_s)) if value is not None)
    gates = tuple(round(gate, 3) for gate in gates_s)
    return RecordedNote(
        clip, rate, candidates[0], gates[0], tuple(candidates), tuple(remarks), about, told, gates
    )


def _about_file(sound: sound_file.Sound) -> list[str]:
    remarks = []
    if sound.channels > 2:
        remarks.append(
            f"The file has {sound.channels} channels; the first two are taken for left and right."
        )
    if sound.longer:
        remarks.append(f"Only the first {sound_file.MAX_S:g} s of the file were read.")
    return remarks


def _levelled(sound: sound_file.Sound, path: Path) -> tuple[Array, bool]:
    """Without offset, two channels; and whether the recording is clipped.

    Refuses silence and absurd levels.
    """
    samples, silent = sound.samples, f"{sound_file.shown(path)} is silent"
    if sound.longer:
        silent += f" in its first {sound_file.MAX_S:g} s, and no more is read"
    loudest = audio.peak(samples)
    if loudest < SILENT_PEAK:
        raise AudioError(f"{silent}: nothing there is above -80 dBFS.")
    if loudest > 1e6:
        raise AudioError(
            f"{sound_file.shown(path)} holds samples up to {loudest:.1e}, but full scale is 1."
        )
    offset = np.median(samples, axis=1, keepdims=True)
    centred = samples - np.where(np.abs(offset) > OFFSET * loudest, offset, 0.0)
    if audio.peak(centred) < SILENT_PEAK:
        raise AudioError(f"{silent}, but for a constant offset.")
    stereo = centred if len(centred) == 2 else np.repeat(centred, 2, axis=0)
    return stereo.astype(np.float32), _clipped(samples)


def _clipped(samples: Array) -> bool:
    """True when a noticeable share of the loud samples stands in flat runs at the extremes of a
    channel.
    """
    for channel in samples:
        top = np.abs(channel).max()
        if top < 0.25:
            continue
        flat = np.abs(channel) >= 0.9995 * top
        runs = np.convolve(flat, np.ones(CLIPPED_RUN), "valid") >= CLIPPED_RUN
        levels = len(np.unique(np.round(channel[flat][:1000], 6)))
        if (
            runs.sum() > CLIPPED_SHARE * max(1, int((np.abs(channel) > 0.5 * top).sum()))
            and levels < 20
            and top > 0.95
        ):
            return True
    return False


def _first(
    samples: Array, sound: sound_file.Sound, path: Path, remarks: list[str]
) -> tuple[float, float]:
    """Start and end in seconds of the first note; others are named."""
    stretches = envelope.sounding(samples, sound.rate)
    stretches = [s for s in stretches if s[1] - s[0] >= SHORTEST_S / 2] or stretches[:1]
    if not stretches or stretches[-1][1] - stretches[0][0] < SHORTEST_S:
        raise AudioError(
            f"{sound_file.shown(path)} sounds for less than {1000 * SHORTEST_S:.0f} ms: nothing "
            f"to un-mix."
        )
    start_s, end_s = stretches[0]
    others = [s for s in stretches[1:] if _another(samples, sound.rate, stretches[0], s)]
    if others:
        after = [s for s in stretches if s[0] < others[0][0]]
        end_s = after[-1][1]
        times = ", ".join(f"{s[0]:.2f}" for s in others[:8]) + (" ..." if len(others) > 8 else "")
        more = f"{len(others)} more sound{'s' if len(others) > 1 else ''} (at {times} s)"
        remarks.append(f"The first note, at {start_s:.2f} s, is used; {more} left out.")
    else:
        end_s = stretches[-1][1]
    return start_s, end_s


def _hiss(samples: Array, rate: int, remarks: list[str]) -> None:
    """A remark when the quietest moment of the recording is broadband noise.

    Before, after or between what sounds.
    """
    n = round(HISS_S * rate)
    power = np.square(samples.astype(np.float64)).mean(axis=0)
    if n < 64 or len(power) < 2 * n:
        return
    blocks = power[: len(power) // n * n].reshape(-1, n).mean(axis=1)
    quietest = int(blocks.argmin())
    below_db = 10.0 * np.log10(blocks.max() / max(blocks[quietest], 1e-30))
    _, density = welch(samples[:, quietest * n : (quietest + 1) * n], rate, nperseg=min(512, n))
    bins = density.mean(axis=0)[2:-2] + 1e-30
    if HISS_DB[0] < below_db < HISS_DB[1] and np.exp(np.log(bins).mean()) / bins.mean() > HISS_FLAT:
        remarks.append(
            f"Noise {below_db:.0f} dB below the note runs through the recording; it will be taken "
            f"for the synth's."
        )


def _another(
    samples: Array, rate: int, first: tuple[float, float], other: tuple[float, float]
) -> bool:
    """Whether a later stretch is a note of its own and no echo.

    An echo is quieter and has the note's pitch.
    """
    before, after = (samples[:, round(a * rate) : round(b * rate)] for a, b in (first, other))
    return audio.peak(after) > 0.7 * audio.peak(before) or _other_pitch(before, after, rate)


def _other_pitch(before: Array, after: Array, rate: int) -> bool:
    """Whether two stretches surely have two pitches.

    Both clear, neither even a candidate of the other, and no harmonic.
    """
    if min(before.shape[1], after.shape[1]) < rate * pitch.SIZE / pitch.RATE:
        return False
    one, two = (
        pitch.detect(_mono(part[:, : round(PITCH_S * rate)], rate)) for part in (before, after)
    )
    if min(one.salience, two.salience) < SURE * pitch.TONAL:
        return False
    apart = abs(two.notes[0] - one.notes[0])
    if apart < CHANGE_ST or any(
        abs(apart - harmonic) < CHANGE_ST for harmonic in pitch.HARMONICS_ST
    ):
        return False
    return max(one.share(two.notes[0]), two.share(one.notes[0])) < UNLIKE


def _clip(
    samples: Array, rate_in: int, start_s: float, end_s: float, rate: int, clip_s: float
) -> tuple[Array, bool]:
    """The stretch at `rate`, cut or padded with silence to `clip_s`; and whether it was longer."""
    begin, wanted = round(start_s * rate_in), round((end_s - start_s) * rate_in)
    more = (end_s - start_s) > clip_s + 0.05
    part = samples[:, begin : begin + min(wanted, round((clip_s + 0.1) * rate_in))]
    clip = audio.resample(part, rate_in, rate)
    n = round(clip_s * rate)
    clip = audio.fit_length(clip, n)
    return np.ascontiguousarray(clip, dtype=np.float32), more


def _notes(
    clip: Array, rate: int, note_range: tuple[int, int], told: int | None, remarks: list[str]
) -> tuple[int, ...]:
    """Candidate notes, best first, then the octaves of the best.

    The one that a person told alone, but with every remark.
    """
    mono = _mono(clip, rate)
    begin = int(SETTLED_S * pitch.RATE)
    used = mono[begin : begin + int(PITCH_S * pitch.RATE)]
    found = pitch.detect(used if np.any(used) else mono)
    if found.salience < pitch.TONAL:
        remarks.append(
            "No clear pitch: the sound is noise or a drum, which Wavetable has no oscillator for."
        )
    low, high = note_range
    worth = [
        s - OUTSIDE * max(0.0, (low - n) / 12, (n - high) / 12)
        for n, s in zip(found.notes, found.saliences, strict=True)
    ]
    ranked = [
        int(np.floor(found.notes[i] + 0.5)) for i in np.argsort(-np.array(worth), kind="stable")
    ]
    best = ranked[0]
    peeled, (rival, beside) = pitch.peeled(used, found.notes[int(np.argmax(worth))]), found.rival()
    if found.salience > pitch.TONAL and (peeled.salience > POLYPHONIC or beside > RIVAL):
        second = rival if beside > RIVAL else peeled.note
        which = f"{name(best)} and {name(second)}" if second != best else f"beside {name(best)}"
        remarks.append(f"More than one note seems to sound ({which}); one patch plays one note.")
    played = best if told is None else told
    if not low <= played <= high:
        remarks.append(
            f"The note {name(played)} lies outside {name(low)} to {name(high)}, where the model "
            f"was trained."
        )
    if told is not None:
        return (told,)
    octaves = [n for n in (best - 12, best + 12) if low <= n <= high]
    return tuple(dict.fromkeys([best, *(n for n in octaves + ranked[1:] if 0 <= n <= 127)]))


def _first_pitch(clip: Array, rate: int, remarks: list[str]) -> Array:
    """The clip, silenced from where its pitch moves to another note and stays there."""
    mono = _mono(clip, rate)
    notes, salience = pitch.track(mono)
    level = np.sqrt(np.square(_framed(mono, len(notes))).mean(axis=1))
    sure = (salience > SURE * pitch.TONAL) & (level > 0.1 * max(float(level.max()), 1e-12))
    if sure.sum() < 2 * CHANGE_FRAMES:
        return clip
    at = np.flatnonzero(sure)
    home = float(np.median(notes[at[: 2 * CHANGE_FRAMES]]))
    away = _octaveless(notes[at] - home) > CHANGE_ST
    for i in range(len(at) - 2 * CHANGE_FRAMES):
        later = notes[at[i : i + 2 * CHANGE_FRAMES]]
        if (
            away[i : i + 2 * CHANGE_FRAMES].all()
            and np.ptp(later) < CHANGE_ST
            and away[i:].mean() > 0.9
        ):
            begin = int(at[i]) * pitch.HOP * rate // pitch.RATE
            remarks.append(
                f"The pitch changes to {name(round(float(later.mean())))} at {begin / rate:.2f} "
                f"s; the rest is left out."
            )
            return _silenced(clip, begin, rate)
    return clip


def _octaveless(semitones: Array) -> Array:
    """Distance to the nearest octave or twelfth, which a tracker may jump to on one and the same
    note.
    """
    jumps = np.array([0, 12, -12, 24, -24, 19, -19, 7, -7, 5, -5])
    return np.abs(semitones[:, None] - jumps).min(axis=1)


def _framed(mono: Array, n: int) -> Array:
    padded = np.pad(mono, (0, max(0, pitch.SIZE - len(mono))))
    return np.lib.stride_tricks.sliding_window_view(padded, pitch.SIZE)[:: pitch.HOP][:n]


def _silenced(clip: Array, begin: int, rate: int) -> Array:
    n = round(FADE_S * rate)
    gain = np.clip((begin - np.arange(clip.shape[1])) / n, 0.0, 1.0).astype(np.float32)
    return clip * gain


def _gates(clip: Array, rate: int, length_s: float) -> list[float]:
    """When the release may have been, the likeliest first, else the whole sound."""
    found = [gate for gate, _ in envelope.releases(clip.mean(axis=0) + 1e-9, rate, N_GATES)]
    whole = [] if found and found[0] <= length_s else [max(SHORTEST_S, length_s)]
    return [*whole, *(gate for gate in found if gate <= length_s)]


def _mono(clip: Array, rate: int) -> Array:
    """The louder of mid and left [time] at the tracker's rate: mid, unless the channels cancel."""
    mid = clip.mean(axis=0)
    heard = mid if np.square(mid).sum() > 0.05 * np.square(clip[0]).sum() else clip[0]
    return audio.resample(heard[None], rate, pitch.RATE)[0]


def _loudness(clip: Array, rate: int) -> float:
    return audio.loudness_lufs(clip, rate) if clip.shape[1] > 0.4 * rate else audio.SILENCE_LUFS


def name(note: int) -> str:
    """A MIDI note as Live writes it: 60 is C3."""
    names = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
    return f"{names[note % 12]}{note // 12 - 2} (MIDI {note})"
