"""Which notes and gates a clip may have, and where its first pitch ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmixer_core import audio
from unmixer_core.recording import envelope, pitch
from unmixer_core.schema.notes import note_name

#: Salience of what is left without the note's harmonics, above which a second note seems to sound.
#: 8 % of single rendered notes with one oscillator exceed this or the next limit, and 22 % of those
#: with a second oscillator.
POLYPHONIC = 0.2
#: Salience of another note relative to the best, above which both seem to sound.
RIVAL = 0.6
#: A change of pitch by more than this many semitones is another note, not vibrato.
CHANGE_ST = 0.8
#: A pitch is judged over twice as many frames: 0.23 s.
CHANGE_FRAMES = 5
#: Share of the later frames that must have the new pitch.
CHANGE_SHARE = 0.9
#: Salience, in times TONAL, from which on a pitch is beyond doubt.
SURE = 4.0
#: Frames below this share of the loudest frame's level say nothing of the pitch.
LEVEL_SHARE = 0.1
#: A note with less than this share of the best's salience does not sound. Single tones have less
#: than 0.2 a semitone to a fifth away from their note.
UNLIKE = 0.3
#: Salience that a candidate loses per octave outside the notes that the model was trained on.
PENALTY_PER_OCTAVE = 0.2
#: Seconds of the attack, whose pitch has not settled.
SETTLED_S = 0.05
#: Seconds of a note that its pitch is read from.
PITCH_S = 0.6
#: Seconds of the fade where a clip is silenced.
FADE_S = 0.005
#: Candidate gates of a clip.
N_GATES = 4
#: The shortest gate in seconds, also of the shortest sound that counts as a note.
SHORTEST_S = 0.02
#: Mid is used unless it has less than this share of the left channel's power: then the channels
#: cancel each other.
MID_SHARE = 0.05
#: Semitones by which a tracker may jump within one note: octaves, twelfths, fifths and fourths.
JUMPS_ST = (0, 12, -12, 24, -24, 19, -19, 7, -7, 5, -5)

Array = NDArray[np.float32]


def tracker_mono(clip: Array, rate: int) -> Array:
    """Return one channel [time] at the pitch tracker's rate: mid, or left where mid cancels."""
    mono = clip.mean(axis=0)
    if np.square(mono).sum() <= MID_SHARE * np.square(clip[0]).sum():
        mono = clip[0]
    return audio.resample(mono[None], rate, pitch.RATE)[0]


# --- notes ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NoteCandidates:
    """Notes that a clip may have, best first, and a remark for each doubt about them."""

    notes: tuple[int, ...]
    remarks: tuple[str, ...]


def note_candidates(
    clip: Array, rate: int, note_range: tuple[int, int], given: int | None
) -> NoteCandidates:
    """Detect the notes of a clip [2, time]: the ranked ones, then the octaves of the best.

    Candidates outside `note_range` rank lower. A note that is `given` is the only candidate, with
    the same remarks.
    """
    mono = tracker_mono(clip, rate)
    begin = int(SETTLED_S * pitch.RATE)
    settled = mono[begin : begin + int(PITCH_S * pitch.RATE)]
    detected = pitch.detect(settled if np.any(settled) else mono)
    low, high = note_range
    worth = []
    for note, salience in zip(detected.notes, detected.saliences, strict=True):
        octaves_outside = max(0.0, (low - note) / 12, (note - high) / 12)
        worth.append(salience - PENALTY_PER_OCTAVE * octaves_outside)
    order = np.argsort(-np.array(worth), kind="stable")
    ranked = [pitch.nearest_note(detected.notes[i]) for i in order]
    best = ranked[0]

    remarks = []
    if detected.salience < pitch.TONAL:
        remarks.append(
            "No clear pitch: the sound is noise or a drum, which Wavetable has no oscillator for."
        )
    # the residual is taken beside the first of equals, as argmax finds it
    residual = pitch.detect_residual(settled, detected.notes[int(np.argmax(worth))])
    remarks += _polyphony_remarks(detected, residual, best)
    played = best if given is None else given
    if not low <= played <= high:
        remarks.append(
            f"The note {note_name(played)} lies outside {note_name(low)} to {note_name(high)}, "
            f"where the model was trained."
        )
    if given is not None:
        return NoteCandidates((given,), tuple(remarks))
    octaves = [note for note in (best - 12, best + 12) if low <= note <= high]
    others = [note for note in octaves + ranked[1:] if 0 <= note <= 127]
    without_repeats = dict.fromkeys([best, *others])
    return NoteCandidates(tuple(without_repeats), tuple(remarks))


