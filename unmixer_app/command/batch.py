"""Un-mix a folder of sounds: one folder and one line of summary.csv for each sound.

A sound that has an answer already is skipped.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from unmixer_app.answer import folder as answer_folder
from unmixer_app.answer import request as answer_request
from unmixer_app.answer import resources as answer_resources
from unmixer_app.answer.progress import ProgressLine
from unmixer_app.command import single
from unmixer_core.errors import ConfigError, UnmixerError
from unmixer_core.recording import sound_file
from unmixer_core.system import files
from unmixer_core.system.json_types import Json

if TYPE_CHECKING:
    from unmixer_core.search.context import SearchResources

COLUMNS = (
    "file",
    "status",
    "similarity",
    "mss_db",
    "note",
    "gate_s",
    "chain",
    "seconds",
    "message",
)


def run(folder: Path, out: Path | None, request: answer_request.Request) -> int:
    """Un-mix every sound below `folder`; return the exit status.

    It is 0 when every file has an answer (and is in Live, with --push), else 1.
    """
    target = out or single.DEFAULT_OUT / folder.resolve().name
    files = sorted(_sounds(folder, target))
    if not files:
        raise ConfigError(
            f"{sound_file.shown(folder)} holds no sound files ({', '.join(sound_file.SUFFIXES)})."
        )
    _ours(target / "summary.csv")
    rows: dict[Path, Json] = {}
    waiting = []
    for path in files:
        known = _known(path, folder, target, request)
        if known is None:
            waiting.append(path)
        else:
            rows[path] = _row(path, folder, known)
            _print(known, request)
    _summary(target, rows)
    failed = False
    try:
        if waiting:
            progress = ProgressLine(folder.name)
            progress.done(
                answer_resources.model_sentence(answer_resources.model_identity(request.model))
            )
            with answer_resources.open_resources(request, progress) as resources:
                for path in waiting:
                    failed |= not _one(path, folder, target, request, resources, rows)
                    _summary(target, rows)
    except KeyboardInterrupt:
        done = sum(row["status"] == "ok" for row in rows.values())
        raise KeyboardInterrupt(
            f"interrupted with {done} of {len(files)} sounds done; run it again to go on."
        ) from None
    return 1 if failed or any(row["status"] != "ok" for row in rows.values()) else 0


def _sounds(folder: Path, target: Path) -> Iterator[Path]:
    """The sound files below a folder but for those that answers hold."""
    place, above = target.resolve(), folder.resolve()
    apart = place != above and place not in above.parents
    for path in folder.rglob("*"):
        if (
            path.suffix.lower() in sound_file.SUFFIXES
            and path.is_file()
            and not answer_folder.written_here(path)
        ):
            if not (apart and place in path.resolve().parents):
                yield path


def _one(
    path: Path,
    folder: Path,
    target: Path,
    request: answer_request.Request,
    resources: SearchResources,
    rows: dict[Path, Json],
) -> bool:
    """Un-mix one file and add its line to `rows`; return whether all steps succeeded.

    Ctrl-C during a search ends it early. Its answer is written, then KeyboardInterrupt is raised.
    """
    place = _place(path, folder, target)
    progress = ProgressLine(path.name)
    try:
        note = request.detect_note(path)
        for remark in note.remarks:
            progress.done(remark)
        answer_folder.claim(place, path)
        document = single.answer(path, note, place, request, resources, progress)
    except UnmixerError as error:
        message = " ".join(str(error).split())
        progress.done(f"error: {message}")
        rows[path] = {"file": _name(path, folder), "status": "error", "message": message}
        _print({"input": {"file": _name(path, folder)}, "error": message}, request)
        return False
    _print(document, request)
    if document["interrupted"]:
        raise KeyboardInterrupt
    if document["failure"] is None:
        files.write_text(place / answer_folder.ASKED, json.dumps(_asked(path, request)))
    rows[path] = _row(path, folder, document)
    if request.push:
        try:
            single.pushed(place, progress)
        except UnmixerError as error:
            message = " ".join(str(error).split())
            progress.done(f"error: {message}")
            rows[path]["message"] = (
                f"{rows[path]['message']} {message[:1].upper()}{message[1:]}".strip()
            )
            return False
    return True


def _print(document: Json, request: answer_request.Request) -> None:
    """A line of --json."""
    if request.json:
        sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")
        sys.stdout.flush()


def _row(path: Path, folder: Path, document: Json) -> Json:
    return {
        "file": _name(path, folder),
        "status": "ok",
        "similarity": document["similarity"]["percent"],
        "mss_db": document["similarity"]["mss_db"],
        "note": document["note"],
        "gate_s": round(document["gate_s"], 3),
        "chain": " > ".join(document["chain"]),
        "seconds": document["seconds"],
        "message": " ".join([*document["input"]["remarks"], document["verdict"] or ""]).strip(),
    }


def _name(path: Path, folder: Path) -> str:
    """A file's name below the folder, with "?" for what a table cannot hold."""
    return sound_file.shown(path.relative_to(folder))


def _known(path: Path, folder: Path, target: Path, request: answer_request.Request) -> Json | None:
    """The answer to a file that was finished before with the same content and options, else
    None.
    """
    place = _place(path, folder, target)
    try:
        if json.loads((place / answer_folder.ASKED).read_text(encoding="utf-8")) != _asked(
            path, request
        ):
            return None
        document = json.loads((place / "patch.json").read_text(encoding="utf-8"))
        _row(path, folder, document)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return document if isinstance(document, dict) else None


def _asked(path: Path, request: answer_request.Request) -> Json:
    """What the answer depends on: the file's bytes, the options, the parameters and the model."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    model = answer_resources.find_models(request.model)[0] / "model.safetensors"
    about = model.stat()
    options = {
        "note": request.note,
        "gate_s": request.gate_s,
        "candidates": request.candidates,
        "itf_steps": request.itf_steps,
        "itf": request.itf,
        "fast": request.fast,
        "polish_s": request.polish_s,
        "values": request.constraints.values,
        "chain": list(request.constraints.chain) if request.constraints.chain is not None else None,
    }
    return {
        "sha256": digest,
        "params": request.params.digest,
        "model": [about.st_size, int(about.st_mtime)],
        **options,
    }


def _place(path: Path, folder: Path, target: Path) -> Path:
    """unmixed/<folder>/<path without suffix>-<suffix>, so that a.wav and a.mp3 (and a.WAV) do
    not meet.
    """
    relative = path.relative_to(folder)
    return target / relative.with_name(f"{relative.stem}-{relative.suffix.lstrip('.')}")


def _ours(summary: Path) -> None:
    """Refuse to replace a table that is not ours."""
    for path in (summary.parent, summary):
        if path.is_symlink():
            raise ConfigError(f"{sound_file.shown(path)} is a link; choose another --out.")
    try:
        with summary.open(newline="", encoding="utf-8", errors="replace") as file:
            first = file.readline(1000).strip()
    except FileNotFoundError:
        return
    if first != ",".join(COLUMNS):
        raise ConfigError(
            f"{sound_file.shown(summary)} is none of ours and would be replaced; choose another "
            f"--out."
        )


def _summary(target: Path, rows: dict[Path, Json]) -> None:
    with (
        files.replacing(target / "summary.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows[path] for path in sorted(rows))
