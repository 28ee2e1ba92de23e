"""`python -m unmixer_core.live doctor`: what answers, what is missing and how to get it, how fast and how repeatable it is."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unmixer_core.errors import HostError
from unmixer_core.live.hosts import EmbeddedHost
from unmixer_core.live.recorder import Clip, Take
from unmixer_core.live.session import Session
from unmixer_core.live.transport import Endpoint
from unmixer_core.schema.chain import commutes
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK

PINGS = 20
OLDEST = (12, 3)
FLOOR_DB = -60.0
"""Two takes of one patch that differ by more than this are not repeatable enough to learn from."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    good: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok ' if self.good else 'BAD'}  {self.text}"


async def examine(take: Take, trace: Path | None = None) -> list[Finding]:
    """Looks at the host that the environment names (an embedded one if it names none); ends at the first HostError."""
    findings: list[Finding] = []
    try:
        async with _session(take, trace) as session:
            major, minor = session.info.version
            modern = (major, minor) >= OLDEST
            findings.append(
                Finding(
                    modern,
                    f"Live {major}.{minor} answers at {session.client.where}{'' if modern else '; inserting devices needs 12.3'}",
                )
            )
            findings.append(Finding(True, f"companion script {session.info.companion} answers"))
            findings.append(
                Finding(True, f"{', '.join(session.lanes[0].devices)}: every learned parameter found by name")
            )
            findings.append(await _latency(session))
            findings += await _repeatability(session)
    except HostError as error:
        findings.append(Finding(False, str(error)))
    return findings


@asynccontextmanager
async def _session(take: Take, trace: Path | None) -> AsyncIterator[Session]:
    if os.environ.get("UNMIXER_LIVE_HOST"):
        async with await Session.open(Endpoint.from_environment(), take, lanes=1, trace=trace) as session:
            yield session
        return
    host = EmbeddedHost(take.sample_rate)
    try:
        transport = await host.start()
        async with await Session.open(host.endpoint, take, lanes=1, transport=transport, delete_files=True) as session:
            yield session
    finally:
        await host.stop()


async def _latency(session: Session) -> Finding:
    times_ms = []
    for _ in range(PINGS):
        start = time.perf_counter()
        await session.client.query("/live/test")
        times_ms.append(1000.0 * (time.perf_counter() - start))
    return Finding(
        True, f"latency: median {statistics.median(times_ms):.1f} ms, worst {max(times_ms):.1f} ms of {PINGS}"
    )


async def _repeatability(session: Session) -> list[Finding]:
    """A dry and a full patch, each taken twice."""
    findings = []
    chain = [name for name in RACK.effect_names if not commutes(name, name)][:2] + ["Reverb"]
    for label, effects in (("dry patch", []), (" > ".join(chain), chain)):
        patch = Patch.init(effects=effects)
        first = await session.render(0, patch)
        second = await session.render(0, patch)
        difference_db = residual_db(first, second)
        findings.append(
            Finding(difference_db <= FLOOR_DB, f"repeatability, {label}: second take differs by {difference_db:.0f} dB")
        )
        if not np.abs(first).max() > 0.0:
            findings.append(
                Finding(False, f"the recording of the {label} is silent: is the lane routed to its capture track?")
            )
    return findings


def residual_db(first: Clip, second: Clip) -> float:
    """Energy of the difference of two takes over the first's energy, in dB; −200 when they are bit-equal."""
    energy = float(np.square(first, dtype=np.float64).sum())
    difference = float(np.square(first.astype(np.float64) - second).sum())
    return 10.0 * float(np.log10(max(difference, 1e-20 * max(energy, 1e-20)) / max(energy, 1e-20)))


def run(take: Take, trace: Path | None = None) -> int:
    """Prints the findings; 0 when all are good."""
    findings = asyncio.run(examine(take, trace))
    for finding in findings:
        print(finding)
    return 0 if all(finding.good for finding in findings) else 1
