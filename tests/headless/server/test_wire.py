"""AbletonOSC's own transcript, replayed: the same addresses, type tags, lengths and error words."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import OscMessageBuilder

from unmixer_core.headless.server.server import OscServer, encode

#: What AbletonOSC's server (MIT licence) was recorded to answer: one request and its replies a
#: line.
TRANSCRIPT = Path(__file__).resolve().parents[1] / "transcript.jsonl"
#: Live's window and a file on Live's disk: a host without a window has neither, and a client of
#: ours sends none of these.
NOT_OURS = ("/live/view/", "/live/song/export")
DEVICES = (
    "Wavetable",
    "Auto Filter",
    "Saturator",
    "Compressor",
    "EQ Eight",
    "Phaser-Flanger",
    "Delay",
    "Reverb",
)


class Wire:
    """A server without sockets and render processes: `ask` returns the replies' bytes decoded."""

    def __init__(self, folder: Path) -> None:
        self.server = OscServer(folder, port=0, workers=0)
        self.replies: list[tuple[str, str, list[Any]]] = []
        self.server._send = self._keep  # type: ignore[method-assign]

    def _keep(self, address: str, args: tuple[Any, ...]) -> None:
        message = encode(address, args)
        tags = message[message.index(b",") :].split(b"\0")[0].decode()
        self.replies.append((address, tags, list(OscMessage(message).params)))

    def ask(
        self, address: str, tags: str = ",", args: Any = ()
    ) -> list[tuple[str, str, list[Any]]]:
        builder = OscMessageBuilder(address)
        for tag, value in zip(tags[1:], args, strict=True):
            builder.add_arg(value, tag)
        self.replies.clear()
        self.server._handle(builder.build().dgram)
        return list(self.replies)

    def finish_recordings(self) -> None:
        for take in self.server.recorder._waiting:
            take.deadline_s = 0.0
        self.server.recorder.launch()
        while not self.server.pool._jobs.empty():
            _, done = self.server.pool._jobs.get()
            done("")


@pytest.fixture
def wire(tmp_path: Path):
    result = Wire(tmp_path)
    yield result
    result.server.link.close()


def applicable() -> list[dict[str, Any]]:
    pairs = [json.loads(line) for line in TRANSCRIPT.read_text(encoding="utf-8").splitlines()]
    return [pair for pair in pairs if not any(part in pair["req"][0] for part in NOT_OURS)]


def test_transcript_is_answered_alike(wire) -> None:
    for i, name in enumerate(DEVICES):
        wire.ask("/unmixer/track/insert_device", ",iisi", (i + 1, 0, name, -1))
    pairs, different = applicable(), []
    for pair in pairs:
        address, tags, args = pair["req"]
        if address == "/live/clip/get/file_path":
            wire.finish_recordings()
        expected = [(r["addr"], r["types"], r["args"]) for r in pair["rep"]]
        got = wire.ask(address, tags, args)
        if [shape(reply) for reply in got] != [shape(reply) for reply in expected]:
            different.append((pair["req"], expected, got))
    assert len(pairs) == 121, "of 125 recorded pairs all but the four of NOT_OURS"
    assert not different, f"{len(different)} of {len(pairs)} differ, first: {different[:3]}"


def test_the_client_sends_nothing_that_is_left_out_of_the_comparison() -> None:
    client = Path(__file__).resolve().parents[3] / "unmixer_core" / "live"
    text = "".join(path.read_text(encoding="utf-8") for path in client.rglob("*.py"))
    assert not [address for address in NOT_OURS if address in text]


def shape(reply: tuple[str, str, list[Any]]) -> tuple[str, str, list[str]]:
    """What must agree: address, type tags (hence length), and the words of an error."""
    address, tags, args = reply
    if address.endswith("is_quantized"):  # the transcript's model guessed these flags
        tags = tags.replace("T", "F")
    return address, tags, [str(args[0])] if address == "/live/error" else []


