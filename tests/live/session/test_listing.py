"""The client's bytes for one whole session, in order: what a person with Live can compare.

session.txt: with the companion; connect, set up, one lane, one patch, leave. session_stock.txt: the
same with stock AbletonOSC on a template set, and a second patch whose effects are in another order.
A line is a message: address, type tags, arguments; under it its bytes in hex. Messages that travel
in one datagram stand under one `datagram` line with its size. Run again with
UNMIXER_WRITE_LISTING=1 when the schema or the client has changed, and look at the difference.
"""

from __future__ import annotations

import asyncio
import os
import random
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from pythonosc.osc_bundle import OscBundle

from tests.live.fake_host import CLIP_S, RATE, VELOCITY, FakeHost
from unmixer_core.headless.server.server import OscServer
from unmixer_core.live.osc import client, wire
from unmixer_core.live.osc.client import Timing
from unmixer_core.live.osc.transport import Endpoint
from unmixer_core.live.session import session
from unmixer_core.live.session.session import Session
from unmixer_core.live.session.take import Take
from unmixer_core.schema.patch import Patch

PATCH, TURNED = (
    Patch.init(effects=effects).with_values({"saturator.drive": 0.9, "wavetable.osc_1_pos": 0.5})
    for effects in (["Delay", "Saturator"], ["Saturator", "Delay"])
)
#: A datagram and the port it was sent to (None: AbletonOSC's).
Heard = tuple[bytes, int | None]


