"""Out-of-domain targets: sound files of one note each, which no synthesizer of ours made.

The table clips.csv beside the files names for each its kind, its effects in order (our names, where
they are known) and, where its origin says so, its note and gate. The benchmark does not use this
note and gate: it detects them, as in a person's file.
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
from unmixer_core.scoring.targets import ScoreTarget, spread

TABLE = "clips.csv"
#: Ids of these targets begin here, above those of every rendered clip.
FIRST_ID = 1_000_000
#: The row number of a target that is no clip of the data set.
NO_CLIP = -1


@dataclass(frozen=True)
class OutOfDomainClip:
    """A file and its line in the table.

    chain: its true effects in order (empty: none of ours). note: its true note (None: unknown).
    detected: the note and gate that detection finds.
    """

    line: int
    path: Path
    kind: str
    chain: tuple[str, ...]
    note: int | None
    detected: recording_note.RecordedNote


def read(
    folder: Path,
    n: int,
    *,
    rate: int,
    clip_s: float,
    note_range: tuple[int, int],
    kinds: Sequence[str] = (),
) -> list[OutOfDomainClip]:
    """Read n of the clips (0: all), evenly spaced in the table.

    kinds: those to take (empty: all). rate, clip_s, note_range: as in `detect_note`.

    Raises:
        AudioError: the table or a file cannot be read.
    """
    lines = []
    try:
        with (folder / TABLE).open(encoding="utf-8", newline="") as file:
            for number, line in enumerate(csv.DictReader(file)):
                if not kinds or line["kind"] in kinds:
                    lines.append((number, line))
    except (OSError, KeyError, csv.Error) as error:
        raise AudioError(f"{folder / TABLE} cannot be read ({error}).") from None
    clips = []
    for place in spread(len(lines), n):
        number, line = lines[place]
        path = folder / line["file"]
        detected = recording_note.detect_note(path, rate=rate, clip_s=clip_s, note_range=note_range)
        chain = tuple(name for name in line["chain"].split(" > ") if name)
        note = int(line["note"]) if line["note"] else None
        clips.append(OutOfDomainClip(number, path, line["kind"], chain, note, detected))
    return clips


def target(clip: OutOfDomainClip) -> ScoreTarget:
    """Return a clip as a target: the detected note and gate, the true chain, init knobs."""
    detected = clip.detected
    return ScoreTarget(
        clip=NO_CLIP,
        id=FIRST_ID + clip.line,
        phase=clip.kind,
        patch=Patch.init(detected.note, detected.gate_s, clip.chain),
        audio=detected.clip,
        features=sound.mss_features(detected.clip, detected.rate),
        baseline=True,
        detail=True,
    )
