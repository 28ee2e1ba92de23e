"""Real processes, real sound: the renderer on embedded hosts, and what it does when they die."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from contextlib import asynccontextmanager
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from tests.processes import with_words
from unmixer_core.errors import HostDied, HostError
from unmixer_core.live.farm import hosts as hosts_module
from unmixer_core.live.farm import supervisor
from unmixer_core.live.farm.hosts import PREFIX, EmbeddedHost, _sweep
from unmixer_core.live.host import RenderFailure
from unmixer_core.live.osc import wire
from unmixer_core.live.osc.client import Client
from unmixer_core.live.osc.transport import Endpoint, UdpTransport
from unmixer_core.live.renderer import Renderer
from unmixer_core.live.track.frozen import frozen_of
from unmixer_core.live.track.tracks import track_names
from unmixer_core.schema.patch import Patch

pytestmark = pytest.mark.skipif(
    find_spec("vita") is None, reason="the embedded host sounds through vita"
)
AUDIO = SimpleNamespace(sample_rate=44100, clip_s=0.5, velocity=100)


def patches(n):
    chains = [[], ["Saturator", "Delay"], ["Delay", "Saturator"], ["Reverb"]]
    return [
        Patch.init(40 + i, 0.3, chains[i % 4]).with_values(
            {"wavetable.osc_1_pos": i / n, "saturator.drive": 0.9}
        )
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def renderer():
    with Renderer(AUDIO, n_hosts=1, lanes=2) as started:
        yield started


def hosts():
    return with_words("unmixer_core.headless")


def test_clips_come_in_the_order_of_the_patches_and_are_repeatable(renderer):
    wanted = patches(5)
    first, again = renderer.render(wanted), renderer.render(wanted[::-1])[::-1]
    for a, b in zip(first, again, strict=True):
        assert a.dtype == np.float32 and a.shape == (2, 22050) and np.abs(a).max() > 1e-3
        np.testing.assert_array_equal(a, b)


def test_the_order_of_effects_is_heard(renderer):
    dry, one, other, _ = renderer.render([Patch.init(45, 0.3, effects) for effects in _orders()])
    assert np.abs(one - other).max() > 1e-3 and np.abs(one - dry).max() > 1e-3


def _orders():
    return [[], ["Saturator", "Compressor", "Delay"], ["Delay", "Compressor", "Saturator"], []]


def test_map_takes_no_more_patches_than_it_can_use_and_may_be_left_early(renderer):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield Patch.init(50)

    for index, clip in renderer.map(endless()):
        assert index < 8 and clip.shape == (2, 22050)
        break
    assert len(taken) <= 8
    assert len(renderer.render(patches(2))) == 2  # and goes on


def test_a_host_that_is_killed_loses_no_patch(renderer):
    wanted = patches(6)
    whole = renderer.render(wanted)
    victim, result = hosts()[0], {}
    for index, clip in renderer.map(wanted):
        if not result:
            os.kill(victim.pid, signal.SIGKILL)
        result[index] = clip
    assert not any(isinstance(clip, RenderFailure) for clip in result.values())
    assert all(np.array_equal(result[i], clip) for i, clip in enumerate(whole))


def test_a_patch_that_kills_its_host_is_put_aside_and_takes_no_other_along(renderer):
    """It was never alone under way when its host died, but is tried alone before it is given up.

    So are its companions.
    """
    wanted = patches(8)
    whole = renderer.render(wanted)
    with Renderer(
        AUDIO, n_hosts=1, lanes=3, host_options=["--fault", f"crash:note={wanted[2].note}"]
    ) as deadly:
        clips = deadly.render(wanted)
    killer = clips.pop(2)
    assert isinstance(killer, RenderFailure) and "ended by signal 9" in killer.reason
    assert wanted[2].digest in str(killer) and "all 3 tries failed" in str(killer)
    assert all(np.array_equal(a, b) for a, b in zip(clips, [*whole[:2], *whole[3:]], strict=True))


def test_finished_renders_are_kept_when_the_host_is_lost_for_good(renderer, monkeypatch):
    monkeypatch.setattr(supervisor, "PAUSE_S", 0.01)
    wanted, kept, others = patches(6), {}, {host.pid for host in hosts()}
    whole = renderer.render(wanted)

    async def gone(_):
        raise HostDied("no host will start again.")

    with (
        Renderer(AUDIO, n_hosts=1, lanes=1) as failing,
        pytest.raises(HostError, match="no host will start again"),
    ):
        (victim,) = (host for host in hosts() if host.pid not in others)
        for index, clip in failing.map(wanted):
            kept[index] = clip
            monkeypatch.setattr(hosts_module.EmbeddedHost, "start", gone)
            victim.kill()
    assert kept and all(np.array_equal(whole[i], clip) for i, clip in kept.items())


def test_a_host_that_does_not_start_is_named_and_nothing_is_left_behind():
    with (
        pytest.raises(HostDied, match="ended with status"),
        Renderer(AUDIO, n_hosts=1, host_options=["--no-such-option"]),
    ):
        pass
    assert threading_names() <= {"MainThread", "unmixer-render"}


def threading_names():
    import threading

    return {
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith(("Main", "unmixer"))
    }


def test_hosts_end_with_the_renderer():
    with Renderer(AUDIO, n_hosts=1, lanes=1):
        before = hosts()
    assert before and not any(
        p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in before if p not in hosts()
    )


def test_what_a_killed_process_left_behind_is_swept_and_nothing_else(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    for owner in (dead.pid, os.getpid(), "mine"):
        (tmp_path / f"{PREFIX}{owner}-x").mkdir()
    _sweep(tmp_path)
    assert {folder.name for folder in tmp_path.iterdir()} == {
        f"{PREFIX}{os.getpid()}-x",
        f"{PREFIX}mine-x",
    }


def test_stock_hosts_refuse_at_once_what_their_template_has_otherwise():
    good, bad = (
        Patch.init(50, 0.2, ["Delay"]),
        Patch.init(50, 0.2).with_values({"wavetable.unison_mode": "Classic"}),
    )
    with Renderer(AUDIO, n_hosts=1, lanes=1, host_options=["--stock"]) as stock:
        first, second, third = stock.render([good, bad, frozen_of(bad, stock.frozen)])
    assert first.shape == third.shape == (2, 22050)
    assert isinstance(second, RenderFailure) and "unison_mode is None, not Classic" in str(second)


def test_a_track_that_the_user_deletes_in_the_middle_of_a_run_costs_no_patch(monkeypatch):
    """Real Live's way (one session on a host that goes on living).

    The session is built anew, the user's set stays.
    """
    names, clips, again = asyncio.run(_deleting(monkeypatch))
    assert names == ["1-MIDI", "2-MIDI", "3-Audio", "4-Audio"]
    assert all(np.array_equal(a, b) for a, b in zip(clips, again, strict=True)) and len(clips) == 10


@pytest.mark.parametrize("delete", ["0", "1"])
def test_recordings_are_deleted_on_request_only(delete, monkeypatch):
    monkeypatch.setenv("UNMIXER_LIVE_DELETE_RECORDINGS", delete)

    async def main():
        async with as_live(monkeypatch) as host:
            folder = host.recordings
            monkeypatch.setenv("UNMIXER_LIVE_RECORDINGS", f"{folder}={folder}")
            clips = await asyncio.to_thread(_render, patches(3))
            return clips, list(host._recordings.glob("*.wav"))

    clips, files = asyncio.run(main())
    assert len(clips) == 3 and len(files) == (
        0 if delete == "1" else 3 + 1
    )  # and the calibration click


def _render(wanted):
    with Renderer(AUDIO, lanes=1) as live:
        return live.render(wanted)


@asynccontextmanager
async def as_live(monkeypatch):
    """An embedded host that the environment names as real Live would be."""
    host = EmbeddedHost(AUDIO.sample_rate)
    transport = await host.start()
    monkeypatch.setenv("UNMIXER_LIVE_HOST", "127.0.0.1")
    monkeypatch.setenv("UNMIXER_OSC_PORT", str(host.endpoint.port))
    monkeypatch.setenv("UNMIXER_OSC_REPLY_PORT", str(transport.reply_port))
    transport.close()
    try:
        yield host
    finally:
        await host.stop()


async def _deleting(monkeypatch):
    async with as_live(monkeypatch) as host:
        result = await asyncio.to_thread(_render_and_delete, host.endpoint.port)
        client = Client(UdpTransport(Endpoint.from_environment()), "test")
        names = await track_names(client)
        client.close()
        return names, *result


def _render_and_delete(port):
    wanted, clips = patches(10), {}
    with Renderer(AUDIO, lanes=2) as live:
        whole = live.render(wanted)
        for index, clip in live.map(wanted):
            if not clips:  # the user deletes the first lane's track; any socket may say so
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as user:
                    user.sendto(wire.encode("/live/song/delete_track", (4,)), ("127.0.0.1", port))
            clips[index] = clip
    return whole, [clips[i] for i in range(len(wanted))]
