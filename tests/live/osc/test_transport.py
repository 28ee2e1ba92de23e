"""The socket: large datagrams, a busy port, addresses from the environment, and the trace."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from unmixer_core.errors import ConfigError, HostError, PortBusy
from unmixer_core.live.osc import wire
from unmixer_core.live.osc.transport import Endpoint, TracingTransport, UdpTransport


def exchange(size, tmp_path=None):
    """Sends one datagram to a socket that answers with `size` bytes of text; what arrived."""

    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host:
            host.bind(("127.0.0.1", 0))
            host.settimeout(2.0)
            udp = UdpTransport(Endpoint(port=host.getsockname()[1], reply_port=0))
            transport = TracingTransport(udp, tmp_path / "trace.jsonl") if tmp_path else udp
            arrived = asyncio.get_running_loop().create_future()
            transport.open(arrived.set_result)
            transport.send(wire.encode("/live/test", (1, 2.5)))
            await asyncio.sleep(0)
            question, _ = host.recvfrom(65536)
            host.sendto(wire.encode("/live/test", ("x" * size,)), ("127.0.0.1", udp.reply_port))
            answer = await asyncio.wait_for(arrived, 2.0)
            transport.close()
            return wire.decode(question), wire.decode(answer)

    return asyncio.run(main())


def test_a_reply_of_60_kb_arrives_whole():
    question, [(_, (text,))] = exchange(60_000)
    assert question == [("/live/test", (1, 2.5))] and len(text) == 60_000


def test_the_trace_holds_every_datagram_both_ways(tmp_path):
    exchange(3, tmp_path)
    out, back = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text().splitlines()]
    assert (out["dir"], out["messages"]) == ("out", [["/live/test", 1, 2.5]])
    assert (back["dir"], wire.decode(bytes.fromhex(back["hex"]))) == (
        "in",
        [("/live/test", ("xxx",))],
    )


def test_a_busy_port_is_named():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        with pytest.raises(PortBusy, match=f"UDP port {port}.*held by another program"):
            UdpTransport(Endpoint(reply_port=port))


def test_the_environment_names_host_and_ports():
    environ = {
        "UNMIXER_LIVE_HOST": "studio.local",
        "UNMIXER_OSC_PORT": "12000",
        "UNMIXER_OSC_REPLY_PORT": "12001",
    }
    assert Endpoint.from_environment(environ) == Endpoint("studio.local", 12000, 12001)
    assert Endpoint.from_environment({}) == Endpoint("127.0.0.1", 11000, 11001)
    with pytest.raises(ConfigError, match="UNMIXER_OSC_PORT is 'high'"):
        Endpoint.from_environment({"UNMIXER_OSC_PORT": "high"})


def test_an_unknown_host_name_is_named():
    with pytest.raises(HostError, match=r"no-such-host\.invalid"):
        UdpTransport(Endpoint(host="no-such-host.invalid", reply_port=0))


def test_hosts_on_two_machines_answer_to_one_port_and_are_told_apart():
    """AbletonOSC answers to port 11001 whatever asked it, so two Lives share a socket of ours."""

    async def main():
        with _bound("127.0.0.2") as first, _bound("127.0.0.3") as second:
            port = free_port()
            heard = {}
            transports = []
            for host in (first, second):
                name, host_port = host.getsockname()
                transport = UdpTransport(Endpoint(name, host_port, port, shared=True))
                transport.open(
                    lambda datagram, name=name: heard.setdefault(name, []).append(datagram)
                )
                transports.append(transport)
            for host in (first, second):
                host.sendto(host.getsockname()[0].encode(), ("127.0.0.1", port))
            with _bound("127.0.0.4") as stranger:
                stranger.sendto(b"stranger", ("127.0.0.1", port))
            await asyncio.sleep(0.1)
            assert heard == {"127.0.0.2": [b"127.0.0.2"], "127.0.0.3": [b"127.0.0.3"]}
            transports[0].close()
            second.sendto(b"more", ("127.0.0.1", port))
            await asyncio.sleep(0.1)
            assert heard["127.0.0.3"][1:] == [b"more"]  # the other one goes on
            with pytest.raises(PortBusy):
                UdpTransport(Endpoint("127.0.0.3", 1, port, shared=True))
            transports[1].close()
            UdpTransport(Endpoint("127.0.0.3", 1, port)).close()  # and the last one frees the port

    asyncio.run(main())


def _bound(address):
    host = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    host.bind((address, 0))
    return host


def free_port():
    with _bound("127.0.0.1") as probe:
        return probe.getsockname()[1]
