"""`python -m unmixer_app.service.searcher MODELS`: model, proxy and hosts loaded once.

One search after another.

SIGUSR1 ends a search with the best so far, SIGUSR2 without an answer; between searches both do
nothing.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unmixer_app.answer import sounds
from unmixer_app.answer import tools as answer_tools
from unmixer_app.answer.progress import Progress
from unmixer_app.service import heard_file, options
from unmixer_core import audio, config
from unmixer_core.errors import UnmixerError
from unmixer_core.recording.note import RecordedNote
from unmixer_core.system.child import ROOT, Wire
from unmixer_core.system.json_types import Json

KEEP, DROP = signal.SIGUSR1, signal.SIGUSR2
TELL_EVERY_S, SOUND_EVERY_S = 0.2, 1.0
BEST = "best.wav"
#: Added to the nice value: a search leaves the processor to the server and to knobs that are being
#: turned.
PATIENT = 5


def main() -> None:
    """Requests are {"folder", "out", "name", "options"}.

    Done is the answer's patch.json, or null when it was dropped.
    """
    wire, stop = Wire(), _Stop()
    try:
        params = config.load(ROOT / "params.yaml")
        request = options.request({}, params, answer_tools.service_model(Path(sys.argv[1])))
        with answer_tools.tools(
            request, Progress("searcher", io.StringIO()), int(os.environ["UNMIXER_THREADS"])
        ) as tools:
            _warm(params, tools)
            os.nice(PATIENT)
            wire.tell({})
            for asked in wire:
                wire.tell(_one(asked, params, tools, wire, stop))
    except UnmixerError as error:
        wire.tell({"failed": " ".join(str(error).split())})


def _one(asked: Json, params: config.Params, tools: Any, wire: Wire, stop: _Stop) -> Json:
    try:
        return {"done": _search(asked, params, tools, wire, stop)}
    except KeyboardInterrupt:
        return {"done": None}
    except UnmixerError as error:
        return {"failed": " ".join(str(error).split())}
    except Exception as error:
        traceback.print_exc()
        return {
            "failed": f"the search failed with {type(error).__name__}: {error}; please report this."
        }


def _search(asked: Json, params: config.Params, tools: Any, wire: Wire, stop: _Stop) -> Json | None:
    from unmixer_app.answer import patch_file, write
    from unmixer_core.search import search as search_search
    from unmixer_core.system import limits

    model = answer_tools.service_model(Path(sys.argv[1]))
    request = options.request(asked["options"], params, model)
    heard, begun = heard_file.read(Path(asked["folder"])), time.perf_counter()
    itf = (
        params.itf
        if request.itf_steps is None
        else params.itf.model_copy(update={"steps": request.itf_steps})
    )
    wanted = search_search.SearchOptions(
        request.candidates, request.itf, request.fast, request.polish_s, request.constraints
    )
    tell = _Tell(wire, params.unmix.chance_db, heard, Path(asked["folder"]) / BEST)
    with stop.possible():
        search = search_search.Search(heard, tools, params.unmix, itf, wanted, tell)
        tell.search = stop.search = search
        found = search.run()
    if stop.dropped:
        return None
    tell("write", found.best)
    document = write.write(Path(asked["out"]), asked["name"], heard, found, request, begun)
    rerender, rate = audio.read(Path(asked["out"]) / "rerender.wav")
    document["limits"] = limits.sentences(heard.clip, rerender, rate, document["gate_s"])
    document["params"] = {"chance_db": params.unmix.chance_db, "poor_db": params.unmix.poor_db}
    patch_file.write(Path(asked["out"]) / "patch.json", document)
    return document


def _warm(params: config.Params, tools: Any) -> None:
    """What the first search would wait for: imports, a render, a look through the network."""
    import cma  # noqa: F401
    import matplotlib.figure  # noqa: F401

    from unmixer_app.answer import write  # noqa: F401
    from unmixer_core.inference.posterior import PatchPosterior
    from unmixer_core.schema.patch import Patch

    (sound,) = tools.host.render([Patch.init()])
    if not isinstance(sound, Exception) and hasattr(sound, "shape"):
        PatchPosterior.of(tools.model, sound).probabilities(48, 1.0)


@dataclass
class _Stop:
    """Signals → KeyboardInterrupt in this thread and `Search.cancel` for the others, while a
    search can be stopped.
    """

    on: bool = False
    dropped: bool = False
    search: Any = None

    @contextmanager
    def possible(self) -> Iterator[None]:
        self.on, self.dropped, self.search = True, False, None
        signal.signal(KEEP, self._take)
        signal.signal(DROP, self._take)
        try:
            yield
        finally:
            self.on = False

    def _take(self, number: int, frame: Any) -> None:
        if self.on:
            self.on, self.dropped = False, number == DROP
            if self.search is not None:
                self.search.cancel()
            raise KeyboardInterrupt


class _Tell:
    """The search's progress as lines, a few a second.

    The best so far also as sound, at the recording's level.
    """

    def __init__(self, wire: Wire, chance_db: float, heard: RecordedNote, path: Path) -> None:
        self.wire, self.chance_db, self.heard, self.path = wire, chance_db, heard, path
        self.search: Any = None
        self.last_s, self.step = 0.0, ""
        self.known: Json = {}
        self.written_db, self.written_s = math.inf, -math.inf

    def __call__(self, step: str, best: Any) -> None:
        from unmixer_core.search import search as search_search

        now = time.perf_counter()
        if step == self.step and now - self.last_s < TELL_EVERY_S:
            return
        self.step, self.last_s = step, now
        self.known = {"renders": self.search.renders, "seconds": round(self.search.seconds, 2)}
        if best is not None:
            self._sound(best, now)
            self.known["best"] = {
                "mss_db": round(best.mss_db, 4),
                "similarity_percent": round(
                    search_search.similarity(best.mss_db, self.chance_db), 2
                ),
                "chain": list(best.patch.effects),
                "source": best.source,
            }
        self.wire.tell({"step": step} | self.known)

    def _sound(self, best: Any, now: float) -> None:
        from unmixer_app.answer import write

        if best.mss_db < self.written_db and now - self.written_s > SOUND_EVERY_S:
            self.written_db, self.written_s = best.mss_db, now
            sounds.write(
                self.path, write.matched(best.audio, self.heard.clip), self.heard.rate, "FLOAT"
            )


if __name__ == "__main__":
    for quiet in (KEEP, DROP):
        signal.signal(quiet, signal.SIG_IGN)
    main()
