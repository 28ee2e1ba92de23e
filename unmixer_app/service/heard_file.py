"""A heard note on disk, between the process that decoded a stranger's file and the one that
searches: arrays, no pickles.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from unmixer_app.answer import sounds
from unmixer_core import audio
from unmixer_core.recording.note import RecordedNote
from unmixer_core.system import files
from unmixer_core.system.json_types import Json

CLIP, ABOUT = "input.wav", "heard.json"


def write(folder: Path, heard: RecordedNote) -> Json:
    """input.wav (32-bit floats, so that nothing is lost) and heard.json.

    Returns the latter's content.
    """
    sounds.write(folder / CLIP, heard.clip, heard.rate, "FLOAT")
    about = {
        "note": heard.note,
        "gate_s": heard.gate_s,
        "notes": list(heard.notes),
        "remarks": list(heard.remarks),
        "about": heard.about,
        "told": list(heard.given),
        "gates_s": list(heard.gates_s),
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
