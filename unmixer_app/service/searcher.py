"""`python -m unmixer_app.service.searcher MODELS`: load the resources once, then run searches.

SIGUSR1 ends a search with the best candidate so far, SIGUSR2 ends it without an answer. Between two
searches both do nothing.
"""

from __future__ import annotations

import io
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from unmixer_app.answer import resources as answer_resources
from unmixer_app.answer.progress import ProgressLine
from unmixer_app.service import heard_file, options
from unmixer_core import audio, config
from unmixer_core.errors import UnmixerError
from unmixer_core.recording import sound_file
from unmixer_core.recording.note import RecordedNote
from unmixer_core.system.child import ROOT, Wire
from unmixer_core.system.json_types import Json

if TYPE_CHECKING:
    from unmixer_core.search.candidates import Candidate
    from unmixer_core.search.context import SearchResources
    from unmixer_core.search.search import Search

#: The signal that ends a search with the best candidate so far.
KEEP = signal.SIGUSR1
#: The signal that ends a search without an answer.
DROP = signal.SIGUSR2
#: Seconds between two progress lines of the same step, at least.
LINE_INTERVAL_S = 0.2
#: Seconds between two writes of the best candidate's sound, at least.
SOUND_INTERVAL_S = 1.0
#: The file of the best candidate's sound, in the job's folder.
BEST = "best.wav"
#: Added to the nice value: the server and the renders of the page come before a search.
NICE_INCREMENT = 5


def main() -> None:
    """Answer requests {"folder", "out", "name", "options"}.

    "done" holds the content of patch.json, or null when the search was dropped.
    """
    wire = Wire()
    stop = _StopSignals()
    try:
        params = config.load(ROOT / "params.yaml")
        model = answer_resources.service_model(Path(sys.argv[1]))
        request = options.request({}, params, model)
        silent = ProgressLine("searcher", io.StringIO())
        hosts = int(os.environ["UNMIXER_THREADS"])
        with answer_resources.open_resources(request, silent, hosts) as resources:
            _warm_up(resources)
            os.nice(NICE_INCREMENT)
            wire.tell({})
            for job in wire:
                wire.tell(_answer(job, params, model, resources, wire, stop))
    except UnmixerError as error:
        wire.tell({"failed": " ".join(str(error).split())})


def _answer(
    job: Json,
    params: config.Params,
    model: Path,
    resources: SearchResources,
    wire: Wire,
    stop: _StopSignals,
) -> Json:
    """Run one job; return its last line, with "done" or "failed"."""
    try:
        return {"done": _search(job, params, model, resources, wire, stop)}
    except KeyboardInterrupt:
        return {"done": None}
    except UnmixerError as error:
        return {"failed": " ".join(str(error).split())}
    except Exception as error:
        traceback.print_exc()
        return {
            "failed": f"the search failed with {type(error).__name__}: {error}; please report this."
        }


def _search(
    job: Json,
    params: config.Params,
    model: Path,
    resources: SearchResources,
    wire: Wire,
    stop: _StopSignals,
) -> Json | None:
    """Run one search and write its answer; return patch.json's content, None when dropped."""
    from unmixer_app.answer import patch_file, write
    from unmixer_core.search import search as search_search
    from unmixer_core.system import limits

    request = options.request(job["options"], params, model)
    folder = Path(job["folder"])
    out = Path(job["out"])
    note = heard_file.read(folder)
    begun = time.perf_counter()
    itf = params.itf
    if request.itf_steps is not None:
        itf = itf.model_copy(update={"steps": request.itf_steps})
    search_options = search_search.SearchOptions(
        request.candidates, request.itf, request.fast, request.polish_s, request.constraints
    )
    progress = _ProgressLines(wire, params.unmix.chance_db, note, folder / BEST)
    with stop.enabled():
        search = search_search.Search(note, resources, params.unmix, itf, search_options, progress)
        progress.search = search
        stop.search = search
        found = search.run()
    if stop.dropped:
        return None
    progress("write", found.best)
    document = write.write(out, job["name"], note, found, request, begun)
    rerender, rate = audio.read(out / "rerender.wav")
    document["limits"] = limits.sentences(note.clip, rerender, rate, document["gate_s"])
    document["params"] = {"chance_db": params.unmix.chance_db, "poor_db": params.unmix.poor_db}
    patch_file.write(out / "patch.json", document)
    return document


def _warm_up(resources: SearchResources) -> None:
    """Do once what would slow the first search: imports, a render, a run of the network."""
    import cma  # noqa: F401
    import matplotlib.figure  # noqa: F401

    from unmixer_app.answer import write  # noqa: F401
    from unmixer_core.inference.posterior import PatchPosterior
    from unmixer_core.live.host import RenderFailure
    from unmixer_core.schema.patch import Patch

    (sound,) = resources.host.render([Patch.init()])
    if not isinstance(sound, RenderFailure):
        PatchPosterior.of(resources.model, sound).probabilities(48, 1.0)


class _StopSignals:
    """Signals that end the running search.

    A signal raises KeyboardInterrupt in the main thread, and cancels the search for its other
    threads.
    """

    def __init__(self) -> None:
        self.on = False
        #: Whether the last search was ended by DROP.
        self.dropped = False
        self.search: Search | None = None

    @contextmanager
    def enabled(self) -> Iterator[None]:
        """React to the signals inside the block."""
        self.on = True
        self.dropped = False
        self.search = None
        signal.signal(KEEP, self._receive)
        signal.signal(DROP, self._receive)
        try:
            yield
        finally:
            self.on = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self.on:
            return
        self.on = False
        self.dropped = number == DROP
        if self.search is not None:
            self.search.cancel()
        raise KeyboardInterrupt


class _ProgressLines:
    """Writes the search's progress as lines, a few a second.

    It also writes the best candidate's sound, at the recording's level, to `path`.
    """

    def __init__(self, wire: Wire, chance_db: float, note: RecordedNote, path: Path) -> None:
        self.wire = wire
        self.chance_db = chance_db
        self.note = note
        self.path = path
        #: Set before the search runs.
        self.search: Search | None = None
        self.step = ""
        self.line_s = 0.0
        self.sound_s = -math.inf
        self.sound_mss_db = math.inf
        self.line: Json = {}

    def __call__(self, step: str, best: Candidate | None) -> None:
        from unmixer_core.search import search as search_search

        now = time.perf_counter()
        if step == self.step and now - self.line_s < LINE_INTERVAL_S:
            return
        assert self.search is not None
        self.step = step
        self.line_s = now
        self.line = {"renders": self.search.renders, "seconds": round(self.search.seconds, 2)}
        if best is not None:
            self._write_sound(best, now)
            percent = search_search.similarity(best.mss_db, self.chance_db)
            self.line["best"] = {
                "mss_db": round(best.mss_db, 4),
                "similarity_percent": round(percent, 2),
                "chain": list(best.patch.effects),
                "source": best.source,
            }
        self.wire.tell({"step": step} | self.line)

    def _write_sound(self, best: Candidate, now: float) -> None:
        from unmixer_app.answer import write

        better = best.mss_db < self.sound_mss_db
        if better and now - self.sound_s > SOUND_INTERVAL_S:
            self.sound_mss_db = best.mss_db
            self.sound_s = now
            sound = write.matched(best.audio, self.note.clip)
            sound_file.write(self.path, sound, self.note.rate, "FLOAT")


if __name__ == "__main__":
    for number in (KEEP, DROP):
        signal.signal(number, signal.SIG_IGN)
    main()
