"""A user's own tracks, however they are called: never taken for ours, never a reason to fail.

Neither AbletonOSC nor OSC limits a name's length (a name is one OSC string, UTF-8), and Live allows
two tracks of one name. What is limited is a datagram: macOS sends none above 9216 bytes.
"""

from __future__ import annotations

import asyncio
import unicodedata

import numpy as np
import pytest

from tests.live.fake_host import CLIP_S, RATE, VELOCITY, FakeHost, FakeTrack, LiveError, expected
from tests.live.session.test_listing import PATCH, StockListening
from unmixer_core.errors import HostRefused
from unmixer_core.live import push as pushing
from unmixer_core.live.osc import wire
from unmixer_core.live.osc.client import Client, Timing
from unmixer_core.live.osc.transport import Endpoint
from unmixer_core.live.push import push_async
from unmixer_core.live.session import session as sessions
from unmixer_core.live.session.session import Session
from unmixer_core.live.session.take import Take
from unmixer_core.live.track.stock import DEVICES
from unmixer_core.live.track.tracks import CAPTURE, Tracks, input_name, left_behind, track_names

TAKE = Take(RATE, CLIP_S, VELOCITY)
OURS = "Unmixer f00d 1"
DATAGRAM_BYTES = 9216
#: Twins, long ones, empty ones, other scripts, other spellings of one word, and what resembles
#: names of ours.
THEIRS = [
    "Lead",
    "Lead",
    "Lead " * 60,
    "Lead " * 60,
    "33 characters, one more than 32.…",
    "",
    " ",
    "🎹 Überträger № 5 – 日本語",
    unicodedata.normalize("NFC", "Überträger"),
    unicodedata.normalize("NFD", "Überträger"),
    "Unmixer",
    "Unmixer ",
    "Unmixer f00d",
    "Unmixer f00d ",
    "Unmixer f00d sketch",
    f"{OURS} ",
    f"{OURS}0",
    f"{OURS}a",
    f"{OURS} capture 2",
    f"{OURS} Capture",
    f"{OURS} delay",
    OURS.lower(),
    f"My {OURS}",
    f"My-{OURS}",
    f"7-{OURS}",
    f"7-{OURS} capture",
    f"7-{OURS} Delay",
    "Unmixer f00d １",
    "Unmixer f00d ¹",
    "Unmixеr f00d 1",
    "Unmixer cafe",
    "Unmixer cafe sketches",
    "Unmixer cafe 2 go",
    "Unmixer decaf 1",
    f"{OURS} capture" + " too long to be ours" * 20,
]


@pytest.fixture(autouse=True)
def token(monkeypatch):
    """The one that the user's names play on."""
    for module in (sessions, pushing):
        monkeypatch.setattr(module.secrets, "token_hex", lambda _: "f00d")


def theirs_on(host):
    """Puts a track of each name before those that are there; returns all."""
    if isinstance(host, FakeHost):
        host.tracks[:0] = [FakeTrack(name, i % 2 == 0) for i, name in enumerate(THEIRS)]
        return host.tracks
    song = host.server.song
    song.tracks[:0] = [song.new_track(name, i % 2 == 0) for i, name in enumerate(THEIRS)]
    return song.tracks


@pytest.mark.parametrize("kind", [FakeHost, StockListening], ids=["companion", "stock"])
def test_a_session_among_them_makes_and_deletes_its_own(kind, tmp_path, caplog):
    host = kind(tmp_path)
    tracks = theirs_on(host)
    before = [(track, track.name) for track in tracks]

    async def main():
        async with await Session.open(
            Endpoint(), TAKE, lanes=2, transport=host, timing=Timing(1.0)
        ) as live:
            made = [track.name for track in tracks if (track, track.name) not in before]
            return made, [await live.render(lane, PATCH) for lane in (0, 1)]

    made, clips = asyncio.run(main())
    assert [(track, track.name) for track in tracks] == before
    assert made and len(set(made)) == len(made) and not set(made) & set(THEIRS)
    if kind is FakeHost:
        for clip in clips:
            np.testing.assert_array_equal(clip, expected(PATCH))
    left = [record.args for record in caplog.records if "tracks of another session" in record.msg]
    assert left == [(1, "Unmixer cafe 2 go")], "it could be one, but nobody touches it"


