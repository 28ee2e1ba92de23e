"""Folders for half-finished work of a stage, one for each set of inputs.

One process at a time works in a folder: it is locked.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from unmixer_core import config
from unmixer_core.errors import StageError
from unmixer_core.pipeline import tracking
from unmixer_core.pipeline.log import first_rank
from unmixer_core.system.json_types import JsonView

_held: list[tuple[FileLock, Path, bool]] = []


# --- resumable state --------------------------------------------------------------------------


def state_dir(stage: str, key: JsonView, *, keep: bool = False) -> Path:
    """A folder for half-finished work of one stage with one set of inputs, outside DVC's outs (DVC
    deletes those).

    It is `.unmixer/<stage>-<hash of key>` and locked for this process: another process that wants
    the same work (a queued experiment, an orphan of a killed `dvc repro`) waits. Removed when the
    stage succeeds, unless `keep`.

    Args:
        key: everything the work depends on: parameters, seeds, digests of inputs; JSON-able values
        and config sections.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=_plain).encode()).hexdigest()[
        :16
    ]
    folder = tracking.project_root() / ".unmixer" / f"{stage}-{digest}"
    if not first_rank():
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StageError(f"{folder} cannot be made: {error.strerror or error}.") from None
    lock = FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        sys.stderr.write(f"waiting for another process that works in {folder} ...\n")
        lock.acquire()
        folder.mkdir(exist_ok=True)
    _held.append((lock, folder, keep))
    return folder


def fingerprint(*folders: Path) -> str:
    """SHA-256 over what identifies the folders a phase depends on.

    Their JSON, parquet and safetensors files.
    """
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(
            p for p in folder.iterdir() if p.suffix in (".json", ".parquet", ".safetensors")
        ):
            digest.update(path.name.encode())
            with path.open("rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
    return digest.hexdigest()


def _plain(value: object) -> object:
    return value.model_dump() if isinstance(value, config.Section) else str(value)


def _release_states(*, remove: bool) -> None:
    while _held:
        lock, folder, keep = _held.pop()
        if remove and not keep:
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()
