"""Faults of the link: lost, repeated, late and reordered datagrams, errors, a host that hangs."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from collections.abc import Mapping

from pythonosc.osc_message_builder import OscMessageBuilder

from unmixer_core.headless.server.link import Arrival, Link

LINK_FAULTS: dict[str, dict[str, float | str]] = {
    "latency": {"ms": 30.0},  # every datagram, in both directions
    "loss": {"chance": 0.03},  # both directions
    "duplicate": {"chance": 0.2},  # both directions
    "late": {"chance": 0.05, "ms": 500.0},  # replies, long after the request
    "reorder": {"chance": 0.2, "ms": 8.0},  # both directions: delayed by at most `ms`
    "error": {"every": 40.0},  # every n-th datagram fails and has no effect
    "stray": {"every": 20.0},  # every n-th datagram gets the error of another client
    "junk": {"every": 20.0},  # every n-th datagram gets a datagram that is not OSC
    # the host hangs for `s` seconds after n datagrams, and later ones queue up
    "dialog": {"after": 60.0, "s": 1.0},
    "silence": {"after": 60.0},  # it sends nothing more after n datagrams
}
ERROR = "Error handling OSC message: fault"
JUNK = b"/live/test\0\0,f"


class FaultyLink:
    """A link with faults around another link.

    `faults`: settings of each fault by name; `seed`: seed of the random generator.
    """

    def __init__(
        self, inner: Link, faults: Mapping[str, Mapping[str, float | str]], seed: int
    ) -> None:
        self._inner = inner
        self._settings = {
            name: {key: float(value) for key, value in s.items()} for name, s in faults.items()
        }
        self._random = random.Random(seed)
        self._order = itertools.count()
        #: Delayed datagrams to the host, a heap of (due time, order, datagram).
        self._late: list[tuple[float, int, Arrival]] = []
        self._received = 0

    def close(self) -> None:
        """Close the link behind this one."""
        self._inner.close()

    def receive(self, timeout_s: float) -> Arrival | None:
        """Return the next datagram that no fault drops, or None after `timeout_s`."""
        give_up_s = time.monotonic() + timeout_s
        while True:
            now_s = time.monotonic()
            if self._late and self._late[0][0] <= now_s:
                arrival = heapq.heappop(self._late)[2]
                if self._pass(arrival):
                    return arrival
                continue
            until_s = min(give_up_s, self._late[0][0]) if self._late else give_up_s
            arrived = self._inner.receive(max(0.0, until_s - now_s))
            if arrived is not None:
                for delay_s in self._delays_s():
                    heapq.heappush(
                        self._late, (time.monotonic() + delay_s, next(self._order), arrived)
                    )
            elif now_s >= give_up_s:
                return None

    def send(self, datagram: bytes, ip: str) -> None:
        """Send a datagram late, twice, in another order, or not at all."""
        if self._silent:
            return
        for delay_s in self._delays_s():
            if self._drawn("late"):
                delay_s += self._delay_s("late") * (1.0 + self._random.random())
            if delay_s > 0.0:
                timer = threading.Timer(delay_s, self._inner.send, (datagram, ip))
                timer.daemon = True
                timer.start()
            else:
                self._inner.send(datagram, ip)

    def _pass(self, arrival: Arrival) -> bool:
        """Count a datagram that arrives; False when a fault drops it."""
        self._received += 1
        if "dialog" in self._settings and self._received == self._settings["dialog"]["after"]:
            time.sleep(self._settings["dialog"]["s"])
        if self._is_turn("stray"):
            self._inner.send(_error(), arrival[1])
        if self._is_turn("junk"):
            self._inner.send(JUNK, arrival[1])
        if self._is_turn("error"):
            self._inner.send(_error(), arrival[1])
            return False
        return not self._silent

    @property
    def _silent(self) -> bool:
        return "silence" in self._settings and self._received >= self._settings["silence"]["after"]

    def _delays_s(self) -> list[float]:
        """The delay of each copy of a datagram: none for a lost one, two for a repeated one."""
        if self._drawn("loss"):
            return []
        copies = 2 if self._drawn("duplicate") else 1
        return [self._delay_s("latency") + self._reorder_delay_s() for _ in range(copies)]

    def _reorder_delay_s(self) -> float:
        return self._delay_s("reorder") * self._random.random() if self._drawn("reorder") else 0.0

    def _drawn(self, name: str) -> bool:
        return name in self._settings and self._random.random() < self._settings[name]["chance"]

    def _delay_s(self, name: str) -> float:
        """The `ms` of a fault, converted to seconds; 0 when the fault is off."""
        return self._settings.get(name, {}).get("ms", 0.0) / 1000.0

    def _is_turn(self, name: str) -> bool:
        return name in self._settings and self._received % self._settings[name]["every"] == 0


def _error() -> bytes:
    builder = OscMessageBuilder("/live/error")
    builder.add_arg(ERROR)
    return builder.build().dgram
