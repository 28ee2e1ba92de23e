"""Datagrams as the real server sends and takes them (transcript of AbletonOSC)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unmixer_core.live.osc import wire

TRANSCRIPT = Path(__file__).resolve().parents[2] / "headless" / "transcript.jsonl"


def pairs():
    return [json.loads(line) for line in TRANSCRIPT.read_text().splitlines()]


def test_requests_encode_to_the_bytes_of_the_transcript():
    checked = 0
    for pair in pairs():
        address, types, arguments = pair["req"]
        if "h" not in types and pair.get("req_hex"):
            typed = [float(a) if t == "f" else a for t, a in zip(types[1:], arguments, strict=True)]
            assert wire.encode(address, typed).hex() == pair["req_hex"]
            checked += 1
    assert checked > 100


def test_replies_decode_to_the_values_of_the_transcript():
    checked = 0
    for reply in (
        reply
        for pair in pairs()
        for reply in pair["rep"]
        if len(reply.get("hex", "")) == 2 * reply.get("len", 0) > 0
    ):
        [(address, arguments)] = wire.decode(bytes.fromhex(reply["hex"]))
        assert address == reply["addr"] and list(arguments) == reply["args"]
        checked += 1
    assert checked > 50


def test_a_bundle_is_its_messages_in_order():
    messages = [("/a", (1, 2.5, "text", True, None)), ("/b", ())]
    inner = wire.bundle([wire.encode(*m) for m in messages])
    assert wire.decode(wire.bundle([inner, wire.encode("/c", (False,))])) == [
        *messages,
        ("/c", (False,)),
    ]


@pytest.mark.parametrize("value", [0.0, 1.0, -36.0, 0.1, 135.0, 1e-3, 0.8413951])
def test_a_value_is_the_same_after_the_wire_and_its_neighbour_is_not(value):
    [(_, (received,))] = wire.decode(wire.encode("/x", (value,)))
    assert wire.same(value, received) and received == wire.float32(value)
    assert not wire.same(value + 1e-4 * max(1.0, abs(value)), received)