def _polyphony_remarks(detected: pitch.Pitch, residual: pitch.Pitch, best: int) -> list[str]:
    rival, rival_share = detected.rival()
    has_rival = rival_share > RIVAL
    if detected.salience <= pitch.TONAL or not (residual.salience > POLYPHONIC or has_rival):
        return []
    second = rival if has_rival else residual.note
    which = f"beside {note_name(best)}"
    if second != best:
        which = f"{note_name(best)} and {note_name(second)}"
    return [f"More than one note seems to sound ({which}); one patch plays one note."]


def has_other_pitch(before: Array, after: Array, rate: int) -> bool:
    """Return whether two stretches [2, time] have two pitches beyond doubt.

    Both pitches are clear, neither is a candidate of the other, and none is a harmonic.
    """
    shortest = rate * pitch.FRAME_SAMPLES / pitch.RATE
    if min(before.shape[1], after.shape[1]) < shortest:
        return False
    n = round(PITCH_S * rate)
    first = pitch.detect(tracker_mono(before[:, :n], rate))
    second = pitch.detect(tracker_mono(after[:, :n], rate))
    if min(first.salience, second.salience) < SURE * pitch.TONAL:
        return False
    apart_st = abs(second.notes[0] - first.notes[0])
    if apart_st < CHANGE_ST:
        return False
    if any(abs(apart_st - harmonic_st) < CHANGE_ST for harmonic_st in pitch.HARMONICS_ST):
        return False
    return max(first.share(second.notes[0]), second.share(first.notes[0])) < UNLIKE


# --- change of pitch --------------------------------------------------------------------------


def cut_at_pitch_change(clip: Array, rate: int) -> tuple[Array, str | None]:
    """Silence a clip [2, time] from where its pitch moves to another note and stays there.

    Returns the clip and a remark, or the same clip and None.
    """
    mono = tracker_mono(clip, rate)
    notes, salience = pitch.track(mono)
    level = np.sqrt(np.square(pitch.framed(mono)[: len(notes)]).mean(axis=1))
    loud = level > LEVEL_SHARE * max(float(level.max()), 1e-12)
    frames = np.flatnonzero((salience > SURE * pitch.TONAL) & loud)
    width = 2 * CHANGE_FRAMES
    if len(frames) < width:
        return clip, None
    home = float(np.median(notes[frames[:width]]))
    away = _distance_without_jumps(notes[frames] - home) > CHANGE_ST
    for i in range(len(frames) - width):
        later = notes[frames[i : i + width]]
        moved = away[i : i + width].all()
        steady = np.ptp(later) < CHANGE_ST
        if moved and steady and away[i:].mean() > CHANGE_SHARE:
            begin = int(frames[i]) * pitch.HOP_SAMPLES * rate // pitch.RATE
            remark = (
                f"The pitch changes to {note_name(round(float(later.mean())))} at "
                f"{begin / rate:.2f} s; the rest is left out."
            )
            return _silenced_from(clip, begin, rate), remark
    return clip, None


def _distance_without_jumps(semitones: Array) -> Array:
    """Distance to the nearest interval that a tracker may jump by on one and the same note."""
    return np.abs(semitones[:, None] - np.array(JUMPS_ST)).min(axis=1)


def _silenced_from(clip: Array, begin: int, rate: int) -> Array:
    fade_samples = round(FADE_S * rate)
    time = np.arange(clip.shape[1])
    gain = np.clip((begin - time) / fade_samples, 0.0, 1.0).astype(np.float32)
    return clip * gain


# --- gates ------------------------------------------------------------------------------------


def gate_candidates(clip: Array, rate: int, length_s: float) -> list[float]:
    """Return the gates in seconds that a clip [2, time] may have, the likeliest first.

    The whole length comes first where the sharpest release lies after it, or where there is none.
    """
    # the constant keeps logarithms finite where the clip is silent
    mono = clip.mean(axis=0) + 1e-9
    releases = [moment_s for moment_s, _ in envelope.releases(mono, rate, N_GATES)]
    within = [moment_s for moment_s in releases if moment_s <= length_s]
    if releases and releases[0] <= length_s:
        return within
    return [max(SHORTEST_S, length_s), *within]
