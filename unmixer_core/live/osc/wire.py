"""OSC 1.0 as AbletonOSC speaks it.

Encodes messages and bundles, decodes datagrams, and compares values that travelled as float32.

Types sent: int → i, float → f, bool → T/F, None → N, str → s. AbletonOSC ignores time tags, so
bundles say "now".
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from pythonosc.osc_bundle import OscBundle
from pythonosc.osc_bundle import ParseError as BundleError
from pythonosc.osc_message import OscMessage
from pythonosc.osc_message import ParseError as MessageError
from pythonosc.osc_message_builder import OscMessageBuilder

OscValue = str | int | float | bool | bytes | None
#: (address, arguments)
Message = tuple[str, tuple[OscValue, ...]]

IMMEDIATELY = b"#bundle\x00" + struct.pack(">Q", 1)
RELATIVE_TOLERANCE = 1e-6
ABSOLUTE_TOLERANCE = 1e-7


class NotOsc(ValueError):
    """A datagram that is not OSC."""


def encode(address: str, arguments: Sequence[OscValue] = ()) -> bytes:
    """One message → datagram."""
    builder = OscMessageBuilder(address)
    for argument in arguments:
        builder.add_arg(argument)
    return builder.build().dgram


def bundle(encoded: Sequence[bytes]) -> bytes:
    """Encoded messages → one datagram, which the host handles in one tick."""
    return IMMEDIATELY + b"".join(struct.pack(">i", len(data)) + data for data in encoded)


def decode(datagram: bytes) -> list[Message]:
    """Datagram → its messages, bundles flattened. Raises NotOsc."""
    try:
        if OscBundle.dgram_is_bundle(datagram):
            messages = []
            for part in OscBundle(datagram):
                messages += decode(part.dgram)
            return messages
        message = OscMessage(datagram)
        return [(message.address, tuple(message.params))]
    except (MessageError, BundleError, AttributeError, UnicodeDecodeError) as error:
        raise NotOsc(f"{len(datagram)} bytes that are not OSC: {error}") from error


def float32(value: float) -> float:
    """The float that arrives when `value` is sent."""
    return float(struct.unpack(">f", struct.pack(">f", value))[0])


def same(sent: float, received: float) -> bool:
    """Equal but for float32 rounding on the wire."""
    return abs(sent - received) <= ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * max(
        abs(sent), abs(received)
    )


def number(value: OscValue) -> float:
    """A number of a reply. Raises ValueError when it is none."""
    if value is None:
        raise ValueError("a number is expected, but the host sent None")
    return float(value)


def numbers(values: Sequence[OscValue]) -> list[float]:
    """The numbers of a reply. Raises ValueError when one is none."""
    return [number(value) for value in values]
