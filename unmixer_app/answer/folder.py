"""The folders that an answer may be written to: new ones, and those of earlier answers.

The folder of an answer holds a marker, or the patch.json of a version that wrote no marker. Files
are replaced only in such a folder. The sound that is un-mixed is never replaced.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from unmixer_core.errors import ConfigError
from unmixer_core.recording.sound_file import shown
from unmixer_core.system import files

MARKER, ASKED, CANDIDATES = ".unmix-answer", "asked.json", "candidates"
SOUNDS = ("input.wav", "rerender.wav")
CANDIDATE = re.compile(r"\d\d\.(wav|json)")
MAX_BYTES = 16 << 20
PRESET_CHARACTERS, PRESET_BYTES = 100, 200


def preset_name(folder: Path) -> str:
    """Return the file name of the Vital preset: the folder's name, safe for all file systems."""
    text = "".join(
        c if c.isprintable() and c not in '/\\:*?"<>|' else "-"
        for c in Path(os.path.realpath(folder)).name
    )
    name = text[:PRESET_CHARACTERS].encode()[:PRESET_BYTES].decode(errors="ignore").strip(" .")
    return f"{name or 'patch'}.vital"


def claim(folder: Path, sound: Path) -> None:
    """Create and mark `folder` for the answer to `sound`.

    Raises ConfigError, and changes nothing, when the answer would replace the sound or files that
    are no answer, or when the folder cannot be written.
    """
    names = ("patch.json", *SOUNDS, "report.html", preset_name(folder), ASKED, CANDIDATES)
    if any(_same(folder / name, sound) for name in names) or _same(
        folder / CANDIDATES, Path(os.path.realpath(sound)).parent
    ):
        raise ConfigError(
            f"the answer would replace {shown(sound)} itself; choose another folder with --out."
        )
    for name in ("", CANDIDATES, MARKER):
        if (folder / name).is_symlink():
            raise ConfigError(
                f"{shown(folder / name)} is a link; choose another folder with --out."
            )
    there = next((name for name in names if os.path.lexists(folder / name)), None)
    if there is not None and not is_answer(folder):
        raise ConfigError(
            f"{shown(folder / there)} is no answer of ours and would be replaced; choose another "
            f"folder with --out."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MARKER).exists():
            files.write_bytes(folder / MARKER, b"")
    except OSError as error:
        raise ConfigError(f"{shown(folder)} cannot be written ({error.strerror}).") from None


def is_answer(folder: Path) -> bool:
    """Whether an answer was written, or begun, in `folder`."""
    if (folder / MARKER).is_file() and not (folder / MARKER).is_symlink():
        return True
    try:
        path = folder / "patch.json"
        found = (
            json.loads(path.read_text(encoding="utf-8"))
            if path.stat().st_size <= MAX_BYTES
            else None
        )
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"digest", "devices", "similarity", "input"} <= found.keys()


def written_here(path: Path) -> bool:
    """Whether a sound file is part of an answer: its input, its re-render or a candidate."""
    if path.parent.name == CANDIDATES and CANDIDATE.fullmatch(path.name):
        return is_answer(path.parent.parent)
    return path.name in SOUNDS and is_answer(path.parent)


def clear(folder: Path) -> None:
    """Remove an earlier answer's patch.json and candidates.

    Other files in candidates/ stay.
    """
    (folder / "patch.json").unlink(missing_ok=True)
    if (folder / CANDIDATES).is_dir() and not (folder / CANDIDATES).is_symlink():
        for path in (folder / CANDIDATES).iterdir():
            if CANDIDATE.fullmatch(path.name):
                path.unlink()


def _same(a: Path, b: Path) -> bool:
    try:
        return os.path.realpath(a) == os.path.realpath(b) or a.samefile(b)
    except OSError:
        return False
