"""A patch pushed into a set: all of it arrives and stays, nothing else moves, and a failure
leaves nothing behind.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from tests.live.fake_host import BY_NAME, FakeHost
from tests.live.set_snapshot import snapshot
from unmixer_core.errors import ChoiceFrozen, HostError, ReadbackMismatch
from unmixer_core.live import push as pushing
from unmixer_core.live.farm.hosts import EmbeddedHost
from unmixer_core.live.osc.client import Client, Timing
from unmixer_core.live.osc.transport import Endpoint, UdpTransport
from unmixer_core.live.track.device import Parameters
from unmixer_core.live.track.lane import Lane
from unmixer_core.schema.patch import Patch

embedded = pytest.mark.skipif(
    find_spec("vita") is None, reason="the embedded host sounds through vita"
)
PATCH = Patch.init(50, 0.3, ["Delay", "Saturator"]).with_values(
    {"saturator.drive": 0.75, "wavetable.osc_1_pos": 0.25, "delay.feedback": 0.6}
)


@asynccontextmanager
async def clients_on(*options):
    """A host, and a function that makes an endpoint's transport (one client at a time, as with
    Live).
    """
    host = EmbeddedHost(44100, options)
    first = await host.start()
    port = first.reply_port
    first.close()
    try:
        yield Endpoint(port=host.endpoint.port, reply_port=port)
    finally:
        await host.stop()


async def look(endpoint):
    client = Client(UdpTransport(endpoint), "test")
    try:
        return await snapshot(client)
    finally:
        client.close()


async def pushed(patch, *options, **settings):
    """(set before, report or error, set after)"""
    async with clients_on(*options) as endpoint:
        before = await look(endpoint)
        try:
            outcome = await pushing.push_async(patch, endpoint, **settings)
        except HostError as error:
            outcome = error
        return before, outcome, await look(endpoint)


@embedded
def test_a_pushed_patch_stands_on_one_new_track_with_every_value():
    before, report, after = asyncio.run(pushed(PATCH, name="My bass"))
    assert after[:-1] == before and after[-1][0] == "My bass" and report.tracks == ("My bass",)
    assert after[-1][3] == ("InstrumentVector", "Delay", "Saturator")
    table = [parameter.name for parameter in BY_NAME["Saturator"].table]
    kept = dict(zip(table, after[-1][4][2], strict=True))
    wanted = {v.parameter: v.wanted for v in report.values if v.device == "Saturator"}
    assert len(wanted) >= 5 and all(
        kept[name] == pytest.approx(value, abs=1e-6) for name, value in wanted.items()
    )
    assert all(value.good for value in report.values) and len(report.values) > 60
    assert "Wavetable > Delay > Saturator on My bass" in str(report)
    named = {value.parameter for value in report.values if value.device == "Wavetable"}
    assert {
        "LFO 1 -> Osc 1 Pos",
        "oscillator_1_wavetable_index",
        "filter_routing",
        "unison_mode",
    } <= named


@embedded
def test_a_patch_is_pushed_to_the_auto_filter_of_live_12_2():
    patch = Patch.init(50, 0.3, ["Auto Filter"]).with_values(
        {"auto_filter.drive": 0.5, "auto_filter.resonance": 0.7}
    )
    _, report, after = asyncio.run(pushed(patch, "--auto-filter-2"))
    assert after[-1][3] == ("InstrumentVector", "AutoFilter2") and all(
        value.good for value in report.values
    )
    kept = {value.parameter: value.kept for value in report.values if value.device == "Auto Filter"}
    assert (
        kept["Drive"] == pytest.approx(0.5)
        and kept["Resonance"] == pytest.approx(0.7)
        and kept["LFO Amount"] == 0.0
    )


@embedded
@pytest.mark.parametrize("layout", ["tracks", "compact"])
def test_on_stock_the_chain_stands_on_copies_of_the_template(layout):
    before, report, after = asyncio.run(pushed(PATCH, "--stock", layout, name="Bass"))
    new = [track for track in after if track not in before]
    assert [track for track in after if track in before] == before
    assert sorted(track[0] for track in new) == ["Bass Delay", "Bass Saturator", "Bass Wavetable"]
    assert set(report.tracks) == {track[0] for track in new}
    routed = {track[0]: track[1][2] for track in new}
    assert routed["Bass Delay"][0].endswith("Wavetable") and routed["Bass Saturator"][0].endswith(
        "Delay"
    )


@embedded
def test_what_stock_cannot_set_is_refused_or_left_and_reported():
    other = PATCH.with_values({"wavetable.osc_1_wavetable": "FM Fold"})
    before, error, after = asyncio.run(pushed(other, "--stock"))
    assert isinstance(
        error, ChoiceFrozen
    ) and "osc_1_wavetable is Basic Shapes, not FM Fold" in str(error)
    assert after == before
    _, report, _ = asyncio.run(pushed(other, "--stock", adapt=True))
    assert [d.control for d in report.frozen] == ["wavetable.osc_1_wavetable"] and "cannot" in str(
        report
    )


def test_a_value_that_does_not_stay_fails_the_push_and_leaves_the_set_alone(tmp_path, monkeypatch):
    host = FakeHost(tmp_path)
    before = [track.name for track in host.tracks]

    async def lost(self, name, wanted):
        raise ReadbackMismatch(f"{name}'s Drive was set to 1 4 times, but reads back as 0.")

    monkeypatch.setattr(Parameters, "set_all", lost)
    with pytest.raises(ReadbackMismatch, match="reads back"):
        asyncio.run(pushing.push_async(PATCH, Endpoint(), transport=host, timing=Timing(0.05, 4)))
    assert [track.name for track in host.tracks] == before


def test_what_reads_back_otherwise_fails_the_push_even_where_it_was_remembered(
    tmp_path, monkeypatch
):
    """The report compares the patch with a fresh answer.

    A host that loses a modulation after confirming it is found out.
    """
    host = FakeHost(tmp_path)
    monkeypatch.setattr(
        Lane, "verify", lambda lane: lane._read_attributes()
    )  # reads, and leaves the verdict to the report
    right = host._companion

    def forgetful(address, arguments):
        answer = right(address, arguments)
        if address.endswith("get_all"):
            names = arguments[3 + arguments[2] :]
            where = (
                2
                + arguments[2]
                + list(zip(names[::2], names[1::2], strict=True)).index(("Osc 1 Pos", "LFO 1"))
            )
            return (*answer[:where], 0.25, *answer[where + 1 :])
        return answer

    monkeypatch.setattr(host, "_companion", forgetful)
    with pytest.raises(
        ReadbackMismatch,
        match="Wavetable's LFO 1 -> Osc 1 Pos was set to 0, but reads back as 0.25",
    ):
        asyncio.run(pushing.push_async(PATCH, Endpoint(), transport=host, timing=Timing(5.0)))


@embedded
def test_render_gives_one_clip_and_names_what_fails(monkeypatch):
    monkeypatch.delenv("UNMIXER_LIVE_HOST", raising=False)
    clip = pushing.render(PATCH, SimpleNamespace(sample_rate=44100, clip_s=0.4, velocity=100))
    assert clip.shape == (2, 17640) and np.abs(clip).max() > 1e-3
