"""What a person sees of a search: a line a step, each told once where lines stay."""

from __future__ import annotations

import io
from types import SimpleNamespace

from unmixer_app.answer.progress import WORDS, ProgressLine

BEST = SimpleNamespace(mss_db=2.5, patch=SimpleNamespace(effects=("Saturator", "Reverb")))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_steps_that_come_by_turns_are_told_once_in_a_log():
    stream = io.StringIO()
    tell = ProgressLine("a.wav", stream)
    for step in ("propose", *("refine", "corrected", "changed") * 5, "polished"):
        tell(step, BEST)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 5 and all("best 2.50 dB (Saturator > Reverb)" in line for line in lines)
    assert [
        WORDS[step] in line
        for step, line in zip(("propose", "refine", "corrected"), lines, strict=False)
    ] == [True] * 3


def test_a_terminal_shows_every_step_as_it_comes():
    stream = Terminal()
    tell = ProgressLine("a.wav", stream)
    for step in ("refine", "changed", "refine"):
        tell(step, None)
    assert stream.getvalue().count("\r") == 3 and "\n" not in stream.getvalue()
