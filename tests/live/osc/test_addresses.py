"""Every /live address of the client is one that AbletonOSC was recorded to answer, or stands
here with where AbletonOSC defines it. Addresses are gathered by doing: a session and a push,
with the companion and without, and from the source what these do not come to (an address that is
written out there).
"""

from __future__ import annotations

import ast
import asyncio
import json
import re
from pathlib import Path

import pytest

from tests.live.session.test_listing import COMPANION, STOCK, decoded, parts, session_of
from unmixer_core.live.osc.transport import Endpoint
from unmixer_core.live.push import push_async

ROOT = Path(__file__).resolve().parents[3]
TRANSCRIPT = ROOT / "tests" / "headless" / "transcript.jsonl"
FACTS = ROOT / "../shared/live/abletonosc.md"
#: Address → where AbletonOSC's abletonosc/ defines it: file, and the list or function that its
#: handler is made of.
UNRECORDED = {
    "/live/clip/get/start_marker": "clip.py: properties_rw",
    "/live/clip/remove/notes": "clip.py: clip_remove_notes",
    "/live/clip/set/looping": "clip.py: properties_rw",
    "/live/device/get/parameters/max": "device.py: device_get_parameters_max",
    "/live/device/get/parameters/min": "device.py: device_get_parameters_min",
    "/live/song/get/clip_trigger_quantization": "song.py: properties_rw",
    "/live/song/get/metronome": "song.py: properties_rw",
    "/live/song/get/num_scenes": "song.py: lambda, len(self.song.scenes)",
    "/live/song/set/clip_trigger_quantization": "song.py: properties_rw",
    "/live/song/set/metronome": "song.py: properties_rw",
    "/live/track/get/input_routing_channel": "track.py: track_get_input_routing_channel",
    "/live/track/set/input_routing_channel": "track.py: track_set_input_routing_channel",
    "/live/track/set/name": "track.py: properties_rw",
    "/live/track/stop_all_clips": "track.py: methods",
}
#: What the host says of its own accord.
HEARD = {"/live/error"}


@pytest.fixture(scope="module")
def recorded():
    return {
        json.loads(line)["req"][0] for line in TRANSCRIPT.read_text(encoding="utf-8").splitlines()
    }


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    """Every /live address that the client sends, or could."""
    found = set()
    for way in (COMPANION, STOCK):
        for work in (session, push):
            host = way.host(tmp_path_factory.mktemp("live"))
            asyncio.run(work(way, host))
            found |= {
                decoded(message)[0]
                for datagram, _ in host.datagrams_heard
                for message in parts(datagram)
            }
    return {address for address in found | written_out() if address.startswith("/live/")} - HEARD


async def session(way, host):
    await session_of(way, host)


async def push(way, host):
    await push_async(way.patches[0], Endpoint(), transport=host)


def written_out():
    """Whole addresses among the literals of the client's source.

    The parts of an f-string are none.
    """
    whole = set()
    for path in (ROOT / "unmixer_core" / "live").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        partial = {
            id(part)
            for node in ast.walk(tree)
            if isinstance(node, ast.JoinedStr)
            for part in node.values
        }
        texts = (
            n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)
        )
        whole |= {
            text.value
            for text in texts
            if id(text) not in partial and re.fullmatch(r"/live/[\w/]+", text.value)
        }
    return whole


def test_every_address_was_recorded_or_is_accounted_for(sent, recorded):
    unknown = sorted(sent - recorded - UNRECORDED.keys())
    assert not unknown, "add these to UNRECORDED, with where AbletonOSC defines them"
    assert len(sent & recorded) > 30


def test_no_address_is_accounted_for_that_is_not_sent_or_was_recorded(sent, recorded):
    assert not UNRECORDED.keys() - sent, "these are not sent any more"
    assert not UNRECORDED.keys() & recorded, "these are in the transcript"


@pytest.mark.skipif(not FACTS.exists(), reason="../shared/live/abletonosc.md is not here")
@pytest.mark.parametrize("address", UNRECORDED)
def test_the_fact_sheet_has_it_among_the_endpoints(address):
    endpoints = FACTS.read_text(encoding="utf-8").partition("### 1.3")[2].partition("### 1.4")[0]
    _, _, thing, *_, name = address.split("/")
    paragraphs = [line for line in endpoints.splitlines() if line.lower().startswith(f"**{thing}")]
    assert any(re.search(rf"\b{name}\b", line) for line in paragraphs)
    assert UNRECORDED[address].startswith(f"{thing}.py: ")