def test_none_of_them_is_adopted(tmp_path, monkeypatch):
    monkeypatch.setenv("UNMIXER_LIVE_ADOPT", "1")
    host = FakeHost(tmp_path)
    pairs = [
        "Unmixer cafe",
        "Unmixer cafe 1 mix",
        "Unmixer cafe sketch",
        "Lead",
        "My Unmixer beef 1",
    ]
    for name in [*pairs, "Unmixer beef 1"]:
        host.tracks += [FakeTrack(name, True), FakeTrack(f"{name} {CAPTURE}", False)]
    before = list(host.tracks)

    async def main():
        async with await Session.open(
            Endpoint(), TAKE, lanes=1, transport=host, timing=Timing(1.0)
        ):
            return [track.name for track in host.tracks]

    names = asyncio.run(main())
    assert names[:-2] == [
        "1-MIDI",
        "2-Audio",
        *(n for name in pairs for n in (name, f"{name} {CAPTURE}")),
    ]
    assert names[-2:] == [OURS, f"{OURS} capture"]  # of a killed session: the last two
    assert host.tracks == before[:-2]


@pytest.mark.parametrize("numbered", [False, True])
def test_an_input_is_chosen_by_the_whole_name(numbered):
    names = [*THEIRS, OURS, f"{OURS} capture", f"{OURS} Delay"]
    types = [
        "All Ins",
        *(f"{i}-{name}" if numbered else name for i, name in enumerate(names, 1)),
        "No Input",
    ]
    for name in names[-3:]:
        assert input_name(types, name) == (f"{names.index(name) + 1}-{name}" if numbered else name)


@pytest.mark.parametrize(
    "types", [(), (f"My-{OURS}", f"{OURS} "), (OURS, OURS), (f"3-{OURS}", f"5-{OURS}")]
)
def test_an_input_that_is_not_there_or_there_twice_is_refused(types):
    with pytest.raises(HostRefused, match=f"track '{OURS}' cannot be chosen as an input"):
        input_name(types, OURS)


def test_names_of_sessions_are_known_as_such():
    tracks = Tracks(None, "beef")
    names = [
        tracks.name(lane, part)
        for lane in (0, 98)
        for part in ("", CAPTURE, *DEVICES, "Delay spare")
    ]
    assert left_behind([*names, *THEIRS], "f00d") == [*names, "Unmixer cafe 2 go"]
    assert left_behind(names, "beef") == []
    assert max(len(name) for name in names if "spare" not in name) <= 32


class Mac(FakeHost):
    """AbletonOSC on macOS: a reply that is too large for a datagram is an error."""

    def _say(self, address, *arguments):
        if len(wire.encode(address, arguments)) > DATAGRAM_BYTES:
            raise LiveError("[Errno 40] Message too long")
        super()._say(address, *arguments)


def test_names_too_long_for_one_datagram_are_asked_for_in_smaller_parts(tmp_path):
    host = Mac(tmp_path)
    wanted = [f"{i} " + "ü" * (400 + 97 * i) for i in range(40)]
    host.tracks = [FakeTrack(name, False) for name in wanted]

    async def main():
        client = Client(host, "test", Timing(1.0))
        assert await track_names(client) == wanted
        host.tracks[7].name *= 9
        with pytest.raises(HostRefused, match="track_names 7 8 .*too long"):
            await track_names(client)

    asyncio.run(main())


@pytest.mark.parametrize("title", ["Baß – низ – 低音 🎸", "My bass " * 20, "Lead"])
@pytest.mark.parametrize("kind", [FakeHost, StockListening], ids=["companion", "stock"])
def test_a_patch_is_pushed_under_any_name(kind, title, tmp_path):
    host = kind(tmp_path)
    tracks = theirs_on(host)
    before = [track.name for track in tracks]
    report = asyncio.run(
        push_async(PATCH, Endpoint(), name=title, transport=host, timing=Timing(1.0))
    )
    assert all(name.startswith(title.rstrip()) for name in report.tracks)
    after = [track.name for track in tracks]
    for name in report.tracks:
        after.remove(name)
    assert sorted(after) == sorted(before)
