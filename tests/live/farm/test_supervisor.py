"""The render pool on hosts that misbehave on cue.

Leases, pings, back-off, quarantine, and one outcome per patch.

The hosts implement pool.Host inside the test; their clips are noise seeded by the patch, so that a
wrong one shows.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from unmixer_core.errors import HostDied, HostError, RecordingError
from unmixer_core.live import renderer as render
from unmixer_core.live.farm import supervisor
from unmixer_core.live.farm.host_list import HostSpec, embedded
from unmixer_core.live.farm.pool import PATCH_TRIES, ReadyHost, SessionLost
from unmixer_core.live.host import RenderFailure
from unmixer_core.live.renderer import Renderer
from unmixer_core.live.track.frozen import FrozenTrack
from unmixer_core.schema.patch import Patch

AUDIO = SimpleNamespace(sample_rate=8000, clip_s=0.1, velocity=100)


#: Of every render that was begun on any host: its patch, and how many were under way on its host.
order: list[tuple[str, int]] = []


def sound(patch: Patch) -> np.ndarray:
    return (
        np.random.default_rng(int(patch.digest, 16)).uniform(-0.5, 0.5, (2, 800)).astype(np.float32)
    )


class FakeHost:
    """Renders in a millisecond; `behave(host, patch)` may wait, raise, or do nothing."""

    def __init__(self, spec: HostSpec, behave) -> None:
        self.spec, self.name, self.behave = spec, spec.name, behave
        self.opened = self.pinged = self.under_way = self.most = 0
        self.rendered: list[str] = []
        self.companions: list[tuple[str, int]] = []
        self.times: list[float] = []
        self.frozen: FrozenTrack | None = None
        self.hangs = self.deaf = self.dead = False

    async def open(self) -> ReadyHost:
        self.opened += 1
        self.times.append(asyncio.get_running_loop().time())
        if self.dead:
            raise HostDied(f"{self.name} is not there.")
        return ReadyHost(self.spec.lanes, self.frozen)

    async def render(self, patch: Patch) -> np.ndarray:
        self.under_way += 1
        self.companions.append((patch.digest, self.under_way))
        order.append((patch.digest, self.under_way))
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(0.001)
            await self.behave(self, patch)
            self.rendered.append(patch.digest)
            return sound(patch)
        finally:
            self.under_way -= 1

    async def ping(self) -> None:
        self.pinged += 1
        if self.deaf:
            await asyncio.Event().wait()

    async def close(self) -> None:
        pass


async def well(_host, _patch) -> None:
    """Nothing happens."""


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    for name, value in {
        "PAUSE_S": 0.01,
        "ASIDE_S": 0.2,
        "LEASE_S": 0.3,
        "PING_EVERY_S": 0.1,
        "PING_WITHIN_S": 0.1,
    }.items():
        monkeypatch.setattr(supervisor, name, value)
    order.clear()


@contextmanager
def pool(monkeypatch, n: int, behave=well, *, lanes: int = 2, prepare=lambda hosts: None):
    """A Renderer on n fake hosts, and the hosts."""
    hosts: list[FakeHost] = []

    def make(spec, take, trace):
        hosts.append(FakeHost(spec, behave))
        if len(hosts) == n:
            prepare(hosts)
        return hosts[-1]

    monkeypatch.setattr(render, "HostWorker", make)
    monkeypatch.setattr(render, "configured", lambda: embedded(n, lanes))
    with Renderer(AUDIO) as renderer:
        yield renderer, hosts


def patches(n: int) -> list[Patch]:
    return [Patch.init(36 + i % 60, 0.1 + 0.001 * i) for i in range(n)]


def right(outcomes: list, wanted: list[Patch]) -> bool:
    return all(
        np.array_equal(clip, sound(patch)) for clip, patch in zip(outcomes, wanted, strict=True)
    )


def test_every_patch_comes_once_and_every_lane_is_used(monkeypatch):
    wanted = patches(60)
    with pool(monkeypatch, 3) as (renderer, hosts):
        places = [index for index, _ in renderer.map(wanted)]
        assert sorted(places) == list(range(60))
        assert right(renderer.render(wanted), wanted)
    assert all(host.most == 2 and host.rendered for host in hosts)


def test_a_failed_take_goes_to_another_host(monkeypatch):
    async def spoil(host, patch):
        if host.name.endswith("1"):
            raise RecordingError("the take is short.")

    wanted = patches(20)
    with pool(monkeypatch, 2, spoil) as (renderer, hosts):
        assert right(renderer.render(wanted), wanted)
    tried = Counter(digest for digest, _ in hosts[0].companions)
    assert tried and max(tried.values()) == 1  # never twice on the host that failed it
    assert sorted(hosts[1].rendered) == sorted(patch.digest for patch in wanted)


def test_a_patch_that_fails_everywhere_is_a_failure_with_its_reason(monkeypatch):
    wanted = patches(6)

    async def spoil(_host, patch):
        if patch.digest == wanted[2].digest:
            raise RecordingError("the take is short.")

    with pool(monkeypatch, 2, spoil) as (renderer, hosts):
        outcomes = renderer.render(wanted)
    failure = outcomes.pop(2)
    assert isinstance(
        failure, RenderFailure
    ) and "all 3 tries failed, the last because the take is short." in str(failure)
    assert right(outcomes, wanted[:2] + wanted[3:])
    assert (
        sum(digest == wanted[2].digest for host in hosts for digest, _ in host.companions)
        == PATCH_TRIES
    )


def test_a_host_that_is_lost_costs_no_patch_and_its_suspects_are_tried_alone(monkeypatch):
    wanted, killed = patches(30), []

    async def die(host, patch):
        if patch.digest == wanted[7].digest and len(killed) < 2:
            killed.append(host.name)
            raise SessionLost(HostDied("it ended."))

    with pool(monkeypatch, 2, die, lanes=4) as (renderer, _):
        assert right(renderer.render(wanted), wanted)
    assert len(killed) == 2 and killed[0] != killed[1], "the second try is another host's"
    tries = [count for digest, count in order if digest == wanted[7].digest]
    assert len(tries) == 3 and tries[1:] == [1, 1], "nothing else was under way beside the suspect"


def test_a_lease_that_ends_nowhere_goes_to_another_host(monkeypatch):
    async def hang(host, patch):
        if host.name.endswith("1") and len(host.rendered) >= 2:
            await asyncio.Event().wait()

    wanted = patches(20)
    with pool(monkeypatch, 2, hang) as (renderer, hosts):
        assert right(renderer.render(wanted), wanted)
        wait(
            lambda: hosts[0].opened > 1
        )  # its session was given up, and another is opened after a pause


def test_a_host_is_closed_to_the_end_though_its_keeper_is_cancelled(monkeypatch):
    closed = []

    async def slowly(_host):
        await asyncio.sleep(0.2)
        closed.append(True)

    async def fail(_host, _patch):
        raise SessionLost(HostDied("it is gone."))

    monkeypatch.setattr(FakeHost, "close", slowly)
    with pool(monkeypatch, 1, fail) as (renderer, _):
        renderer.render(patches(1))  # the last failure is known before the session is closed
        begun = len(closed)
    assert len(closed) > begun


def test_a_host_that_hears_no_ping_gets_a_new_session(monkeypatch):
    with pool(monkeypatch, 1) as (renderer, (host,)):
        host.deaf = True
        wait(lambda: host.opened >= 2)
        host.deaf = False
        pinged = host.pinged
        wait(lambda: host.pinged > pinged)
        assert right(renderer.render(patches(3)), patches(3))


def test_pauses_grow_and_a_host_that_fails_too_often_is_set_aside_and_tried_again(
    monkeypatch, caplog
):
    monkeypatch.setattr(supervisor, "PAUSE_S", 0.05)
    wanted = patches(4)
    with pool(monkeypatch, 2, prepare=lambda hosts: setattr(hosts[1], "dead", True)) as (
        renderer,
        hosts,
    ):
        assert right(renderer.render(wanted), wanted), "the other host is enough"
        dead = hosts[1]
        wait(lambda: "set aside" in caplog.text)
        assert dead.opened == supervisor.HOST_TRIES and "embedded host 2" in caplog.text
        gaps = np.diff(dead.times[: supervisor.HOST_TRIES])
        assert len(gaps) == 5 and all(gap >= 0.99 * 0.05 * 2**i for i, gap in enumerate(gaps))
        dead.dead = False
        renderer.render(wanted)  # somebody has patches: it is called before its time is over
        wait(lambda: dead.opened > supervisor.HOST_TRIES)
        wait(lambda: renderer.render(patches(20)) and dead.rendered)


def test_when_no_host_is_left_the_reason_is_raised_and_what_is_done_is_kept(monkeypatch):
    kept = []

    async def die(host, _patch):
        if len(host.rendered) >= 3:
            host.dead = True
            raise SessionLost(HostDied("it ended."))

    with pool(monkeypatch, 2, die) as (renderer, hosts):
        with pytest.raises(HostError, match="is not there"):
            for index, _ in renderer.map(patches(50)):
                kept.append(index)
        assert 5 <= len(kept) <= 8
        with pytest.raises(HostError, match="is not there"):
            renderer.render(patches(2))  # each is tried once more, and says so
        for host in hosts:
            host.dead, host.behave = False, well
        assert right(renderer.render(patches(5)), patches(5)), "and goes on when they are back"


def test_no_host_at_the_start_is_an_error_at_once(monkeypatch):
    with pytest.raises(HostDied, match="embedded host 1 is not there"):
        with pool(
            monkeypatch, 2, prepare=lambda hosts: [setattr(host, "dead", True) for host in hosts]
        ):
            pass


def test_hosts_with_different_frozen_choices_do_not_render_one_data_set(monkeypatch, caplog):
    def freeze(hosts):
        hosts[0].frozen, hosts[1].frozen = (
            FrozenTrack({"wavetable.osc_1_wavetable": item}) for item in ("Basic Shapes", "Void")
        )

    with pool(monkeypatch, 2, prepare=freeze) as (renderer, hosts):
        assert "other frozen choices than the run began with" in caplog.text
        renderer.render(patches(6))
    assert sorted(map(len, (host.rendered for host in hosts))) == [0, 6]


def test_a_patch_that_is_rendered_twice_counts_once(monkeypatch):
    """A lease that ran out is rendered elsewhere.

    The first host's clip, should it come all the same, is dropped.
    """

    async def late(host, patch):
        if host.name.endswith("1") and not host.rendered:
            try:
                await asyncio.sleep(10.0)
            except asyncio.CancelledError:
                return  # it does not stop when told to, and delivers

    wanted = patches(8)
    with pool(monkeypatch, 2, late) as (renderer, _):
        places = [index for index, _ in renderer.map(wanted)]
    assert sorted(places) == list(range(8))


def wait(condition, patience_s: float = 20.0) -> None:
    import time

    until_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.01)
