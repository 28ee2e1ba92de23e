"""A set with the user's tracks, clips and devices in it.

After a session, and after one that failed, it is as it was.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from importlib.util import find_spec

import pytest

from tests.live.set_snapshot import snapshot
from unmixer_core.errors import HostError, ReadbackMismatch
from unmixer_core.live.farm.hosts import EmbeddedHost
from unmixer_core.live.osc.client import Client
from unmixer_core.live.osc.transport import Endpoint, UdpTransport
from unmixer_core.live.session import session as sessions
from unmixer_core.live.session.session import Session
from unmixer_core.live.session.take import Take
from unmixer_core.live.track.lane import Lane
from unmixer_core.live.track.tracks import track_names
from unmixer_core.schema.patch import Patch

pytestmark = pytest.mark.skipif(
    find_spec("vita") is None, reason="the embedded host sounds through vita"
)
TAKE = Take(44100, 0.3)
USERS = (
    ("/live/song/set/tempo", (97.0,)),
    ("/live/song/set/metronome", (1,)),
    ("/live/track/set/name", (0, "Lead")),
    ("/live/track/set/arm", (2, 1)),
    ("/live/track/set/volume", (3, 0.3)),
    ("/live/clip_slot/create_clip", (0, 0, 4.0)),
    ("/live/clip/add/notes", (0, 0, 60, 0.0, 1.0, 90, False, 67, 1.0, 0.5, 80, False)),
    ("/live/clip_slot/create_clip", (1, 3, 8.0)),
)
SONG = ("tempo", "clip_trigger_quantization", "metronome", "is_playing")
WAYS = pytest.mark.parametrize(
    "options", [(), ("--stock",), ("--stock", "compact")], ids=["companion", "stock", "compact"]
)


@asynccontextmanager
async def users_set(options):
    """A host whose set has been worked on.

    Yields the one endpoint that a client may have at a time.
    """
    host = EmbeddedHost(TAKE.sample_rate, options)
    transport = await host.start()
    endpoint = Endpoint(port=host.endpoint.port, reply_port=transport.reply_port)
    transport.close()
    try:
        async with client_on(endpoint) as client:
            for message in USERS:
                await client.send(message)
            if not options:
                await client.companion("/unmixer/track/insert_device", 0, "Wavetable", 0)
                await client.companion("/unmixer/track/insert_device", 2, "Reverb", 0)
                await client.send(("/live/device/set/parameter/value", (2, 0, 20, 0.77)))
        yield endpoint
    finally:
        await host.stop()


@asynccontextmanager
async def client_on(endpoint):
    client = Client(UdpTransport(endpoint), "test")
    try:
        yield client
    finally:
        client.close()


async def everything(endpoint):
    async with client_on(endpoint) as client:
        song = [await client.query(f"/live/song/get/{key}") for key in SONG]
        return song, await snapshot(client)


@WAYS
def test_a_session_leaves_everything_as_it_was(options):
    async def main():
        async with users_set(options) as endpoint:
            before = await everything(endpoint)
            async with await Session.open(endpoint, TAKE, lanes=2) as session:
                for lane in (0, 1):
                    await session.render(lane, Patch.init(60, 0.1, ["Delay", "Reverb"]))
            return before, await everything(endpoint)

    before, after = asyncio.run(main())
    assert before == after and before[0][0] == (97.0,) and any(clip for clip in before[1][0][2])


@WAYS
@pytest.mark.parametrize("where", ["building", "rendering"])
def test_so_does_one_that_fails(options, where, monkeypatch):
    async def fails(*_):
        raise ReadbackMismatch("made to fail.")

    async def main():
        async with users_set(options) as endpoint:
            before = await everything(endpoint)
            monkeypatch.setattr(Lane, "prepare" if where == "building" else "apply", fails)
            with pytest.raises(HostError, match="made to fail"):
                async with await Session.open(endpoint, TAKE, lanes=2) as session:
                    await session.render(0, Patch.init(60, 0.1, ["Delay"]))
            return before, await everything(endpoint)

    before, after = asyncio.run(main())
    assert before == after


def test_tracks_of_another_session_are_named_and_left(caplog):
    async def main():
        async with users_set(()) as endpoint:
            async with client_on(endpoint) as client:
                await client.send(("/live/track/set/name", (3, "Unmixer beef 1 capture")))
            async with await Session.open(endpoint, TAKE, lanes=1):
                pass
            async with client_on(endpoint) as client:
                return await track_names(client)

    assert asyncio.run(main())[3] == "Unmixer beef 1 capture"
    assert any(
        "another session (Unmixer beef 1 capture" in record.getMessage()
        for record in caplog.records
    )


def test_settings_are_what_a_session_says():
    assert set(sessions.SETTINGS) <= set(SONG)
