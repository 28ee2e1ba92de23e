"""Questions and answers with AbletonOSC, which acknowledges nothing and puts neither address nor id
on its errors.

A reply is matched on its address *and* on the ids it echoes. Three things keep answers true:

- a question that was asked twice, or given up, leaves answers that may still arrive. The next time
  the same question is
  put, a fence goes first: an address nobody has, whose error text comes back after everything the
  host said before;
- `/live/error` names no request. The host works in order, so it belongs to the oldest datagram that
  has open questions,
  or to sets just before it. Those questions are put again, alone and with a fence behind them: an
  error and no reply before the fence's is a refusal, and HostRefused when it happens each time.
  Errors that are not ours do no harm;
- at most `window` datagrams are out without a sign that the host took them, or its receive buffer
  drops some silently.

What is said within one turn of the event loop travels as one bundle. An error makes the host drop
the rest of a bundle, so what is asked a second time travels alone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import random
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from unmixer_core.errors import ConfigError, HostError, HostRefused, HostTimeout
from unmixer_core.live.osc import wire
from unmixer_core.live.osc.transport import Transport
from unmixer_core.live.osc.wire import Message, OscValue

log = logging.getLogger(__name__)

#: Arguments of a reply. Their types depend on the address, so each caller converts them.
Reply = tuple[Any, ...]

UNKNOWN_ADDRESS = "Unknown OSC address: "
FENCE = "/unmixer/fence/"
#: Below the 8 KB and 9 KB at which python-osc's server and macOS cut.
BUNDLE_BYTES = 8000
CHECKLIST = (
    "check that Live is running, that AbletonOSC is chosen under Settings > Link, Tempo & MIDI > "
    "Control Surface, "
    "that no dialog or menu is open in Live, and that UNMIXER_LIVE_HOST is right"
)


@dataclass(frozen=True)
class Timing:
    """`timeout_s` of one try (an open menu stops Live for seconds), number of `tries`, datagrams
    out at a time.
    """

    timeout_s: float = 2.0
    tries: int = 3
    window: int = 200

    @classmethod
    def from_environment(cls) -> Timing:
        text = os.environ.get("UNMIXER_OSC_TIMEOUT_S") or str(cls.timeout_s)
        try:
            timeout_s = float(text)
        except ValueError:
            timeout_s = 0.0
        if timeout_s <= 0.0:
            raise ConfigError(
                f"UNMIXER_OSC_TIMEOUT_S is {text!r}, but a number of seconds above zero is "
                f"expected."
            )
        return cls(timeout_s=timeout_s)


@dataclass(frozen=True)
class _Outcome:
    # "reply", "refused" (certain), "suspect" (an error that is probably this question's), "timeout"
    kind: str
    arguments: Reply = ()
    text: str = ""


@dataclass(eq=False)
class _Question:
    address: str
    ids: tuple[OscValue, ...]
    sequence: int = 0
    asked: int = 0
    suspicion: str = ""
    fenced: bool = False
    waiter: asyncio.Future[_Outcome] | None = field(default=None, repr=False)

    def resolve(self, outcome: _Outcome) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(outcome)


class Client:
    """Speaks to one host.

    Use inside a running event loop; `where` is the host's address as errors should name it.

    `repairs`: how often the set, changed by somebody else, was put right again; a take under way
    then is void.
    """

    def __init__(self, transport: Transport, where: str, timing: Timing | None = None) -> None:
        self.where, self.timing = where, timing or Timing.from_environment()
        self.errors: deque[tuple[int, str]] = deque(maxlen=200)
        self.unmatched = 0
        self.repairs = 0
        self.trouble = ""
        self.companion_port: int | None = None
        self._transport = transport
        self._questions: dict[str, list[_Question]] = defaultdict(list)
        self._fences: dict[str, asyncio.Future[None]] = {}
        self._checks: dict[str, int] = {}
        self._stale: set[tuple[str, tuple[OscValue, ...]]] = set()
        self._sent = self._acknowledged = 0
        self._outbox: list[bytes] = []
        self._outbox_bytes = 0
        self._progress = asyncio.Event()
        self._request_ids = itertools.count(random.SystemRandom().randrange(1 << 24) << 6)
        transport.open(self._receive)

    def close(self) -> None:
        """Says what is still to be said, and closes the socket."""
        self._flush()
        self._transport.close()

    # -- saying --------------------------------------------------------------------------------

    async def send(self, *messages: Message, alone: bool = False) -> None:
        """Messages that have no reply, in one datagram: handled in the same tick.

        Confirm by reading back.

        `alone`: in a datagram that holds nothing else, so that no other message's error can cost
        it.
        """
        await self._room()
        self._post([wire.encode(*message) for message in messages], alone)

    @property
    def mark(self) -> int:
        """A point in the conversation, for `errors_since`."""
        return self._sent

    def errors_since(self, mark: int) -> list[str]:
        """Texts of the /live/error messages that came after `mark`."""
        return [text for sent, text in self.errors if sent >= mark]

    # -- asking --------------------------------------------------------------------------------

    async def query(
        self,
        address: str,
        *ids: OscValue,
        extra: Sequence[OscValue] = (),
        asked: Sequence[OscValue] | None = None,
        tries: int | None = None,
        port: int | None = None,
    ) -> Reply:
        """The reply's arguments behind the echoed `ids`. `extra` arguments are sent but not echoed.

        `asked` replaces what is sent, for an address that echoes nothing but whose reply is known
        to start with `ids`. Raises HostTimeout after `tries` silent tries, HostRefused when the
        host answers with an error.
        """
        arguments = tuple(asked) if asked is not None else (*ids, *extra)
        if (address, ids) in self._stale:
            await self.fence()
        question = _Question(address, ids)
        self._questions[address].append(question)
        outcome = _Outcome("timeout")
        try:
            outcome = await self._ask(
                question, wire.encode(address, arguments), tries or self.timing.tries, port
            )
        finally:
            self._questions[address].remove(question)
            if (question.asked > 1 or outcome.kind == "timeout") and not address.startswith(
                "/unmixer/"
            ):
                self._stale.add((address, ids))
        if outcome.kind == "reply":
            return outcome.arguments
        text = outcome.text or question.suspicion  # a silence after an error is a refusal
        said = f"{address} {' '.join(map(str, arguments))}".rstrip()
        if text:
            raise HostRefused(f"the host at {self.where} answered {said} with an error: {text}.")
        waited_s = question.asked * self.timing.timeout_s
        raise HostTimeout(
            f"the host at {self.where} did not answer {said} in {question.asked} tries of "
            f"{self.timing.timeout_s:g} s "
            f"({waited_s:g} s in all){self.trouble}; {CHECKLIST}."
        )

    async def companion(
        self, address: str, *arguments: OscValue, tries: int | None = None
    ) -> Reply:
        """A companion call: the reply's arguments behind the request id.

        Raises as `query`, errors being exact.
        """
        request = next(self._request_ids) & 0x7FFFFFFF
        return await self.query(
            address, request, extra=arguments, tries=tries, port=self.companion_port
        )

    async def fence(self) -> None:
        """Returns when everything the host said before now has arrived (on a path that keeps
        order).
        """
        for _ in range(self.timing.tries):
            address = f"{FENCE}{next(self._request_ids)}"
            self._fences[address] = asyncio.get_running_loop().create_future()
            try:
                sequence = self._post([wire.encode(address)], alone=True)
                async with asyncio.timeout(self.timing.timeout_s):
                    await self._fences[address]
                self._stale.clear()
                self._acknowledge(sequence)
                return
            except TimeoutError:
                continue
            finally:
                del self._fences[address]
        waited_s = self.timing.tries * self.timing.timeout_s
        raise HostTimeout(f"the host at {self.where} said nothing for {waited_s:g} s; {CHECKLIST}.")

    async def _ask(
        self, question: _Question, datagram: bytes, tries: int, port: int | None
    ) -> _Outcome:
        loop = asyncio.get_running_loop()
        outcome = _Outcome("timeout")
        for _ in range(tries):
            await self._room()
            question.waiter = loop.create_future()
            question.suspicion = ""
            question.asked += 1
            question.sequence = self._post([datagram], alone=question.asked > 1, port=port)
            question.fenced = outcome.kind == "suspect" and port is None
            if question.fenced:
                self._check(question.sequence)
            timer = loop.call_later(self.timing.timeout_s, question.resolve, _Outcome("timeout"))
            outcome = await question.waiter
            timer.cancel()
            if outcome.kind in ("reply", "refused"):
                break
            log.debug("%s: %s %s (%s)", self.where, question.address, outcome.kind, outcome.text)
        return outcome

    def _check(self, sequence: int) -> None:
        """A fence behind the datagram `sequence`.

        When it comes back, what was asked until then should have been answered.
        """
        address = f"{FENCE}{next(self._request_ids)}"
        self._checks[address] = sequence
        self._post([wire.encode(address)], alone=True)

    # -- the window ----------------------------------------------------------------------------

    def _post(self, messages: list[bytes], alone: bool = False, port: int | None = None) -> int:
        """Puts encoded messages into the bundle that leaves at the end of this turn.

        Returns its sequence number.
        """
        size = sum(map(len, messages)) + 4 * len(messages)
        alone = alone or port is not None
        if self._outbox and (alone or self._outbox_bytes + size > BUNDLE_BYTES):
            self._flush()
        if not self._outbox:
            self._sent += 1
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox += messages
        self._outbox_bytes += size
        if alone:
            self._flush(port)
        return self._sent

    def _flush(self, port: int | None = None) -> None:
        if self._outbox:
            datagram = self._outbox[0] if len(self._outbox) == 1 else wire.bundle(self._outbox)
            self._outbox, self._outbox_bytes = [], 0
            try:
                self._transport.send(datagram, port)
            except HostError as error:  # the open questions will time out, and say why
                log.warning("%s", error)
                self.trouble = f"; {error}"

    async def _room(self) -> None:
        """Waits until fewer than `window` datagrams are out.

        Asks for a sign of life when nothing else would bring one.
        """
        while (
            self._sent - self._acknowledged >= self.timing.window - 1
        ):  # one is left for the fence
            self._progress.clear()
            if not any(self._questions.values()) and not self._fences:
                await self.fence()
                continue
            try:
                async with asyncio.timeout(self.timing.timeout_s):
                    await self._progress.wait()
            except TimeoutError:
                self._acknowledged = (
                    self._sent
                )  # lost or stuck: the questions' own timeouts will tell

    def _acknowledge(self, sequence: int) -> None:
        self._acknowledged = max(self._acknowledged, sequence)
        self._progress.set()

    # -- hearing -------------------------------------------------------------------------------

    def _receive(self, datagram: bytes) -> None:
        try:
            messages = wire.decode(datagram)
        except wire.NotOsc as error:
            log.warning("%s: %s", self.where, error)
            return
        for address, arguments in messages:
            if address == "/live/error":
                self._on_error(str(arguments[0]) if arguments else "(no text)")
            elif address == "/unmixer/error":
                self._on_companion_error(arguments)
            else:
                self._on_reply(address, arguments)

    def _on_reply(self, address: str, arguments: Reply) -> None:
        for question in self._questions.get(address, ()):
            n = len(question.ids)
            if (
                arguments[:n] == question.ids
                and question.waiter is not None
                and not question.waiter.done()
            ):
                question.resolve(_Outcome("reply", arguments[n:]))
                self._acknowledge(question.sequence)
                self._retry_suspects(question.sequence - 1)
                return
        self.unmatched += 1

    def _on_error(self, text: str) -> None:
        unknown = text.partition(UNKNOWN_ADDRESS)[2]
        if unknown.startswith(FENCE):
            if unknown in self._fences and not self._fences[unknown].done():
                self._fences[unknown].set_result(None)
            checked = self._checks.pop(unknown, 0)
            self._acknowledge(checked)
            self._retry_suspects(checked)
            return
        self.errors.append((self._sent, text))
        log.debug("%s: /live/error %s", self.where, text)
        waiting = self._waiting()
        if unknown:
            for question in waiting:
                if question.address == unknown:
                    question.resolve(_Outcome("refused", text=text))
            return
        for question in waiting:
            question.suspicion = text
        oldest = min(waiting, key=lambda question: question.sequence, default=None)
        if oldest is not None and not oldest.fenced:
            self._retry_suspects(oldest.sequence)

    def _on_companion_error(self, arguments: Reply) -> None:
        request, address, text = (*arguments, "", "", "")[:3]
        for question in self._questions.get(str(address), ()):
            if question.ids == (request,):
                question.resolve(_Outcome("refused", text=str(text).rstrip(".")))
                self._acknowledge(question.sequence)
                for other in self._waiting():
                    other.suspicion = other.suspicion or str(text)
                self._retry_suspects(question.sequence)

    def _retry_suspects(self, last: int) -> None:
        """Open questions under suspicion, put in datagrams up to `last`, are put again.

        The host is through with those.
        """
        for question in self._waiting():
            if question.suspicion and question.sequence <= last:
                question.resolve(_Outcome("suspect", text=question.suspicion))

    def _waiting(self) -> list[_Question]:
        return [
            question
            for questions in self._questions.values()
            for question in questions
            if question.waiter is not None and not question.waiter.done()
        ]
