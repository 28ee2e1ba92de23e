"""The server: it answers OSC datagrams, with the error sentences of AbletonOSC."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pythonosc.osc_bundle import OscBundle
from pythonosc.osc_bundle import ParseError as BundleError
from pythonosc.osc_message import OscMessage, ParseError
from pythonosc.osc_message_builder import OscMessageBuilder

from unmixer_core.headless.addresses import companion, live_api
from unmixer_core.headless.server.link import Arrival, Link, UdpLink
from unmixer_core.headless.server.listeners import Listeners
from unmixer_core.headless.song import template
from unmixer_core.headless.song.devices import make_device
from unmixer_core.headless.song.recorder import HostRecorder
from unmixer_core.headless.song.song import Song
from unmixer_core.headless.song.values import Args
from unmixer_core.headless.sound.pool import RenderPool
from unmixer_core.headless.sound.voice import check_effects

log = logging.getLogger(__name__)
#: How long the server waits for a datagram before it looks for changes.
IDLE_S = 0.25
#: Stored replies to companion requests. A repeated request gets its reply again and has no effect.
STORED_REPLIES = 1000


class OscServer:
    """A set behind a UDP socket. `serve()` runs until `stop()`, or until `parent_pid` has ended."""

    def __init__(
        self,
        recordings: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 11000,
        reply_port: int = 11001,
        workers: int = 1,
        tick_s: float = 0.0,
        sample_rate: int = 44100,
        parent_pid: int | None = None,
        layout: str = "",
        has_companion: bool = True,
        latency_samples: int = 0,
        auto_filter_2: bool = False,
    ) -> None:
        """Bind the socket and start the render workers. Raises PortBusy, OSError, HostError.

        `layout`: layout of the template tracks in the set, one of template.TEMPLATES, or "" for
        none. `has_companion`: whether the `/unmixer` addresses exist. `auto_filter_2`: whether Auto
        Filter has the class of Live 12.2 and later.
        """
        check_effects()
        recordings.mkdir(parents=True, exist_ok=True)
        udp = UdpLink(host, port, reply_port)
        self.link: Link = udp
        self.port = udp.port
        self.tick_s = tick_s
        self.client_ip = "127.0.0.1"
        self.song = Song(partial(make_device, newer=auto_filter_2))
        self.pool = RenderPool(workers)
        self.recorder = HostRecorder(
            self.song, self.pool, recordings.resolve(), sample_rate, self._complain
        )
        self.live = live_api.handlers(self.song, self.recorder.fire)
        self.recorder.latency_samples = latency_samples
        self.companion = companion.handlers(self.song) if has_companion else {}
        if layout:
            template.prepare(self.song, layout)
        self.listeners = Listeners(self.live, lambda address, args: self._send(address, args))
        self._replies: OrderedDict[tuple[str, int], tuple[str, Args]] = OrderedDict()
        self._stopping = threading.Event()
        self._orphaned = _orphan_watch(parent_pid)

    def serve(self) -> None:
        """Answer datagrams until stopped, then close the socket and the workers."""
        self._send("/live/startup", ())
        try:
            if self.tick_s > 0:
                self._serve_in_ticks()
            else:
                self._serve_at_once()
        finally:
            self.pool.close()
            self.link.close()

    def stop(self) -> None:
        """End `serve` after the current message; safe in a signal handler."""
        self._stopping.set()

    def _running(self) -> bool:
        return not self._stopping.is_set() and not self._orphaned()

    def _serve_at_once(self) -> None:
        while self._running():
            arrival = self.link.receive(IDLE_S)
            if arrival is not None:
                self._receive(arrival)
            else:
                self._update()

    def _serve_in_ticks(self) -> None:
        """Answer in each tick the datagrams since the last one, as Live does.

        After an error the rest wait for the next tick.
        """
        queued: deque[Arrival] = deque()
        while self._running():
            time.sleep(self.tick_s)
            while (arrival := self.link.receive(0.0)) is not None:
                queued.append(arrival)
            while queued and self._receive(queued.popleft()):
                pass
            self._update()

    def _update(self) -> None:
        """Start the recordings that are due, and send the values that have changed."""
        self.recorder.launch()
        self.listeners.send_changes()

    def _receive(self, arrival: Arrival) -> bool:
        """Answer one datagram to its sender; False when it failed."""
        datagram, self.client_ip = arrival
        return self._handle(datagram)

    def _handle(self, datagram: bytes) -> bool:
        """Answer one message or bundle; False when it failed.

        After an error the rest of a bundle is dropped, as in AbletonOSC.
        """
        try:
            messages = list(_messages(datagram))
        except (ParseError, BundleError, IndexError, UnicodeDecodeError) as problem:
            self._complain(f"Error parsing OSC message: {problem}")
            return False
        good = all(self._dispatch(message.address, list(message.params)) for message in messages)
        self._update()
        return good

    def _dispatch(self, address: str, args: Args) -> bool:
        if address in self.companion:
            return self._companion(address, args)
        handler = self.live.get(address)
        if handler is None and "*" not in address:
            self._complain(f"Unknown OSC address: {address}")
            return True
        try:
            if handler is None:
                self._wildcard(address, args)
            elif (reply := handler(args)) is not None:
                self._send(address, reply)
            return True
        except Exception as problem:
            self._complain(f"Error handling OSC message: {problem}")
            return False

    def _wildcard(self, pattern: str, args: Args) -> None:
        expression = re.compile(re.escape(pattern).replace(r"\*", "[^/]+"))
        addresses = [address for address in self.live if expression.match(address)]
        for address in addresses:
            try:
                reply = self.live[address](args)
            except (ValueError, AttributeError):
                continue
            if reply is not None:
                self._send(address, reply)

    def _companion(self, address: str, args: Args) -> bool:
        request = args[0] if args and isinstance(args[0], int) else 0
        key = (address, request)
        reply = self._replies.get(key) or self._carry_out(address, request, args[1:])
        if request:
            self._replies[key] = reply
            if len(self._replies) > STORED_REPLIES:
                self._replies.popitem(last=False)
        reply_address, values = reply
        self._send(reply_address, values)
        return reply_address == address

    def _carry_out(self, address: str, request: int, args: Args) -> tuple[str, Args]:
        try:
            reply = (request, *self.companion[address](args))
            encode(address, reply)  # raises for a value that OSC has no type for
            return address, reply
        except Exception as problem:
            return "/unmixer/error", (request, address, _sentence(problem))

    def _complain(self, text: str) -> None:
        log.info("%s", text)
        self._send("/live/error", (text,))

    def _send(self, address: str, args: Args) -> None:
        self.link.send(encode(address, args), self.client_ip)


def encode(address: str, args: Args) -> bytes:
    """One OSC message: bool → T/F, int → i, float → f, str → s, None → N.

    Raises ValueError for anything else.
    """
    builder = OscMessageBuilder(address)
    for value in args:
        if value is not None and not isinstance(value, (bool, int, float, str)):
            # The words, and the misspelling, are those of AbletonOSC's own OSC code.
            raise ValueError("Infered arg_value type is not supported")
        builder.add_arg(value)
    return builder.build().dgram


def _messages(datagram: bytes) -> list[OscMessage]:
    """The messages of a datagram, those of nested bundles too.

    Time tags are ignored, as in AbletonOSC.
    """
    if not OscBundle.dgram_is_bundle(datagram):
        return [OscMessage(datagram)]
    result: list[OscMessage] = []
    for content in OscBundle(datagram):
        if isinstance(content, OscMessage):
            result.append(content)
        else:
            result += _messages(content.dgram)
    return result


def _sentence(problem: Exception) -> str:
    """The text of an error; with its class unless this host wrote the sentence."""
    if isinstance(problem, (RuntimeError, IndexError, KeyError)):
        return str(problem.args[0]) if problem.args else type(problem).__name__
    return f"{type(problem).__name__}: {problem}"


def _orphan_watch(parent_pid: int | None) -> Callable[[], bool]:
    """A function that tells whether the process `parent_pid` has ended; always False for None."""
    if parent_pid is None:
        return lambda: False
    import psutil

    real_parent = os.getppid()
    return lambda: os.getppid() != real_parent or not psutil.pid_exists(parent_pid)
