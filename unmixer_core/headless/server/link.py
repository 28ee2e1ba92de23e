"""The host's UDP socket.

It receives datagrams with the address of their sender, and sends replies to that address at the
reply port.
"""

from __future__ import annotations

import logging
import socket
from typing import Protocol

from unmixer_core.errors import PortBusy

log = logging.getLogger(__name__)
#: The largest UDP datagram, in bytes.
MAX_DATAGRAM = 65535
#: Room for bursts that arrive while a request is answered.
RECEIVE_BUFFER_BYTES = 1 << 20
#: A datagram and its sender's IP address.
Arrival = tuple[bytes, str]


class Link(Protocol):
    """A connection as the server needs it. `send` may be called from any thread."""

    def receive(self, timeout_s: float) -> Arrival | None:
        """Return the next datagram, or None after `timeout_s`."""

    def send(self, datagram: bytes, ip: str) -> None:
        """Send one datagram to `ip`, at the reply port."""

    def close(self) -> None:
        """Release the port."""


class UdpLink:
    """A bound UDP socket.

    It replies to the sender's machine at `reply_port`, whatever the sender's port, as AbletonOSC.
    """

    def __init__(self, host: str, port: int, reply_port: int) -> None:
        """Bind the socket. Raises PortBusy."""
        self.socket = _bound(host, port)
        self.reply_port = reply_port

    @property
    def port(self) -> int:
        """The bound port, which the system chooses for port 0."""
        return int(self.socket.getsockname()[1])

    def receive(self, timeout_s: float) -> Arrival | None:
        """The next datagram, or None when none arrives within `timeout_s` (0: do not wait)."""
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
        """Release the port."""
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