def test_a_listener_hears_the_value_at_once_and_on_each_change_until_it_stops(wire) -> None:
    wire.ask("/live/song/create_audio_track", ",i", (-1,))
    assert wire.ask("/live/track/start_listen/arm", ",i", (4,)) == [
        ("/live/track/get/arm", ",iF", [4, False])
    ]
    assert wire.ask("/live/track/set/arm", ",ii", (4, 1)) == [
        ("/live/track/get/arm", ",iT", [4, True])
    ]
    assert wire.ask("/live/track/set/arm", ",ii", (4, 1)) == []
    assert wire.ask("/live/clip_slot/start_listen/has_clip", ",ii", (4, 0))[0][2] == [4, 0, False]
    assert wire.ask("/live/clip_slot/fire", ",iif", (4, 0, 1.0))[-1][2] == [4, 0, True]
    wire.ask("/live/track/stop_listen/arm", ",i", (4,))
    assert wire.ask("/live/track/set/arm", ",ii", (4, 0)) == []
    assert wire.ask("/live/song/delete_track", ",i", (4,)) == []


def test_bundle_stops_at_its_first_error(wire) -> None:
    from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder

    bundle = OscBundleBuilder(IMMEDIATELY)
    for address, args in (("/live/test", []), ("/live/track/get/name", [99]), ("/live/test", [])):
        message = OscMessageBuilder(address)
        for value in args:
            message.add_arg(value)
        bundle.add_content(message.build())
    wire.server._handle(bundle.build().dgram)
    assert [address for address, _, _ in wire.replies] == ["/live/test", "/live/error"]


def test_garbage_is_reported_not_fatal(wire) -> None:
    wire.server._handle(b"\xff\x00garbage")
    assert wire.replies[-1][2][0].startswith("Error parsing OSC message")
    assert wire.ask("/live/test")[0][2] == ["ok"]


def test_no_datagram_ends_the_server(wire) -> None:
    """Messages and bundles with bytes changed, cut off and added.

    Each is answered, refused or ignored.
    """
    chance = random.Random(5)
    requests = [
        ("/live/*/get/name", [0]),
        ("/live/clip/get/notes", [0, 0]),
        ("/live/song/get/track_data", [0, 2, "clip.name"]),
    ]
    requests += [
        ("/unmixer/device/set", [1, 0, 0, "unison_mode", 1]),
        ("/live/song/create_*_track", [0.5]),
    ]
    seeds = [encode(address, args) for address, args in requests]
    seeds += [b"#bundle\0" + bytes(8) + len(seed).to_bytes(4, "big") + seed for seed in seeds]
    for _ in range(3000):
        datagram = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(4)):
            datagram[chance.randrange(len(datagram))] = chance.randrange(256)
        wire.server._handle(
            bytes(datagram[: chance.choice((len(datagram), chance.randrange(len(datagram))))])
        )
    assert wire.ask("/live/test")[-1][2] == ["ok"]


def test_companion_replies_lead_with_the_request_number(wire) -> None:
    assert wire.ask("/unmixer/get/version", ",i", (7,)) == [
        ("/unmixer/get/version", ",is", [7, "1.1"])
    ]
    assert wire.ask("/unmixer/track/insert_device", ",iisi", (8, 0, "Reverb", 0))[0][2] == [8, 0, 0]
    assert wire.ask("/unmixer/track/insert_device", ",iisi", (9, 0, "Wavetable", 5))[0][2] == [
        9,
        0,
        0,
    ]
    assert wire.ask("/unmixer/track/insert_device", ",iisi", (10, 0, "Delay", 0))[0][2] == [
        10,
        0,
        1,
    ]  # behind the instrument
    assert wire.ask("/unmixer/track/move_device", ",iiii", (11, 0, 1, 2))[0][2] == [11, 0, 2]
    names = wire.ask("/live/track/get/devices/name", ",i", (0,))[0][2]
    assert names == [0, "Wavetable", "Reverb", "Delay"]
    assert wire.ask("/unmixer/track/delete_device", ",iii", (12, 0, 1))[0][2] == [12, 0, 1]
    assert wire.ask("/live/track/get/num_devices", ",i", (0,))[0][2] == [0, 2]


