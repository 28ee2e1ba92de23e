"""The doctor: good hosts are found good, and what is wrong is one line, a sentence and a status."""

from __future__ import annotations

import asyncio
import socket
from importlib.util import find_spec

import pytest

from tests.live.fake_host import FakeHost, FakeTrack, LiveError
from unmixer_core.live import __main__ as program
from unmixer_core.live import doctor
from unmixer_core.live.osc.client import Client, Timing
from unmixer_core.live.session import session
from unmixer_core.live.session.session import HostInfo
from unmixer_core.live.session.take import Take

embedded = pytest.mark.skipif(
    find_spec("vita") is None, reason="the embedded host sounds through vita"
)
TAKE = ["--clip-s", "0.4"]


@embedded
@pytest.mark.parametrize(
    "options",
    [(), ("--stock",), ("--auto-filter-2",)],
    ids=["companion", "stock", "Auto Filter since 12.2"],
)
def test_an_embedded_host_is_found_good(options, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("UNMIXER_LIVE_HOST", "192.0.2.1")  # nobody: --embedded must not look there
    trace = tmp_path / "trace.jsonl"
    assert program.main(["doctor", "--embedded", *options, *TAKE, "--trace", str(trace)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines and all(line.startswith("ok ") for line in lines)
    said = "\n".join(lines)
    for words in (
        "Live 12.3 answers",
        "found by name",
        "latency: median",
        "begin 0 samples",
        "-200 dB",
        "tails",
    ):
        assert words in said
    stock = "--stock" in options
    assert ("frozen" in said) == stock and ("companion script 1.1" in said) != stock
    assert ("Auto Filter (AutoFilter2)" in said) == ("--auto-filter-2" in options)
    assert len(trace.read_text().splitlines()) > 50


def test_a_silent_host_and_a_busy_port_are_bad_findings(capsys, monkeypatch):
    monkeypatch.setenv("UNMIXER_LIVE_HOST", "127.0.0.1")
    monkeypatch.setenv("UNMIXER_OSC_TIMEOUT_S", "0.02")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        monkeypatch.setenv("UNMIXER_OSC_PORT", str(other.getsockname()[1]))
        monkeypatch.setenv("UNMIXER_OSC_REPLY_PORT", "0")
        assert program.main(["doctor", *TAKE]) == 1
        monkeypatch.setenv("UNMIXER_OSC_REPLY_PORT", str(other.getsockname()[1]))
        assert program.main(["doctor", *TAKE]) == 1
    silent, busy = capsys.readouterr().out.splitlines()
    assert silent.startswith("BAD") and "did not answer" in silent and "Control Surface" in silent
    assert busy.startswith("BAD") and "held by another program" in busy


def test_stock_without_embedded_is_a_usage_error():
    with pytest.raises(SystemExit) as left:
        program.main(["doctor", "--stock", "--auto-filter-2"])
    assert left.value.code == 2


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (HostInfo((12, 3), "1.1"), "companion script 1.1 answers: devices"),
        (HostInfo((12, 1), "1.1"), "inserting needs Live 12.3"),
        (HostInfo((12, 4), ""), "stock AbletonOSC"),
    ],
)
def test_what_answers_is_said(info, words, tmp_path):
    findings = asyncio.run(_who(FakeHost(tmp_path), info))
    assert all(finding.good for finding in findings) and any(words in f.text for f in findings)


def test_tracks_of_another_session_are_a_bad_finding(tmp_path):
    host = FakeHost(tmp_path)
    host.tracks.append(FakeTrack("Unmixer cafe 1", True))
    assert [f.good for f in asyncio.run(_who(host, HostInfo((12, 3), "1.1")))][-1] is False


async def _who(host, info):
    client = Client(host, "test", Timing(0.05, 2))
    try:
        return await doctor._who_answers(client, info)
    finally:
        client.close()


def test_every_missing_device_is_named_with_the_live_that_has_it(tmp_path, monkeypatch):
    host = FakeHost(tmp_path)
    stock = host._companion

    def lacking(address, arguments):
        if address.endswith("insert_device") and arguments[1] in ("Delay", "Phaser-Flanger"):
            raise LiveError(f"Live has no device named {arguments[1]!r}.")
        return stock(address, arguments)

    monkeypatch.setattr(host, "_companion", lacking)
    opening = session.Session.open(
        session.Endpoint(), Take(8000, 0.5), lanes=1, transport=host, timing=Timing(0.05, 4)
    )
    with pytest.raises(
        session.HostError, match=r"Phaser-Flanger \(in Live 11\), Delay \(in Live 10.1\)"
    ):
        asyncio.run(opening)
    assert [track.name for track in host.tracks] == ["1-MIDI", "2-Audio"]


@embedded
@pytest.mark.parametrize("stock", [(), ("--stock",)], ids=["companion", "stock"])
def test_every_drifted_effect_is_a_finding_and_the_rest_is_examined(stock):
    renamed = [
        word
        for name in ("Threshold", "Room Size")
        for word in ("--fault", f"no_parameter:name={name}")
    ]
    question = doctor.Question(Take(44100, 0.4), None, True, (*stock, *renamed))
    findings = asyncio.run(doctor.examine(question))
    bad, good = ([f.text for f in findings if f.good == which] for which in (False, True))
    assert (
        len(bad) == 2 and "Compressor" in bad[0] and "'Threshold'" in bad[0] and "Reverb" in bad[1]
    )
    said = "\n".join(good)
    assert (
        "parameter of 7 devices" in said
        and "repeatability, Saturator: second take" in said
        and "tails" in said
    )


def test_a_live_that_is_too_old_is_named(tmp_path, monkeypatch):
    host = FakeHost(tmp_path)
    monkeypatch.setattr(host, "on_application_get_version", lambda: (11, 3))
    opening = session.Session.open(
        session.Endpoint(), Take(8000, 0.5), lanes=1, transport=host, timing=Timing(0.05, 4)
    )
    with pytest.raises(session.HostRefused, match="Live 11.3 answers at .* Live 12 Suite: update"):
        asyncio.run(opening)
    assert all("/get/" in address for address, _ in host.heard)