class Listening(FakeHost):
    """Live with the companion. Keeps the datagrams that come."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.datagrams_heard: list[Heard] = []

    def send(self, datagram: bytes, port: int | None = None) -> None:
        self.datagrams_heard.append((datagram, port))
        super().send(datagram, port)


class StockListening:
    """Live with stock AbletonOSC and a template set.

    The embedded host without socket, processes and synthesizer, so that what it is asked depends on
    nothing but its answers. It is the server's link and pool, and the client's transport.
    """

    def __init__(self, folder: Path) -> None:
        self.server = OscServer(
            folder, port=0, workers=0, sample_rate=RATE, layout="tracks", has_companion=False
        )
        self.server.link.close()
        self.server.link = self.server.recorder.pool = self
        self.datagrams_heard: list[Heard] = []

    def open(self, receiver) -> None:
        self.receiver = receiver

    def close(self) -> None:
        self.receiver = lambda _: None

    def send(self, datagram: bytes, to: str | int | None = None) -> None:
        """From the client: to AbletonOSC (None) or another port, where nobody listens.

        From the host: to the client's IP.
        """
        soon = asyncio.get_running_loop().call_soon
        if isinstance(to, str):
            soon(lambda: self.receiver(datagram))
            return
        self.datagrams_heard.append((datagram, to))
        if to is None:
            soon(self.server._handle, datagram)

    def submit(self, job, done) -> None:
        soundfile.write(job.path, np.zeros((round(job.duration_s * RATE), 2)), RATE)
        done("")


@dataclass(frozen=True)
class Way:
    """`headings`: how a message begins that opens a part of the session, and what that part is,
    in order.
    """

    file: str
    title: str
    host: type
    patches: tuple[Patch, ...]
    headings: tuple[tuple[str, str], ...]

    @property
    def path(self) -> Path:
        return Path(__file__).with_name(self.file)


COMPANION = Way(
    "session.txt",
    "One lane, one patch, from connecting to leaving: what the client sends",
    Listening,
    (PATCH,),
    (
        ("/live/application/get/version", "connect"),
        ("/live/song/get/tempo", "set the song up"),
        ("/live/song/get/num_scenes", "make the lane's two tracks"),
        ("/live/track/get/devices/class_name", "insert the devices"),
        ("/live/device/get/parameters/name", "find every parameter by its name"),
        ("/unmixer/device/get ", "find the wavetables"),
        (
            "/live/track/get/available_input_routing_types",
            "wire the capture track, bring every device to its baseline",
        ),
        ("/live/song/get/track_data", "a patch: is the lane still ours?"),
        ("/live/device/set/parameters/value", "set its values and read them back"),
        ("/live/clip_slot/fire", "record"),
        ("/live/clip/get/file_path", "where is the file, and did nothing move meanwhile?"),
        ("/live/track/stop_all_clips", "clear the slot, flush the tails"),
        ("/live/song/delete_track", "leave"),
    ),
)
STOCK = Way(
    "session_stock.txt",
    "The same with stock AbletonOSC on a template set, and a second patch with the effects in "
    "another order",
    StockListening,
    (PATCH, TURNED),
    (
        (
            "/live/application/get/version",
            "connect; no companion answers, neither here nor on its own port",
        ),
        ("/live/song/get/tempo", "set the song up"),
        ("/live/song/get/num_scenes", "find the template tracks"),
        ("/live/song/duplicate_track", "copy them"),
        ("/live/song/create_audio_track", "make the capture track"),
        (
            "/live/song/get/track_names ,ii 0 23",
            "one device a track, no clips, armed and monitored as they should be",
        ),
        ("/live/track/get/available_input_routing_types", "what may be routed into what"),
        ("/live/song/get/track_data ,iisss", "read what stock AbletonOSC cannot set"),
        ("/live/device/get/parameters/name", "find every parameter by its name"),
        ("/live/device/set/parameter/value", "bring every device to its baseline"),
        ("/live/song/get/track_data ,iissss ", "a patch: is the lane still ours?"),
        ("/live/track/set/input_routing_type", "route its chain, write its note"),
        ("/live/device/set/parameters/value", "set its values and read them back"),
        ("/live/clip_slot/fire", "record"),
        ("/live/clip/get/file_path", "where is the file, and did nothing move meanwhile?"),
        ("/live/track/stop_all_clips", "clear the slot, flush the tails"),
        ("/live/song/get/track_data ,iissss ", "the second patch: is the lane still ours?"),
        (
            "/live/track/set/input_routing_type",
            "let go of the inputs that change, then route its chain",
        ),
        (
            "/live/device/set/parameter/value",
            "its values are those of the first: switch the devices on",
        ),
        ("/live/clip_slot/fire", "record"),
        ("/live/clip/get/file_path", "where is the file, and did nothing move meanwhile?"),
        ("/live/track/stop_all_clips", "clear the slot, flush the tails"),
        ("/live/song/delete_track", "leave"),
    ),
)
WAYS = pytest.mark.parametrize("way", [COMPANION, STOCK], ids=["companion", "stock"])


async def session_of(way: Way, host: Listening | StockListening) -> None:
    """Everything from connecting to leaving."""
    take = Take(RATE, CLIP_S, VELOCITY)
    async with await Session.open(
        Endpoint(), take, lanes=1, transport=host, timing=Timing()
    ) as live:
        for patch in way.patches:
            await live.render(0, patch)


@WAYS
def test_every_byte_of_a_session_in_order(way, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(session.secrets, "token_hex", lambda _: "f00d")
    monkeypatch.setattr(client.random, "SystemRandom", lambda: random.Random(1))
    host = way.host(tmp_path)
    asyncio.run(session_of(way, host))
    lines = list(listing(host.datagrams_heard, way))
    if os.environ.get("UNMIXER_WRITE_LISTING") or not way.path.exists():
        way.path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    listed = way.path.read_text(encoding="utf-8").splitlines()
    assert lines == listed, "if this is meant, run again with UNMIXER_WRITE_LISTING=1"


@WAYS
def test_the_listing_holds_all_that_a_render_needs(way) -> None:
    text = way.path.read_text(encoding="utf-8")
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [
        part for _, part in way.headings
    ]


def listing(heard: list[Heard], way: Way) -> Iterator[str]:
    """A datagram that repeats the one before it (a question put again while a take lasts) is
    listed once.
    """
    yield f"# {way.title}"
    headings = list(way.headings)
    for before, (datagram, port) in zip([None, *heard], heard, strict=False):
        if (datagram, port) == before:
            continue
        messages = parts(datagram)
        lines = [list(described(message)) for message in messages]
        while headings and any(first.startswith(headings[0][0]) for first, *_ in lines):
            yield from ("", f"## {headings.pop(0)[1]}")
        several = f", a bundle of {len(messages)}" if len(messages) > 1 else ""
        yield from (
            "",
            f"datagram: {len(datagram)} bytes{several}{f', to port {port}' if port else ''}",
        )
        for message in lines:
            yield from message


def parts(datagram: bytes) -> list[bytes]:
    return (
        [part.dgram for part in OscBundle(datagram)]
        if OscBundle.dgram_is_bundle(datagram)
        else [datagram]
    )


def decoded(message: bytes) -> wire.Message:
    return wire.decode(message)[0]


def described(message: bytes) -> Iterator[str]:
    address, arguments = decoded(message)
    tags = message[message.index(b",") :].split(b"\0")[0].decode()
    yield " ".join([address, tags, *map(shown, arguments)])
    yield from textwrap.wrap(message.hex(), 128, initial_indent="    ", subsequent_indent="    ")


def shown(value: object) -> str:
    return f"{value:.9g}" if isinstance(value, float) else repr(value)
