"""The progress of a search on standard error.

A terminal shows one line that changes. Elsewhere every step is one line.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from unmixer_core.recording.sound_file import shown

if TYPE_CHECKING:
    from unmixer_core.search.candidates import Candidate

WORDS = {
    "load": "loading",
    "propose": "proposing",
    "proposal": "rendering proposals",
    "refine": "refining",
    "refined": "rendering refinements",
    "corrected": "refining by what the host said",
    "changed": "trying changes",
    "polished": "polishing on the host",
}
#: Seconds between two updates of the line on a terminal.
EVERY_S = 0.2
#: Columns of the line on a terminal.
WIDTH = 78


class ProgressLine:
    """Call it with a step and the best candidate so far; `done` ends the line.

    Away from a terminal, a step that comes again is not printed again.
    """

    def __init__(self, name: str, stream: TextIO | None = None) -> None:
        self.name = shown(Path(name))
        self.stream = stream or sys.stderr
        self.begun = time.perf_counter()
        #: Seconds from the beginning to the last line.
        self.last_s = 0.0
        self.step = ""
        self.printed: set[str] = set()

    def __call__(self, step: str, best: Candidate | None) -> None:
        seconds = time.perf_counter() - self.begun
        live = self.stream.isatty()
        new = step != self.step if live else step not in self.printed
        if not new and (not live or seconds - self.last_s < EVERY_S):
            return
        self.step, self.last_s = step, seconds
        self.printed.add(step)
        found = (
            ""
            if best is None
            else f", best {best.mss_db:.2f} dB ({' > '.join(best.patch.effects) or 'no effects'})"
        )
        line = f"{self.name}: {WORDS.get(step, step)}{found}, {seconds:.0f} s"
        self.stream.write(f"\r{line[:WIDTH]:<{WIDTH}}" if live else f"{line}\n")
        self.stream.flush()

    def done(self, words: str) -> None:
        start = "\r" if self.stream.isatty() else ""
        self.stream.write(f"{start}{f'{self.name}: {words}':<{WIDTH if start else 0}}\n")
        self.stream.flush()
