"""`python -m unmixer_core.live doctor`.

What answers, what is missing and how to get it, how fast, how late, how repeatable.

Looks at Live as UNMIXER_LIVE_HOST names it, or at an embedded host of our own. Every finding is one
line; the exit status is 0 when all are good. Tracks are made for the test takes and deleted again.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unmixer_core.errors import HostError, RecordingError
from unmixer_core.live.farm.hosts import EmbeddedHost
from unmixer_core.live.osc.client import Client
from unmixer_core.live.osc.transport import Endpoint, Transport, connect, traced
from unmixer_core.live.repeatability import compare
from unmixer_core.live.session.session import COUNT_IN_S, INSERTS_SINCE, HostInfo, Session, probe
from unmixer_core.live.session.take import Clip, Take
from unmixer_core.live.track.stock import INSTALL
from unmixer_core.live.track.tracks import left_behind, track_names
from unmixer_core.schema.patch import Patch

PINGS = 20
#: Two takes of one patch that differ by more than this are not repeatable enough to learn from.
FLOOR_DB = -60.0
TEST_CHAIN = ("Saturator", "Compressor", "Reverb")


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    good: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok ' if self.good else 'BAD'}  {self.text}"


@dataclass(frozen=True)
class Question:
    """Which host: an embedded one with `host_options` if `embedded`, or if the environment names
    none.
    """

    take: Take
    trace: Path | None = None
    embedded: bool = False
    host_options: Sequence[str] = ()

    @property
    def starts_host(self) -> bool:
        return self.embedded or not os.environ.get("UNMIXER_LIVE_HOST")


async def examine(question: Question) -> list[Finding]:
    """All findings; effects whose parameters differ are named one by one, any other HostError is
    the last finding.
    """
    findings: list[Finding] = []
    try:
        async with _connected(question) as (transport, endpoint, own_folder):
            client = Client(transport, str(endpoint))
            try:
                session = Session(client, question.take, await probe(client, endpoint))
            except BaseException:
                client.close()
                raise
            try:
                findings += await _who_answers(session.client, session.info)
                drifted: list[HostError] = []
                try:
                    await session.build(lanes=1, own_folder=own_folder, drifted=drifted)
                finally:
                    findings += [Finding(False, str(error)) for error in drifted]
                findings += await _what_it_can(session)
                findings.append(await _latency(session.client))
                findings += await _alignment(session)
                findings += await _repeatability(session)
            finally:
                await session.close()
    except HostError as error:
        findings.append(Finding(False, str(error)))
    return findings


@asynccontextmanager
async def _connected(question: Question) -> AsyncIterator[tuple[Transport, Endpoint, Path | None]]:
    """A transport to the host, which the session closes, and the folder of its recordings."""
    if not question.starts_host:
        endpoint = Endpoint.from_environment()
        yield connect(endpoint, question.trace), endpoint, None
        return
    host = EmbeddedHost(question.take.sample_rate, question.host_options)
    try:
        transport = await host.start()
        yield traced(transport, question.trace), host.endpoint, host.recordings
    finally:
        await host.stop()


async def _who_answers(client: Client, info: HostInfo) -> list[Finding]:
    """Versions, and tracks that another client has, or left, in the set."""
    major, minor = info.version
    findings = [Finding(True, f"Live {major}.{minor} answers at {client.where}")]
    if info.inserts:
        findings.append(
            Finding(
                True,
                f"companion script {info.companion} answers: devices are inserted and ordered by "
                f"it",
            )
        )
    elif info.companion:
        needed = ".".join(map(str, INSERTS_SINCE))
        findings.append(
            Finding(
                True,
                f"companion script {info.companion} answers, but inserting needs Live {needed}: "
                f"the template set is used",
            )
        )
    else:
        findings.append(
            Finding(
                True,
                f"stock AbletonOSC, so the template set is used; for free choice of everything, "
                f"{INSTALL}",
            )
        )
    if others := left_behind(await track_names(client)):
        findings.append(
            Finding(
                False,
                f"tracks of another session are in the set ({', '.join(others[:3])}): end the "
                f"other client if one "
                "is at work, or delete these tracks by hand",
            )
        )
    return findings


async def _what_it_can(session: Session) -> list[Finding]:
    """Devices by name and class; what is frozen."""
    lane = session.lanes[0]
    classes = {state.table.class_name: name for name, state in lane.state.items()}
    names = ", ".join(f"{name} ({class_name})" for class_name, name in classes.items())
    findings = [
        Finding(True, f"every learned parameter of {len(classes)} devices found by name: {names}")
    ]
    if session.frozen is not None:
        findings.append(Finding(True, session.frozen.describe()))
    return findings


async def _latency(client: Client) -> Finding:
    times_ms = []
    for _ in range(PINGS):
        start = time.perf_counter()
        await client.query("/live/test")
        times_ms.append(1000.0 * (time.perf_counter() - start))
    return Finding(
        True,
        f"latency: median {statistics.median(times_ms):.1f} ms, worst {max(times_ms):.1f} ms of "
        f"{PINGS}",
    )


async def _alignment(session: Session) -> list[Finding]:
    """A click: when its recording starts, and how late it sounds, which is taken off every take
    of a session.
    """
    (offset,) = await session.calibrate()
    rate, started_s = session.take.sample_rate, session.recorders[0].started_s
    counted_in = "" if started_s <= COUNT_IN_S else "; set Live's Record > Count-In to None"
    return [
        Finding(
            not counted_in,
            f"recording starts {1000.0 * started_s:.0f} ms after it is fired{counted_in}",
        ),
        Finding(
            True,
            f"alignment: takes begin {offset} samples ({1000.0 * offset / rate:.2f} ms) late, "
            f"which is taken off",
        ),
    ]


async def _repeatability(session: Session) -> list[Finding]:
    """A dry and a full patch, each taken twice.

    Then the dry one again, into which no tail of the full one may run.
    """
    chain = tuple(name for name in TEST_CHAIN if name in session.lanes[0].state)
    dry, full = Patch.init(), Patch.init(effects=chain)
    takes = [await session.render(0, patch) for patch in (dry, dry, full, full, dry)]
    if not min(np.abs(take).max() for take in takes) > 0.0:
        raise RecordingError("a test recording is silent: is the lane routed to its capture track?")
    return [
        _compared("repeatability, dry patch: second take", takes[0], takes[1]),
        _compared(
            f"repeatability, {' > '.join(chain) or 'no effects'}: second take", takes[2], takes[3]
        ),
        _compared("tails: the dry patch right after a reverb", takes[0], takes[4]),
    ]


def _compared(what: str, first: Clip, second: Clip) -> Finding:
    difference = compare(first, second)
    return Finding(
        difference.residual_db <= FLOOR_DB,
        f"{what} differs by {difference.residual_db:.0f} dB (energy of the difference), "
        f"{difference.level_db:+.2f} dB in level, {difference.spectral_db:.2f} dB in multi-scale "
        f"spectrum",
    )


def run(question: Question) -> int:
    """Prints the findings; 0 when all are good, 1 otherwise."""
    findings = asyncio.run(examine(question))
    for finding in findings:
        print(finding)
    return 0 if all(finding.good for finding in findings) else 1
