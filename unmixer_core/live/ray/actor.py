"""What runs in a Ray actor: one host's worker, and its outcomes as values (Ray would wrap
exceptions in its own).
"""

from __future__ import annotations

import os
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from unmixer_core.errors import HostError, ReadbackMismatch, RecordingError
from unmixer_core.live.farm.host_list import HostSpec
from unmixer_core.live.farm.pool import SessionLost
from unmixer_core.live.farm.supervisor import named
from unmixer_core.live.farm.workers import HostWorker
from unmixer_core.live.session.take import Take
from unmixer_core.schema.patch import Patch

#: ("done", value), ("failed", HostError) or ("lost", HostError).
Outcome = tuple[str, Any]


class HostActor:
    """`pid` is what a message names when the actor dies.

    Ray runs the constructor again when it restarts an actor.
    """

    def __init__(self, spec: HostSpec, take: Take, trace: Path | None) -> None:
        self._worker = HostWorker(spec, take, trace)

    async def pid(self) -> int:
        return os.getpid()

    async def open(self) -> Outcome:
        return await _outcome(self._worker.open())

    async def render(self, patch: Patch) -> Outcome:
        return await _outcome(self._worker.render(patch))

    async def ping(self) -> Outcome:
        return await _outcome(self._worker.ping())

    async def close(self) -> Outcome:
        return await _outcome(self._worker.close())


async def _outcome(work: Awaitable[Any]) -> Outcome:
    try:
        return "done", await work
    except SessionLost as lost:
        return "lost", lost.cause
    except (RecordingError, ReadbackMismatch) as failed:
        return "failed", failed
    except HostError as error:
        return "failed", error
    except Exception as problem:
        return "lost", named(problem)
