"""The folder of an answer: patch.json (last.

It says that the rest is there), sounds, candidates, report, Vital preset.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unmixer_app.answer import folder, patch_file, presets, sounds
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

SHOWN, PLAYED = 8, 4


def write(
    out: Path, name: str, heard: RecordedNote, found: search.Answer, request: Request, begun: float
) -> Json:
    """Write everything into `out`; returns patch.json's content.

    `begun`: perf_counter() when the search began.
    """
    out.mkdir(parents=True, exist_ok=True)
    folder.clear(out)
    settings = request.params.unmix
    patch = request.constraints.apply(found.best.patch.canonical())
    probabilities = found.posterior.probabilities(patch.note, patch.gate_s)
    remarks = [*heard.remarks, *([found.failure] if found.failure else [])]
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
        "input": heard.about
        | {"remarks": remarks, "notes": list(heard.notes), "gate_s": heard.gate_s},
    }
    rerender = matched(found.best.audio, heard.clip)
    _sound(out / "rerender.wav", rerender, heard.rate)
    _sound(out / "input.wav", heard.clip, heard.rate)
    presets.write(out / folder.preset_name(out), patch)
    shown = _distinct(found)
    for i, candidate in enumerate(shown, start=1):
        stem = out / folder.CANDIDATES / f"{i:02d}"
        kept = request.constraints.apply(candidate.patch.canonical())
        patch_file.write(
            stem.with_suffix(".json"),
            patch_file.describe(kept) | {"mss_db": round(candidate.mss_db, 4)},
        )
        _sound(stem.with_suffix(".wav"), matched(candidate.audio, heard.clip), heard.rate)
    document["seconds"] = round(time.perf_counter() - begun, 3)
    _report(out, name, document, heard, rerender, shown, settings.chance_db)
    patch_file.write(out / "patch.json", document)
    return document


def matched(sound: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The sound [2, time], cut or padded to the target's length, at the target's RMS level."""
    n = target.shape[1]
    fitted = np.pad(sound[:, :n], [(0, 0), (0, max(0, n - sound.shape[1]))])
    rms, wanted = (float(np.sqrt(np.square(x, dtype=np.float64).mean())) for x in (fitted, target))
    return (fitted * (wanted / rms if rms > 1e-12 else 1.0)).astype(np.float32)


def _sound(path: Path, clip: np.ndarray, rate: int) -> None:
    """24 bits, or floating point where that would clip."""
    sounds.write(path, clip, rate, "FLOAT" if audio.peak(clip) > 1.0 else "PCM_24")


def _distinct(found: search.Answer) -> list[search.Candidate]:
    """The best render of each candidate that sounds different, the answer left out."""
    seen = {found.best.patch.digest}
    kept = []
    for candidate in found.candidates:
        if candidate.patch.digest not in seen:
            seen.add(candidate.patch.digest)
            kept.append(candidate)
    return kept[:SHOWN]


def _report(
    out: Path,
    name: str,
    document: Json,
    heard: RecordedNote,
    rerender: np.ndarray,
    shown: list[search.Candidate],
    chance_db: float,
) -> None:
    rows = [(c.source, " > ".join(c.patch.effects) or "no effects", c.mss_db) for c in shown]
    played = {answer_page.RECORDING: heard.clip, answer_page.PATCH: rerender}
    played |= {
        f"candidate {i}: {rows[i - 1][1]}, {c.mss_db:.1f} dB": matched(c.audio, heard.clip)
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
        sound_file.shown(Path(name)), document, played, heard.rate, rows, chance_db, beside
    )
    files.write_text(out / "report.html", page.html())
