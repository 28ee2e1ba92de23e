"""The few kinds of OSC message the companion needs when it has to open a port of its own."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

DATAGRAM_BYTES = 65536
#: The client sends 200 at most; Live must go on whatever else comes, and when the socket only
#: fails.
DATAGRAMS_PER_TICK = 1000
BUNDLE = b"#bundle\x00"


def encode(address: str, arguments: tuple[Any, ...]) -> bytes:
    """int → i, float → f, bool → T/F, everything else → s."""
    tags, payload = ",", b""
    for value in arguments:
        if isinstance(value, bool):
            tags += "T" if value else "F"
        elif isinstance(value, int):
            tags, payload = tags + "i", payload + struct.pack(">i", value)
        elif isinstance(value, float):
            tags, payload = tags + "f", payload + struct.pack(">f", value)
        else:
            tags, payload = tags + "s", payload + _text(str(value))
    return _text(address) + _text(tags) + payload


def decode(data: bytes) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The messages of a datagram, bundles flattened.

    Raises ValueError, struct.error or IndexError on garbage.
    """
    if data.startswith(BUNDLE):
        at = 16
        while at < len(data):
            (size,) = struct.unpack_from(">i", data, at)
            if size <= 0:
                raise ValueError(f"a bundle's part cannot have {size} bytes")
            yield from decode(data[at + 4 : at + 4 + size])
            at += 4 + size
        return
    address, at = _read_text(data, 0)
    tags, at = _read_text(data, at)
    arguments: list[Any] = []
    for tag in tags[1:]:
        if tag in "if":
            arguments += struct.unpack_from(f">{tag}", data, at)
            at += 4
        elif tag == "s":
            text, at = _read_text(data, at)
            arguments.append(text)
        elif tag in "TFN":
            arguments.append({"T": True, "F": False, "N": None}[tag])
        else:
            raise ValueError(f"type {tag} is not supported")
    yield address, tuple(arguments)


class Port:
    """A UDP port that is looked at in every tick of Live and answers to `reply_port` of the
    sender.
    """

    def __init__(self, port: int, reply_port: int) -> None:
        self._reply_port = reply_port
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        try:
            self._socket.bind(("0.0.0.0", port))
        except OSError:
            self._socket.close()
            raise

    def process(
        self, answer: Callable[[str, tuple[Any, ...]], tuple[str, tuple[Any, ...]]]
    ) -> None:
        """Answers everything that has come since the last tick."""
        for _ in range(DATAGRAMS_PER_TICK):
            try:
                data, sender = self._socket.recvfrom(DATAGRAM_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue
            try:
                for address, arguments in decode(data):
                    self._socket.sendto(
                        encode(*answer(address, arguments)), (sender[0], self._reply_port)
                    )
            except (ValueError, IndexError, struct.error, RecursionError, OSError):
                continue

    def close(self) -> None:
        self._socket.close()


def _text(text: str) -> bytes:
    data = text.encode() + b"\x00"
    return data + b"\x00" * (-len(data) % 4)


def _read_text(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(b"\x00", at)
    return data[at:end].decode(), (end // 4 + 1) * 4
