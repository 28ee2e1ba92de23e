"""Sounds from outside: files of one note each with a table beside them, as targets like any test
clip.

clips.csv names for each file its kind, its effects in order (our names, where they are known) and,
where the origin tells them, note and gate. The truth about note and gate is not used: like a
person's file each one is listened to.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unmixer_core.errors import AudioError
from unmixer_core.metrics import sound
from unmixer_core.recording import note as recording_note
from unmixer_core.schema.patch import Patch
from unmixer_core.scoring.score import ScoreTarget, spread

TABLE = "clips.csv"
#: Ids of these targets, above those of every rendered clip.
FIRST_ID = 1_000_000


@dataclass(frozen=True)
class OutOfDomainClip:
    """A file and its line in the table.

    What was heard in it, its kind, its true effects in order (empty: none of ours) and its true
    note (None: not told).
    """

    line: int
    path: Path
    kind: str
    chain: tuple[str, ...]
    note: int | None
    heard: recording_note.RecordedNote


def read(
    folder: Path,
    n: int,
    *,
    rate: int,
    clip_s: float,
    note_range: tuple[int, int],
    kinds: Sequence[str] = (),
) -> list[OutOfDomainClip]:
    """n of the clips (0: all), as evenly from its kinds as their table has them.

    Raises AudioError on a bad table.
    """
    try:
        with (folder / TABLE).open(encoding="utf-8", newline="") as file:
            table = list(enumerate(csv.DictReader(file)))
        lines = [(i, line) for i, line in table if not kinds or line["kind"] in kinds]
    except (OSError, KeyError, csv.Error) as error:
        raise AudioError(f"{folder / TABLE} cannot be read ({error}).") from None
    found = []
    for number, line in (lines[i] for i in spread(len(lines), n)):
        path = folder / line["file"]
        heard = recording_note.detect_note(path, rate=rate, clip_s=clip_s, note_range=note_range)
        effects = tuple(name for name in line["chain"].split(" > ") if name)
        note = int(line["note"]) if line["note"] else None
        found.append(OutOfDomainClip(number, path, line["kind"], effects, note, heard))
    return found


def target(outsider: OutOfDomainClip) -> ScoreTarget:
    """As the contestants take it.

    The note and gate that were heard, the true chain, all else unknown.
    """
    heard = outsider.heard
    patch = Patch.init(heard.note, heard.gate_s, outsider.chain)
    features = sound.mss_features(heard.clip, heard.rate)
    return ScoreTarget(
        -1, FIRST_ID + outsider.line, outsider.kind, patch, heard.clip, features, True, True
    )


def recorded_note(known: ScoreTarget, rate: int) -> recording_note.RecordedNote:
    """A test clip whose note and gate are known, as if it had been heard."""
    note = known.patch.note
    return recording_note.RecordedNote(known.audio, rate, note, known.patch.gate_s, (note,), ())