def test_a_repeated_companion_request_is_answered_again_and_carried_out_once(wire) -> None:
    first = wire.ask("/unmixer/track/insert_device", ",iisi", (8, 0, "Reverb", 0))
    assert wire.ask("/unmixer/track/insert_device", ",iisi", (8, 0, "Reverb", 0)) == first
    assert wire.ask("/live/track/get/num_devices", ",i", (0,))[0][2] == [0, 1]


def test_companion_errors_carry_request_and_address(wire) -> None:
    for address, tags, args, words in (
        ("/unmixer/track/insert_device", ",iisi", (3, 0, "Nope", -1), "Device Nope not found."),
        ("/unmixer/device/set", ",iiisi", (4, 0, 0, "unison_mode", 1), "Index out of range"),
    ):
        (reply,) = wire.ask(address, tags, args)
        assert reply == ("/unmixer/error", ",iss", [args[0], address, words])
    (reply,) = wire.ask(
        "/unmixer/fence/5"
    )  # AbletonOSC's own answer: the client's fence counts on it
    assert reply == ("/live/error", ",s", ["Unknown OSC address: /unmixer/fence/5"])


def test_wavetable_properties_and_modulation_read_back(wire) -> None:
    wire.ask("/unmixer/track/insert_device", ",iisi", (1, 0, "Wavetable", -1))
    reply = wire.ask("/unmixer/device/set", ",iiisi", (2, 0, 0, "oscillator_2_wavetable_index", 5))[
        0
    ]
    assert reply[1:] == (",iiisi", [2, 0, 0, "oscillator_2_wavetable_index", 5])
    names = wire.ask("/unmixer/device/get", ",iiis", (3, 0, 0, "oscillator_1_wavetables"))[0][2]
    assert (
        names[3] == "oscillator_1_wavetables"
        and names[4:6] == ["Basic Shapes", "Sub 1"]
        and len(names) == 4 + 16
    )
    amount = wire.ask(
        "/unmixer/device/set_modulation", ",iiissf", (4, 0, 0, "Osc 1 Pos", "LFO 1", -0.3)
    )[0][2]
    assert amount[:5] == [4, 0, 0, "Osc 1 Pos", "LFO 1"] and amount[5] == pytest.approx(-0.3)
    refused = wire.ask("/unmixer/device/set", ",iiisi", (5, 0, 0, "oscillator_1_effect_mode", 9))[0]
    assert refused[0] == "/unmixer/error" and "0 to 3" in refused[2][2]


def test_every_parameter_table_is_live_s(wire) -> None:
    from unmixer_core.schema.devices import TABLES

    for i, name in enumerate(n for n in TABLES if n != "Wavetable"):
        wire.ask("/unmixer/track/insert_device", ",iisi", (i + 1, 0, name, -1))
        names = wire.ask("/live/device/get/parameters/name", ",ii", (0, i))[0][2][2:]
        assert names == [parameter.name for parameter in TABLES[name]]


def test_duplicated_track_has_its_own_devices(wire) -> None:
    wire.ask("/unmixer/track/insert_device", ",iisi", (1, 0, "Saturator", -1))
    wire.ask("/live/song/duplicate_track", ",i", (0,))
    wire.ask("/live/device/set/parameter/value", ",iiif", (1, 0, 1, 0.9))
    assert wire.ask("/live/device/get/parameter/value", ",iii", (0, 0, 1))[0][2][
        3
    ] == pytest.approx(0.5)
    assert wire.ask("/live/device/get/parameter/value", ",iii", (1, 0, 1))[0][2][
        3
    ] == pytest.approx(0.9)
