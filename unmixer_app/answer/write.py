"""Write the folder of an answer: sounds, candidates, report, Vital preset, and patch.json.

patch.json is written last. Where it exists, the answer is complete.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unmixer_app.answer import folder, patch_file, presets
from unmixer_app.answer import page as answer_page
from unmixer_app.answer import resources as answer_resources
from unmixer_core import audio
from unmixer_core.recording import sound_file
from unmixer_core.recording.note import RecordedNote
from unmixer_core.search import search
from unmixer_core.system import files
from unmixer_core.system.json_types import Json

if TYPE_CHECKING:
    from unmixer_app.answer.request import Request

#: Candidates beside the answer that get files and a line in the report.
SHOWN = 8
#: Candidates that the report can play.
PLAYED = 4


def write(
    out: Path, name: str, note: RecordedNote, found: search.Answer, request: Request, begun: float
) -> Json:
    """Write all files into `out`; return patch.json's content.

    `begun`: perf_counter() when the search began.
    """
    out.mkdir(parents=True, exist_ok=True)
    folder.clear(out)
    settings = request.params.unmix
    patch = request.constraints.apply(found.best.patch.canonical())
    probabilities = found.posterior.probabilities(patch.note, patch.gate_s)
    remarks = list(note.remarks)
    if found.failure:
        remarks.append(found.failure)
    document = patch_file.describe(patch, found.posterior.intervals(patch), probabilities)
    document |= {
        "effects": probabilities["present"],
        "chains": probabilities["chains"],
        "similarity": {
            "percent": round(search.similarity(found.best.mss_db, settings.chance_db), 2),
            "mss_db": round(found.best.mss_db, 4),
        },
        "verdict": answer_page.verdict(
            found.best.mss_db, found.renders, settings.poor_db, thorough=found.thorough
        ),
        "model": answer_resources.model_identity(request.model),
        "source": found.best.source,
        "curve": [[round(s, 3), n, round(db, 4)] for s, n, db in found.curve],
        "renders": found.renders,
        "interrupted": found.interrupted,
        "failure": found.failure,
        "input": note.about
        | {"remarks": remarks, "notes": list(note.notes), "gate_s": note.gate_s},
    }
    rerender = matched(found.best.audio, note.clip)
    _sound(out / "rerender.wav", rerender, note.rate)
    _sound(out / "input.wav", note.clip, note.rate)
    presets.write(out / folder.preset_name(out), patch)
    shown = _distinct(found)
    for i, candidate in enumerate(shown, start=1):
        stem = out / folder.CANDIDATES / f"{i:02d}"
        constrained = request.constraints.apply(candidate.patch.canonical())
        description = patch_file.describe(constrained)
        description["mss_db"] = round(candidate.mss_db, 4)
        patch_file.write(stem.with_suffix(".json"), description)
        _sound(stem.with_suffix(".wav"), matched(candidate.audio, note.clip), note.rate)
    document["seconds"] = round(time.perf_counter() - begun, 3)
    _report(out, name, document, note, rerender, shown, settings.chance_db)
    patch_file.write(out / "patch.json", document)
    return document


def matched(sound: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The sound [2, time], cut or padded to the target's length, at the target's RMS level."""
    fitted = audio.fit_length(sound, target.shape[1])
    rms, wanted = (float(np.sqrt(np.square(x, dtype=np.float64).mean())) for x in (fitted, target))
    return (fitted * (wanted / rms if rms > 1e-12 else 1.0)).astype(np.float32)


def _sound(path: Path, clip: np.ndarray, rate: int) -> None:
    """Write 24-bit samples, or floats where 24 bits would clip."""
    sound_file.write(path, clip, rate, "FLOAT" if audio.peak(clip) > 1.0 else "PCM_24")


def _distinct(found: search.Answer) -> list[search.Candidate]:
    """The best render of each candidate that sounds different, the answer left out."""
    seen = {found.best.patch.digest}
    distinct = []
    for candidate in found.candidates:
        if candidate.patch.digest not in seen:
            seen.add(candidate.patch.digest)
            distinct.append(candidate)
    return distinct[:SHOWN]


def _report(
    out: Path,
    name: str,
    document: Json,
    note: RecordedNote,
    rerender: np.ndarray,
    shown: list[search.Candidate],
    chance_db: float,
) -> None:
    rows = [(c.source, " > ".join(c.patch.effects) or "no effects", c.mss_db) for c in shown]
    played = {answer_page.RECORDING: note.clip, answer_page.PATCH: rerender}
    played |= {
        f"candidate {i}: {rows[i - 1][1]}, {c.mss_db:.1f} dB": matched(c.audio, note.clip)
        for i, c in enumerate(shown[:PLAYED], start=1)
    }
    beside = {
        folder.preset_name(out): "the patch as a preset; open it in Vital and play the note above",
        "patch.json": (
            "all of it as data; `unmix push patch.json` sets it in Live, `unmix render "
            "patch.json` sounds it"
        ),
        "rerender.wav": "the patch as the host renders it, at your sound's level",
        "candidates/": "the other candidates, each a .wav and a .json like patch.json",
    }
    page = answer_page.page(
        sound_file.shown(Path(name)), document, played, note.rate, rows, chance_db, beside
    )
    files.write_text(out / "report.html", page.html())
