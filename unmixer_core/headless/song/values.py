"""Values of OSC messages, and the rules by which Live accepts them as attributes.

Errors are raised as Live raises them (RuntimeError, AttributeError, ArgumentError). The server
sends their words to the client.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

#: A value in an OSC message.
OscValue = str | int | float | bool | bytes | None
#: The arguments of a request or of a reply.
Args = Sequence[OscValue]
#: Carries out a request; None where Live sends no reply.
Handler = Callable[[Args], Args | None]
Item = TypeVar("Item")

OUT_OF_RANGE = "Invalid value. Check the parameters range with min/max"


class ArgumentError(Exception):
    """Boost.Python's error for an argument of the wrong type."""


def float32(value: float) -> float:
    """The value rounded to float32, as Live stores and sends it."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def to_int(value: OscValue) -> int:
    """The value as an int. Raises TypeError or ValueError as `int` does."""
    # AbletonOSC calls `int` too, so None must get Python's own error sentence.
    return int(value)  # type: ignore[arg-type]


def to_float(value: OscValue) -> float:
    """The value as a float. Raises TypeError or ValueError as `float` does."""
    # AbletonOSC leaves the check to Python, so None must get Python's own error sentence.
    return float(value)  # type: ignore[arg-type]


def at(items: Sequence[Item], index: int) -> Item:
    """The item at an index. Raises IndexError with Live's words when there is none."""
    # A negative index is an error in Live, but not in Python.
    if not 0 <= index < len(items):
        raise IndexError("Index out of range")
    return items[index]


@dataclass(frozen=True)
class Rule:
    """The values that an attribute accepts: `kind` is float, int, bool or str; within low..high."""

    kind: type[float] | type[int] | type[bool] | type[str]
    low: float = float("-inf")
    high: float = float("inf")
    complaint: str = "Invalid value"

    def check(self, owner: str, value: OscValue) -> str | float:
        """Return the value as Live stores it; raise Live's error for a wrong type or range.

        `owner` is the class that Live names in the error sentence.
        """
        if isinstance(value, str):
            if self.kind is not str:
                raise ArgumentError("Python argument types did not match C++ signature")
            return value
        if self.kind is str or not isinstance(value, (int, float)):
            raise ArgumentError("Python argument types did not match C++ signature")
        if self.kind is int and isinstance(value, float):
            raise ArgumentError(
                f"Python argument types in\n    None.None({owner}, float)\ndid not match C++ "
                f"signature"
            )
        if not self.low <= value <= self.high:
            raise RuntimeError(self.complaint)
        return self.kind(value)


class Settable:
    """An object whose attributes in `rules` may be set by OSC messages."""

    rules: ClassVar[dict[str, Rule]] = {}
    #: The class name in Live's error sentences, where it differs from ours.
    live_class: ClassVar[str] = ""

    def assign(self, name: str, value: OscValue) -> None:
        """Set an attribute. Raises Live's error for a value that its rule does not accept."""
        owner = self.live_class or type(self).__name__
        setattr(self, name, self.rules[name].check(owner, value))
