"""Datagrams to and from a host: the seam at which tests, traces and the real socket meet.

AbletonOSC answers to a fixed port of the sender's machine, whatever port the question came from, so
the client owns that reply port. The socket takes 64 KB datagrams (python-osc's server cuts at 8 KB)
and a large kernel buffer.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, TextIO

from unmixer_core.errors import HostError, PortBusy
from unmixer_core.live.osc import wire
from unmixer_core.system.environment import integer

DATAGRAM_BYTES = 65536
RECEIVE_BUFFER_BYTES = 4 << 20
Receiver = Callable[[bytes], None]


@dataclass(frozen=True)
class Endpoint:
    """Where a host listens and where it answers.

    `companion_port`: where the companion script listens if on its own.
    """

    host: str = "127.0.0.1"
    port: int = 11000
    reply_port: int = 11001
    companion_port: int = 11002
    #: Other hosts, on other machines, answer to the same port of ours.
    shared: bool = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Endpoint:
        """UNMIXER_LIVE_HOST (or UNMIXER_OSC_HOST), UNMIXER_OSC_PORT, UNMIXER_OSC_REPLY_PORT,
        UNMIXER_COMPANION_PORT.
        """
        return cls(
            environ.get("UNMIXER_LIVE_HOST") or environ.get("UNMIXER_OSC_HOST") or cls.host,
            _port(environ, "UNMIXER_OSC_PORT", cls.port),
            _port(environ, "UNMIXER_OSC_REPLY_PORT", cls.reply_port),
            _port(environ, "UNMIXER_COMPANION_PORT", cls.companion_port),
        )

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def _port(environ: Mapping[str, str], name: str, default: int) -> int:
    return integer(name, default, 0, 65535, environ=environ)


class Transport(Protocol):
    """Sends datagrams; hands received ones to the receiver given to `open`, on the running event
    loop.
    """

    def open(self, receiver: Receiver) -> None: ...

    def send(self, datagram: bytes, port: int | None = None) -> None: ...

    def close(self) -> None: ...


class UdpTransport:
    """A UDP socket bound to the reply port. Raises PortBusy when another program holds it.

    Several hosts that answer to one port are told apart by their machines' addresses; they share
    the socket.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._address = _resolve(endpoint.host)
        self._socket = _ReplySocket.at(endpoint, self._address)

    @property
    def reply_port(self) -> int:
        """The port really bound (of use when 0 was asked for)."""
        return self._socket.port

    def open(self, receiver: Receiver) -> None:
        self._socket.open(self._address, receiver)

    def send(self, datagram: bytes, port: int | None = None) -> None:
        try:
            self._socket.socket.sendto(
                datagram, (self._address, self.endpoint.port if port is None else port)
            )
        except BlockingIOError:
            pass  # a full send buffer is a lost datagram: read-back and retry see to it
        except OSError as error:
            if error.errno != errno.ECONNREFUSED:
                raise HostError(
                    f"a datagram of {len(datagram)} bytes to {self.endpoint} was not sent: {error}."
                ) from error

    def close(self) -> None:
        self._socket.leave(self._address)


class _ReplySocket:
    """One bound socket and who hears what it receives, by the sender's address."""

    #: Sockets that may be shared, by port.
    bound: ClassVar[dict[int, _ReplySocket]] = {}

    def __init__(self, endpoint: Endpoint) -> None:
        self.socket = _bound_socket(endpoint)
        self.thread = threading.get_ident()
        self._receivers: dict[str, Receiver | None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def at(cls, endpoint: Endpoint, address: str) -> _ReplySocket:
        """A new one, or the one that another host of ours has there already."""
        found = cls.bound.get(endpoint.reply_port) if endpoint.shared else None
        if found is None or address in found._receivers or found.thread != threading.get_ident():
            found = cls(endpoint)
            if endpoint.shared:
                cls.bound[endpoint.reply_port] = found
        found._receivers[address] = None
        return found

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    def open(self, address: str, receiver: Receiver) -> None:
        self._receivers[address] = receiver
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self.socket.fileno(), self._drain)

    def leave(self, address: str) -> None:
        """The last one to leave closes the socket."""
        if self._receivers.pop(address, self) is self or self._receivers:
            return
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self.socket.fileno())
        self._loop = None
        for port in [port for port, found in self.bound.items() if found is self]:
            del self.bound[port]
        self.socket.close()

    def _drain(self) -> None:
        while self._receivers:
            try:
                datagram, sender = self.socket.recvfrom(DATAGRAM_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue  # an earlier datagram found no listener; the query's timeout will say so
            if receiver := self._receivers.get(sender[0]):
                receiver(datagram)


def _bound_socket(endpoint: Endpoint) -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.setblocking(False)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    near = endpoint.host in ("127.0.0.1", "localhost") and not endpoint.shared
    try:
        opened.bind(("127.0.0.1" if near else "0.0.0.0", endpoint.reply_port))
    except OSError as error:
        opened.close()
        raise PortBusy(
            f"UDP port {endpoint.reply_port}, to which Live answers, is held by another program "
            f"({error.strerror}); "
            "close the other AbletonOSC client, or set UNMIXER_OSC_REPLY_PORT for a host that "
            "answers elsewhere."
        ) from error
    return opened


def _resolve(host: str) -> str:
    try:
        return socket.gethostbyname(host)
    except OSError as error:
        raise HostError(
            f"the host name {host!r} of UNMIXER_LIVE_HOST is unknown ({error})."
        ) from error


class TracingTransport:
    """Passes datagrams on and writes each as a line of JSON.

    Seconds, direction, messages, bytes in hex.
    """

    def __init__(self, inner: Transport, path: Path) -> None:
        self._inner = inner
        self._file: TextIO = path.open("a", encoding="utf-8")
        self._start_s = time.monotonic()

    def open(self, receiver: Receiver) -> None:
        def receive(datagram: bytes) -> None:
            self._write("in", datagram)
            receiver(datagram)

        self._inner.open(receive)

    def send(self, datagram: bytes, port: int | None = None) -> None:
        self._write("out", datagram)
        self._inner.send(datagram, port)

    def close(self) -> None:
        self._inner.close()
        self._file.close()

    def _write(self, direction: str, datagram: bytes) -> None:
        try:
            messages = [[address, *arguments] for address, arguments in wire.decode(datagram)]
        except wire.NotOsc:
            messages = []
        entry = {
            "s": round(time.monotonic() - self._start_s, 6),
            "dir": direction,
            "messages": messages,
            "hex": datagram.hex(),
        }
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()


def traced(transport: Transport, trace: Path | None = None) -> Transport:
    """The transport, written down in `trace`, or in $UNMIXER_TRACE when that is set."""
    path = trace or (Path(os.environ["UNMIXER_TRACE"]) if os.environ.get("UNMIXER_TRACE") else None)
    return TracingTransport(transport, path) if path else transport


def connect(endpoint: Endpoint, trace: Path | None = None) -> Transport:
    """A socket to `endpoint`, traced."""
    return traced(UdpTransport(endpoint), trace)
