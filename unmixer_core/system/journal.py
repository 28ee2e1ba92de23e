"""Append-only files of JSON records, one a line, that survive a process killed at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from unmixer_core.system.json_types import Json, JsonView


class JsonLines:
    """The file at `path`, which need not exist; one process writes at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        #: Whether the last line was checked: only a process before this one can have torn it.
        self._checked = False

    def read(self) -> Iterator[Json]:
        """Yield the records in the order written; a line that a kill cut short is left out."""
        if not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                record: Json = json.loads(line)
            except ValueError:
                continue
            yield record

    def append(self, record: JsonView) -> None:
        """Write a record; it is in the hands of the operating system on return.

        Raises:
            OSError: the file cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(record) + "\n"
        if not self._checked and self._torn():
            line = "\n" + line
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line)
        self._checked = True

    def _torn(self) -> bool:
        """Whether the last line has no end."""
        if not self.path.exists() or self.path.stat().st_size == 0:
            return False
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
