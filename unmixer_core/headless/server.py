"""The UDP side: datagrams in, replies to the sender's IP at the reply port, errors as AbletonOSC words them."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pythonosc.osc_bundle import OscBundle
from pythonosc.osc_bundle import ParseError as BundleError
from pythonosc.osc_message import OscMessage, ParseError
from pythonosc.osc_message_builder import OscMessageBuilder

from unmixer_core.errors import PortBusy
from unmixer_core.headless import companion, live_api, template
from unmixer_core.headless.pool import RenderPool
from unmixer_core.headless.recorder import Recorder
from unmixer_core.headless.song import Song

log = logging.getLogger(__name__)
MAX_DATAGRAM = 65535
RECEIVE_BUFFER_BYTES = 1 << 20
IDLE_S = 0.25
Args = Sequence[Any]


class Server:
    """One set, one socket. `serve()` runs until `stop()` or until `parent_pid` is gone."""

    def __init__(
        self, recordings: Path, *, host: str = "127.0.0.1", port: int = 11000, reply_port: int = 11001,
        workers: int = 1, tick_s: float = 0.0, sample_rate: int = 44100, parent_pid: int | None = None,
        layout: str = "", has_companion: bool = True, latency_samples: int = 0,
    ) -> None:  # fmt: skip
        """Binds and starts the render workers. Raises PortBusy, OSError.

        `layout`: template tracks are in the set (one of template.TEMPLATES); `has_companion` False: no /unmixer addresses.
        """
        recordings.mkdir(parents=True, exist_ok=True)
        self.socket = _bind(host, port)
        self.port: int = self.socket.getsockname()[1]
        self.reply_port, self.tick_s = reply_port, tick_s
        self.client_ip = "127.0.0.1"
        self.song = Song()
        self.pool = RenderPool(workers)
        self.recorder = Recorder(self.song, self.pool, recordings.resolve(), sample_rate, self._complain)
        self.live = live_api.handlers(self.song, self.recorder.fire)
        self.recorder.latency_samples = latency_samples
        self.companion = companion.handlers(self.song) if has_companion else {}
        if layout:
            template.prepare(self.song, layout)
        self._stopping = threading.Event()
        self._orphaned = _orphan_watch(parent_pid)

    def serve(self) -> None:
        """Answers until stopped; closes the socket and the workers on the way out."""
        self._send("/live/startup", ())
        try:
            if self.tick_s > 0:
                self._serve_in_ticks()
            else:
                self._serve_at_once()
        finally:
            self.pool.close()
            self.socket.close()

    def stop(self) -> None:
        self._stopping.set()

    def _running(self) -> bool:
        return not self._stopping.is_set() and not self._orphaned()

    def _serve_at_once(self) -> None:
        self.socket.settimeout(IDLE_S)
        while self._running():
            if (datagram := self._receive()) is not None:
                self._handle(datagram)
            else:
                self.recorder.launch()

    def _serve_in_ticks(self) -> None:
        """As Live: whatever came since the last tick is answered in this one; an error puts the rest off to the next."""
        self.socket.setblocking(False)
        queued: deque[bytes] = deque()
        while self._running():
            time.sleep(self.tick_s)
            while (datagram := self._receive()) is not None:
                queued.append(datagram)
            while queued and self._handle(queued.popleft()):
                pass
            self.recorder.launch()

    def _receive(self) -> bytes | None:
        try:
            datagram, (self.client_ip, _) = self.socket.recvfrom(MAX_DATAGRAM)
            return datagram
        except (TimeoutError, BlockingIOError):
            return None
        except ConnectionResetError:  # Windows: the client's port was closed
            return None

    def _handle(self, datagram: bytes) -> bool:
        """Answers one message or bundle. False when it failed (the rest of a bundle is dropped, as in AbletonOSC)."""
        try:
            messages = list(_messages(datagram))
        except (ParseError, BundleError, IndexError, UnicodeDecodeError) as problem:
            self._complain(f"Error parsing OSC message: {problem}")
            return False
        good = all(self._dispatch(message.address, list(message.params)) for message in messages)
        self.recorder.launch()
        return good

    def _dispatch(self, address: str, args: Args) -> bool:
        if self.companion and address.startswith(companion.PREFIX):
            return self._companion(address, args)
        handler = self.live.get(address)
        if handler is None:
            if "*" in address:
                return self._wildcard(address, args)
            self._complain(f"Unknown OSC address: {address}")
            return True
        try:
            reply = handler(args)
            if reply is not None:
                self._send(address, reply)
            return True
        except Exception as problem:
            self._complain(f"Error handling OSC message: {problem}")
            return False

    def _wildcard(self, pattern: str, args: Args) -> bool:
        expression = re.compile(re.escape(pattern).replace(r"\*", "[^/]+"))
        for address in [a for a in self.live if expression.match(a)]:
            try:
                reply = self.live[address](args)
            except (ValueError, AttributeError):
                continue
            if reply is not None:
                self._send(address, reply)
        return True

    def _companion(self, address: str, args: Args) -> bool:
        request = args[0] if args and isinstance(args[0], int) else 0
        handler = self.companion.get(address)
        try:
            if handler is None:
                raise KeyError("there is no such address")
            self._send(address, (request, *handler(args[1:])))
            return True
        except Exception as problem:
            self._send("/unmixer/error", (request, address, _sentence(problem)))
            return False

    def _complain(self, text: str) -> None:
        log.info("%s", text)
        self._send("/live/error", (text,))

    def _send(self, address: str, args: Args) -> None:
        datagram = encode(address, args)
        try:
            self.socket.sendto(datagram, (self.client_ip, self.reply_port))
        except OSError as problem:
            log.warning("reply to %s was not sent: %s", address, problem)


def encode(address: str, args: Args) -> bytes:
    """One OSC message: bool → T/F, int → i, float → f, str → s, None → N. Raises ValueError for anything else."""
    builder = OscMessageBuilder(address)
    for value in args:
        if value is not None and not isinstance(value, (bool, int, float, str)):
            raise ValueError("Infered arg_value type is not supported")  # the words of AbletonOSC's own OSC code
        builder.add_arg(value)
    return builder.build().dgram


def _bind(host: str, port: int) -> socket.socket:
    result = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    result.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    try:
        result.bind((host, port))
    except OSError as problem:
        result.close()
        raise PortBusy(
            f"Cannot listen on {host}:{port} ({problem.strerror}); end the program that does or choose another --port."
        ) from None
    return result


def _messages(datagram: bytes) -> list[OscMessage]:
    """The messages of a datagram, bundles flattened (nested too; time tags are ignored, as in AbletonOSC)."""
    if not OscBundle.dgram_is_bundle(datagram):
        return [OscMessage(datagram)]
    result: list[OscMessage] = []
    for content in OscBundle(datagram):
        result += [content] if isinstance(content, OscMessage) else _messages(content.dgram)
    return result


def _sentence(problem: Exception) -> str:
    if isinstance(problem, (RuntimeError, IndexError, KeyError)):
        return str(problem.args[0]) if problem.args else type(problem).__name__
    return f"{type(problem).__name__}: {problem}"


def _orphan_watch(parent_pid: int | None) -> Callable[[], bool]:
    """A function that says whether the process `parent_pid` is gone (never, when None)."""
    if parent_pid is None:
        return lambda: False
    import psutil

    real_parent = os.getppid()
    return lambda: os.getppid() != real_parent or not psutil.pid_exists(parent_pid)
