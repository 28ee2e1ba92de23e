"""Note detection: a recording -> its first note, aligned as the host renders it.

The host plays a note at time 0 into a clip of `clip_s`. So the recording is cut at its first onset
and brought to the clip's rate, and its note and gate are estimated where they are not given.
Everything that may mislead the search becomes a remark. A file without a usable note is refused
(AudioError).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unmixer_core import audio
from unmixer_core.errors import AudioError
from unmixer_core.recording import candidates, defects, envelope, sound_file
from unmixer_core.system.json_types import Json

#: Seconds below which a sound says little of most knobs.
SHORT_S = 0.15
#: A later sound above this share of the first one's peak is a note of its own and no echo.
ECHO_SHARE = 0.7
#: Seconds beyond the clip's end that are not worth a remark.
LONGER_S = 0.05
#: Seconds beyond the clip's end that are resampled too, so that the filter's edge is cut off.
MARGIN_S = 0.1
#: Later notes that the remark lists; more become "...".
LISTED = 8
#: The shortest clip in seconds that a loudness can be measured of (a block of ITU-R BS.1770).
LOUDNESS_BLOCK_S = 0.4

Array = NDArray[np.float32]


@dataclass(frozen=True)
class RecordedNote:
    """The first note of a recording, as the search takes it.

    clip: float32 [2, samples] at `rate` from the onset. note: MIDI. gate_s: seconds that the key is
    held. notes: candidate notes, best first. remarks: one sentence each. about: facts of the file.
    given: what the person gave ("note", "gate_s") and the search keeps. gates_s: candidate gates,
    best first (empty: gate_s alone).
    """

    clip: Array
    rate: int
    note: int
    gate_s: float
    notes: tuple[int, ...]
    remarks: tuple[str, ...]
    about: Json = field(default_factory=dict)
    given: tuple[str, ...] = ()
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
    """Detect the first note of a file.

    note_range: the lowest and the highest note that the model was trained on. note, gate_s: given
    by the person, else None.

    Raises:
        AudioError: the file holds no usable note.
    """
    sound = sound_file.read(path)
    samples = defects.centred_stereo(sound, path)
    start_s, end_s, later_remark = _first_note(samples, sound, path)
    length_s = end_s - start_s
    clip = _cut(samples, sound.rate, start_s, end_s, rate, clip_s)
    named = candidates.note_candidates(clip, rate, note_range, note)
    clip, change_remark = candidates.cut_at_pitch_change(clip, rate)

    remarks: list[str | None] = [*defects.file_remarks(sound)]
    if defects.is_clipped(sound.samples):
        remarks.append("The recording is clipped: its distortion will be taken for the synth's.")
    remarks.append(later_remark)
    remarks.append(defects.noise_remark(samples, sound.rate))
    remarks += _length_remarks(length_s, clip_s)
    remarks += named.remarks
    remarks.append(change_remark)

    given = []
    if note is not None:
        given.append("note")
    if gate_s is not None:
        given.append("gate_s")
        gates_s = [float(gate_s)]
    else:
        gates_s = candidates.gate_candidates(clip, rate, min(length_s, clip_s))
    gates_s = [round(gate, 3) for gate in gates_s]
    return RecordedNote(
        clip=clip,
        rate=rate,
        note=named.notes[0],
        gate_s=gates_s[0],
        notes=named.notes,
        remarks=tuple(remark for remark in remarks if remark is not None),
        about=_facts(path, sound, start_s, clip, rate),
        given=tuple(given),
        gates_s=tuple(gates_s),
    )


def _first_note(
    samples: Array, sound: sound_file.Sound, path: Path
) -> tuple[float, float, str | None]:
    """Start and end of the first note in seconds, and a remark that names later notes."""
    sounding = envelope.sounding(samples, sound.rate)
    long_enough = [(a, b) for a, b in sounding if b - a >= candidates.SHORTEST_S / 2]
    stretches = long_enough or sounding[:1]
    if not stretches or stretches[-1][1] - stretches[0][0] < candidates.SHORTEST_S:
        raise AudioError(
            f"{sound_file.shown(path)} sounds for less than "
            f"{1000 * candidates.SHORTEST_S:.0f} ms: nothing to un-mix."
        )
    start_s, _ = stretches[0]
    later = []
    for stretch in stretches[1:]:
        if _is_other_note(samples, sound.rate, stretches[0], stretch):
            later.append(stretch)
    if not later:
        return start_s, stretches[-1][1], None
    second_s, _ = later[0]
    # echoes between the first and the second note belong to the first
    own = [stretch for stretch in stretches if stretch[0] < second_s]
    times = ", ".join(f"{stretch_s:.2f}" for stretch_s, _ in later[:LISTED])
    if len(later) > LISTED:
        times += " ..."
    plural = "s" if len(later) > 1 else ""
    remark = (
        f"The first note, at {start_s:.2f} s, is used; {len(later)} more sound{plural} "
        f"(at {times} s) left out."
    )
    return start_s, own[-1][1], remark


def _is_other_note(
    samples: Array, rate: int, first: tuple[float, float], other: tuple[float, float]
) -> bool:
    """Whether a later stretch is a note of its own; an echo is quieter and has the same pitch."""
    before = samples[:, round(first[0] * rate) : round(first[1] * rate)]
    after = samples[:, round(other[0] * rate) : round(other[1] * rate)]
    if audio.peak(after) > ECHO_SHARE * audio.peak(before):
        return True
    return candidates.has_other_pitch(before, after, rate)


def _cut(
    samples: Array, rate_in: int, start_s: float, end_s: float, rate: int, clip_s: float
) -> Array:
    """The stretch [2, time] at `rate`, cut or padded with silence to `clip_s`."""
    begin = round(start_s * rate_in)
    length = min(round((end_s - start_s) * rate_in), round((clip_s + MARGIN_S) * rate_in))
    clip = audio.resample(samples[:, begin : begin + length], rate_in, rate)
    n = round(clip_s * rate)
    missing = max(0, n - clip.shape[1])
    clip = np.pad(clip[:, :n], [(0, 0), (0, missing)])
    return np.ascontiguousarray(clip, dtype=np.float32)


def _length_remarks(length_s: float, clip_s: float) -> list[str]:
    remarks = []
    if length_s > clip_s + LONGER_S:
        remarks.append(f"The sound goes on after {clip_s:g} s; only that much of it is compared.")
    if length_s < SHORT_S:
        remarks.append(f"The sound lasts {1000 * length_s:.0f} ms: too short to tell most knobs.")
    return remarks


def _facts(path: Path, sound: sound_file.Sound, start_s: float, clip: Array, rate: int) -> Json:
    """Facts of the file and the note, as patch.json carries them."""
    peak = max(audio.peak(sound.samples), 1e-30)
    loudness_lufs = audio.SILENCE_LUFS
    if clip.shape[1] > LOUDNESS_BLOCK_S * rate:
        loudness_lufs = audio.loudness_lufs(clip, rate)
    return {
        "file": sound_file.shown(path),
        "rate_hz": sound.rate,
        "channels": sound.channels,
        "start_s": round(start_s, 4),
        "peak_db": round(20.0 * float(np.log10(peak)), 2),
        "loudness_lufs": round(loudness_lufs, 2),
    }
