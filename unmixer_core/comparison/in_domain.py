"""In-domain targets: full-chain test clips of the host, whose patch, note and gate are known."""

from __future__ import annotations

from unmixer_core.comparison.entry import IN_DOMAIN
from unmixer_core.dataset.clips import Clips
from unmixer_core.errors import StageError
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.recording.note import RecordedNote
from unmixer_core.scoring.targets import ScoreTarget, spread


def targets(clips: Clips, n: int, sample_rate: int) -> list[ScoreTarget]:
    """Return n frozen full-chain test clips, evenly spaced.

    Raises:
        StageError: there are none.
    """
    all_rows = clips.patches.where(phase="full", split="test")
    rows = all_rows[spread(len(all_rows), n)].tolist()
    if not rows:
        raise StageError(
            "the clips hold no full-chain test split; run `dvc repro render_patches` with "
            "sample.n_test_full above 0."
        )
    found = []
    for row in rows:
        sound = clips.audio(row)
        target = ScoreTarget(
            clip=row,
            id=int(clips.patches.id[row]),
            phase=IN_DOMAIN,
            patch=clips.patches[row],
            audio=sound,
            features=metrics_sound.mss_features(sound, sample_rate),
            baseline=True,
            detail=True,
        )
        found.append(target)
    return found


def recorded_note(target: ScoreTarget, sample_rate: int) -> RecordedNote:
    """Return a target as a recorded note with its true note and gate, nothing estimated."""
    note = target.patch.note
    return RecordedNote(
        clip=target.audio,
        rate=sample_rate,
        note=note,
        gate_s=target.patch.gate_s,
        notes=(note,),
        remarks=(),
    )
