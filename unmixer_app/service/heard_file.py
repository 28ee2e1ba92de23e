"""A recorded note on disk: the decoder process writes it, the searcher process reads it.

The files are WAV and JSON, never pickles: the decoder parses untrusted uploads.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from unmixer_core import audio
from unmixer_core.recording import sound_file
from unmixer_core.recording.note import RecordedNote
from unmixer_core.system import files
from unmixer_core.system.json_types import Json

CLIP, ABOUT = "input.wav", "heard.json"


def write(folder: Path, note: RecordedNote) -> Json:
    """Write input.wav (32-bit floats, lossless) and note.json; return note.json's content."""
    sound_file.write(folder / CLIP, note.clip, note.rate, "FLOAT")
    about = {
        "note": note.note,
        "gate_s": note.gate_s,
        "notes": list(note.notes),
        "remarks": list(note.remarks),
        "about": note.about,
        "told": list(note.given),
        "gates_s": list(note.gates_s),
    }
    files.write_text(folder / ABOUT, json.dumps(about, allow_nan=False))
    return about


def read(folder: Path) -> RecordedNote:
    """The inverse of `write`. Raises AudioError or OSError when the files are gone."""
    clip, rate = audio.read(folder / CLIP)
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    return RecordedNote(
        np.ascontiguousarray(clip, dtype=np.float32),
        rate,
        about["note"],
        about["gate_s"],
        tuple(about["notes"]),
        tuple(about["remarks"]),
        about["about"],
        tuple(about.get("told", ())),
        tuple(about.get("gates_s", ())),
    )
