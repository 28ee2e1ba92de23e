"""Where a stage reports: numbers, figures, sounds and progress, to MLflow where there is a
tracker.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from unmixer_core.pipeline import tracking

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

Item = TypeVar("Item")
QUIET_SECONDS = 10.0


@runtime_checkable
class Log(Protocol):
    """Where a loop reports its curves and its progress; `StageLog` is one."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None: ...

    def progress(
        self, items: Iterable[Item], total: int | None = None, desc: str = ""
    ) -> Iterator[Item]: ...


class StageLog:
    """Where a stage reports.

    Without a tracker (tests, UNMIXER_TRACKING=off) everything but progress goes nowhere.
    """

    def __init__(self, tracker: tracking.Tracker | None = None) -> None:
        self._tracker = tracker

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Numbers of this moment; with a step they form a curve."""
        if self._tracker:
            self._tracker.metrics(values, step)

    def figure(self, name: str, figure: Figure) -> None:
        """A matplotlib figure, kept as plots/<name>.png."""
        if self._tracker:
            path = self._tracker.new_file(f"{name}.png")
            figure.savefig(path, dpi=100, bbox_inches="tight")
            self._tracker.artifact(path, "plots")

    def audio(self, name: str, audio: np.ndarray, sample_rate: int) -> None:
        """A clip, kept as audio/<name>.wav. Shape: audio [channel, time] in -1..1."""
        if self._tracker:
            import soundfile

            path = self._tracker.new_file(f"{name}.wav")
            soundfile.write(path, audio.T, sample_rate)
            self._tracker.artifact(path, "audio")

    def text(self, name: str, text: str) -> None:
        """A text file `name` with its extension, for example report.md."""
        if self._tracker:
            path = self._tracker.new_file(name)
            path.write_text(text, encoding="utf-8")
            self._tracker.artifact(path)

    def artifact(self, path: str | Path) -> None:
        """A copy of a file or folder as it is now."""
        if self._tracker:
            self._tracker.artifact(Path(path))

    def progress(
        self, items: Iterable[Item], total: int | None = None, desc: str = ""
    ) -> Iterator[Item]:
        """The same items, with a bar (rate, time left) on a terminal, else one line every ten
        seconds; the first of several ranks alone shows it.
        """
        if not first_rank():
            return iter(items)
        if total is None and hasattr(items, "__len__"):
            total = len(items)  # type: ignore[arg-type]
        if sys.stderr.isatty():
            from tqdm import tqdm

            return iter(tqdm(items, total=total, desc=desc, dynamic_ncols=True, smoothing=0.1))
        return _lines(items, total, desc)


def _lines(items: Iterable[Item], total: int | None, desc: str) -> Iterator[Item]:
    started = spoken = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - spoken >= QUIET_SECONDS or (done == total and spoken > started):
            spoken = now
            sys.stderr.write(progress_line(desc, done, total, now - started) + "\n")
            sys.stderr.flush()


def progress_line(desc: str, done: int, total: int | None, seconds: float) -> str:
    """ "render 120/600 · 4.10/s · 1:57 left"."""
    rate = done / max(seconds, 1e-9)
    shown = f"{desc} {done}".strip() + (f"/{total}" if total else "") + f" · {rate:.3g}/s"
    if not total or done >= total:
        return f"{shown} · {_clock(seconds)} taken"
    return f"{shown} · {_clock((total - done) / rate)} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
    )


def first_rank() -> bool:
    """Whether this is the process that writes and speaks.

    The only one, or the first of several ranks.
    """
    return os.environ.get("RANK", "0") == "0"
