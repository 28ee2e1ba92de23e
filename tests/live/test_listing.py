"""The client's bytes for one whole session, in order: what a person with Live can compare (session.txt).

Connect, set up, one lane, one patch, leave. A line is a message: address, type tags, arguments; under it its bytes in hex.
Messages that travel in one datagram stand under one `datagram` line with its size. Run again with UNMIXER_WRITE_LISTING=1
when the schema or the client has changed, and look at the difference.
"""

from __future__ import annotations

import asyncio
import os
import random
import textwrap
from collections.abc import Iterator
from pathlib import Path

from pythonosc.osc_bundle import OscBundle

from unmixer_core.live import client, session, wire
from unmixer_core.live.client import Timing
from unmixer_core.live.recorder import Take
from unmixer_core.live.session import Session
from unmixer_core.live.transport import Endpoint
from unmixer_core.schema.patch import Patch

from .fake_host import CLIP_S, RATE, VELOCITY, FakeHost

LISTING = Path(__file__).with_name("session.txt")
HEADINGS = {
    "/live/application/get/version": "connect",
    "/live/song/get/tempo": "set the song up",
    "/live/song/get/num_scenes": "make the lane's two tracks",
    "/live/track/get/devices/class_name": "insert the devices",
    "/live/device/get/parameters/name": "find every parameter by its name",
    "/unmixer/device/get": "find the wavetables",
    "/live/track/get/available_input_routing_types": "wire the capture track, bring every device to its baseline",
    "/live/song/get/track_data": "a patch: is the lane still ours?",
    "/live/device/set/parameters/value": "set its values and read them back",
    "/live/clip_slot/fire": "record",
    "/live/clip/get/file_path": "where is the file, and did nothing move meanwhile?",
    "/live/track/stop_all_clips": "clear the slot, flush the tails",
    "/live/song/delete_track": "leave",
}


class Listening(FakeHost):
    """Keeps the datagrams that come."""

    def send(self, datagram: bytes, port: int | None = None) -> None:
        self.datagrams_heard = [*getattr(self, "datagrams_heard", []), datagram]
        super().send(datagram, port)


def test_every_byte_of_a_session_in_order(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(session.secrets, "token_hex", lambda _: "f00d")
    monkeypatch.setattr(client.random, "SystemRandom", lambda: random.Random(1))
    host = Listening(tmp_path)
    patch = Patch.init(effects=["Delay", "Saturator"]).with_values({"saturator.drive": 0.9, "wavetable.osc_1_pos": 0.5})

    async def main() -> None:
        take = Take(RATE, CLIP_S, VELOCITY)
        async with await Session.open(Endpoint(), take, lanes=1, transport=host, timing=Timing()) as live:
            await live.render(0, patch)

    asyncio.run(main())
    lines = list(listing(host.datagrams_heard))
    if os.environ.get("UNMIXER_WRITE_LISTING") or not LISTING.exists():
        LISTING.write_text("\n".join(lines) + "\n")
    assert lines == LISTING.read_text().splitlines(), "if this is meant, run again with UNMIXER_WRITE_LISTING=1"


def test_the_listing_holds_all_that_a_render_needs() -> None:
    text = LISTING.read_text()
    places = [text.index(f"\n## {heading}\n") for heading in HEADINGS.values()]
    assert places == sorted(places)


def listing(datagrams: list[bytes]) -> Iterator[str]:
    """A datagram that repeats the one before it (a question put again while a take lasts) is listed once."""
    yield "# One lane, one patch, from connecting to leaving: what the client sends"
    headings = dict(HEADINGS)
    for before, datagram in zip([b"", *datagrams], datagrams, strict=False):
        if datagram == before:
            continue
        messages = parts(datagram)
        for address in {decoded(message)[0]: None for message in messages}:
            if address in headings:
                yield from ("", f"## {headings.pop(address)}")
        yield from ("", f"datagram: {len(datagram)} bytes{f', a bundle of {len(messages)}' * (len(messages) > 1)}")
        for message in messages:
            yield from described(message)


def parts(datagram: bytes) -> list[bytes]:
    return [part.dgram for part in OscBundle(datagram)] if OscBundle.dgram_is_bundle(datagram) else [datagram]


def decoded(message: bytes) -> wire.Message:
    return wire.decode(message)[0]


def described(message: bytes) -> Iterator[str]:
    address, arguments = decoded(message)
    tags = message[message.index(b",") :].split(b"\0")[0].decode()
    yield " ".join([address, tags, *map(shown, arguments)])
    yield from textwrap.wrap(message.hex(), 128, initial_indent="    ", subsequent_indent="    ")


def shown(value: object) -> str:
    return f"{value:.9g}" if isinstance(value, float) else repr(value)
