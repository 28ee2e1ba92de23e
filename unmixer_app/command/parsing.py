"""What the commands share: their shape, and the types of their arguments."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass

TRACE = "write every datagram to and from the host to this file, one JSON object a line"


@dataclass(frozen=True)
class Command:
    """One word of `unmix`: a line of help, its arguments, and what it does (the exit status)."""

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def midi_note(text: str) -> int:
    """A MIDI note, 0 to 127."""
    return _whole(text, 0, 127, "a MIDI note from 0 to 127")


def candidate_count(text: str) -> int:
    """How many candidates, 1 to 64."""
    return _whole(text, 1, 64, "a whole number from 1 to 64")


def step_count(text: str) -> int:
    """How many refinement steps, 0 to 10,000."""
    return _whole(text, 0, 10_000, "a whole number from 0 to 10000")


def port(text: str) -> int:
    """A TCP port; 0 lets the system choose."""
    return _whole(text, 0, 65_535, "a port from 0 to 65535")


def gate_seconds(text: str) -> float:
    """How long a key is held, 0.01 to 60 s."""
    return _number(text, 0.01, 60.0, "a time from 0.01 to 60 seconds")


def budget_seconds(text: str) -> float:
    """How long a search may take, 0 to 86,400 s."""
    return _number(text, 0.0, 86_400.0, "a time from 0 to 86400 seconds")


def _number(text: str, low: float, high: float, expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
    return value


def _whole(text: str, low: int, high: int, expected: str) -> int:
    value = _number(text, low, high, expected)
    if value != int(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
    return int(value)
