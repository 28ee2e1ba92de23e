"""The host's end of the wire.

Datagrams in with their sender's address, replies out to that address at the reply port.
"""

from __future__ import annotations

import logging
import socket
from typing import Protocol

from unmixer_core.errors import PortBusy

log = logging.getLogger(__name__)
MAX_DATAGRAM = 65535
RECEIVE_BUFFER_BYTES = 1 << 20
#: A datagram and its sender's IP address.
Arrival = tuple[bytes, str]


class Link(Protocol):
    """What the server needs of a wire. `send` may be called from any thread."""

    def receive(self, timeout_s: float) -> Arrival | None:
        """Return the next datagram, or None after `timeout_s`."""

    def send(self, datagram: bytes, ip: str) -> None:
        """Send one datagram to `ip`, at the reply port."""

    def close(self) -> None:
        """Give the port back."""


class UdpLink:
    """A bound UDP socket.

    As AbletonOSC, it answers the sender's machine at `reply_port`, whatever port was sent from.
    """

    def __init__(self, host: str, port: int, reply_port: int) -> None:
        """Binds. Raises PortBusy."""
        self.socket = _bound(host, port)
        self.reply_port = reply_port

    @property
    def port(self) -> int:
        """The port really bound (of use when 0 was asked for)."""
        return int(self.socket.getsockname()[1])

    def receive(self, timeout_s: float) -> Arrival | None:
        """The next datagram, or None when none comes within `timeout_s` (0: none waits)."""
        self.socket.settimeout(timeout_s)
        try:
            datagram, (ip, _) = self.socket.recvfrom(MAX_DATAGRAM)
            return datagram, ip
        except (TimeoutError, BlockingIOError):
            return None
        except ConnectionResetError:  # Windows: the client's port was closed
            return None

    def send(self, datagram: bytes, ip: str) -> None:
        """Send one datagram to `ip`, at the reply port; a failure is logged."""
        try:
            self.socket.sendto(datagram, (ip, self.reply_port))
        except OSError as problem:
            log.warning("a reply of %d bytes was not sent: %s", len(datagram), problem)

    def close(self) -> None:
        """Give the port back."""
        self.socket.close()


def _bound(host: str, port: int) -> socket.socket:
    result = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    result.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    try:
        result.bind((host, port))
    except OSError as problem:
        result.close()
        raise PortBusy(
            f"Cannot listen on {host}:{port} ({problem.strerror}); end the program that does or "
            f"choose another --port."
        ) from None
    return result
