"""A folder of sounds: each one un-mixed into a folder of its own, a line each in summary.csv; finished ones are not done again."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from app import single
from app.progress import Progress
from unmixer_core import sound_file
from unmixer_core.errors import ConfigError, UnmixerError

COLUMNS = ("file", "status", "similarity", "mss_db", "note", "gate_s", "chain", "seconds", "message")
ASKED = "asked.json"


def run(folder: Path, out: Path | None, request: single.Request) -> int:
    """Un-mix every sound below `folder`. The exit status: 0 when every file has an answer, else 1."""
    target = out or single.DEFAULT_OUT / folder.resolve().name
    files = sorted(
        p for p in folder.rglob("*")
        if p.suffix.lower() in sound_file.SUFFIXES and p.is_file() and target.resolve() not in p.resolve().parents
    )  # fmt: skip
    if not files:
        raise ConfigError(f"{sound_file.shown(folder)} holds no sound files ({', '.join(sound_file.SUFFIXES)}).")
    rows: dict[str, dict[str, Any]] = {}
    waiting = []
    for path in files:
        known = _known(path, folder, target, request)
        if known is not None:
            rows[str(path.relative_to(folder))] = known
        else:
            waiting.append(path)
    _summary(target, rows)
    if waiting:
        with single.tools(request, Progress(folder.name)) as ready:
            for path in waiting:
                rows[str(path.relative_to(folder))] = _one(path, folder, target, request, ready)
                _summary(target, rows)
    return 0 if all(row["status"] == "ok" for row in rows.values()) else 1


def _one(path: Path, folder: Path, target: Path, request: single.Request, ready: Any) -> dict[str, Any]:
    """The line of one file. Ctrl-C with an answer at hand writes it and is raised again afterwards."""
    place, tell = _place(path, folder, target), Progress(path.name)
    try:
        heard = request.listen(path)
        for remark in heard.remarks:
            tell.done(remark)
        document = single.answer(path, heard, place, request, ready, tell)
    except UnmixerError as error:
        message = " ".join(str(error).split())
        tell.done(f"error: {message}")
        return {"file": str(path.relative_to(folder)), "status": "error", "message": message}
    if document["interrupted"]:
        raise KeyboardInterrupt
    (place / ASKED).write_text(json.dumps(_asked(path, request)), encoding="utf-8")
    return _row(path, folder, document)


def _row(path: Path, folder: Path, document: dict[str, Any]) -> dict[str, Any]:
    return {
        "file": str(path.relative_to(folder)),
        "status": "ok",
        "similarity": document["similarity"]["percent"],
        "mss_db": document["similarity"]["mss_db"],
        "note": document["note"],
        "gate_s": round(document["gate_s"], 3),
        "chain": " > ".join(document["chain"]),
        "seconds": document["seconds"],
        "message": " ".join([*document["input"]["remarks"], document["verdict"] or ""]).strip(),
    }


def _known(path: Path, folder: Path, target: Path, request: single.Request) -> dict[str, Any] | None:
    """The line of a file that was finished before with the same content and options, else None."""
    place = _place(path, folder, target)
    try:
        if json.loads((place / ASKED).read_text(encoding="utf-8")) != _asked(path, request):
            return None
        return _row(path, folder, json.loads((place / "patch.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _asked(path: Path, request: single.Request) -> dict[str, Any]:
    """What the answer depends on: the file's bytes, the options, the parameters and the model."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    model = single.find_models(request.model)[0] / "model.safetensors"
    about = model.stat()
    options = {
        "note": request.note, "gate_s": request.gate_s, "candidates": request.candidates, "itf_steps": request.itf_steps,
        "itf": request.itf, "fast": request.fast, "polish_s": request.polish_s, "values": request.constraints.values,
        "chain": list(request.constraints.chain) if request.constraints.chain is not None else None,
    }  # fmt: skip
    return {"sha256": digest, "params": request.params.digest, "model": [about.st_size, int(about.st_mtime)], **options}


def _place(path: Path, folder: Path, target: Path) -> Path:
    """unmixed/<folder>/<path without suffix>-<suffix>, so that a.wav and a.mp3 do not meet."""
    relative = path.relative_to(folder)
    return target / relative.with_name(f"{relative.stem}-{relative.suffix.lstrip('.').lower()}")


def _summary(target: Path, rows: dict[str, dict[str, Any]]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    temporary = target / ".summary.csv.tmp"
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows[name] for name in sorted(rows))
    os.replace(temporary, target / "summary.csv")
