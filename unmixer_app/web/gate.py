"""Who may come in: the Host and the Origin are ours, the token is right, and nobody asks too often
or too much at once.

A page on the web can make a visitor's browser send requests to 127.0.0.1, so being bound to
loopback is not enough: a foreign Origin, a cross-site fetch and a Host that is not ours (DNS
rebinding) are refused. No CORS header is ever sent. What the application did not expect is answered
here too, so that every answer has these headers and is counted.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unmixer_app.service.settings import ServiceSettings, loopback

log = logging.getLogger(__name__)

#: Status, sentence, headers.
Refusal = tuple[int, str, dict[str, str]]
BURST_S = 5.0
#: In flight at once, at most: so many bodies of sounds, so many requests (event streams included).
UPLOADS, REQUESTS = 40, 256
#: An upload that finds no room is read on so long, unkept: a client that is still sending hears no
#: answer.
DRAIN_S = 2.0
#: Largest body of every request but an upload.
PATCH_BYTES = 1 << 20
CLIENTS = 4096
#: Asked often by monitors; they cost nothing.
OPEN_PATHS = ("/health",)
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src "
        "'self' data:; "
        "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Gate:
    """ASGI middleware.

    `page`: paths (and below) that hold the page itself, which needs no token; `count(method,
    status)`; `admit()`: why no sound is accepted now, asked before a body is read.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServiceSettings,
        page: tuple[str, ...],
        count: Callable[[str, int], None],
        admit: Callable[[], Refusal | None] = lambda: None,
    ) -> None:
        self.app, self.settings, self.page, self.count, self.admit = (
            app,
            settings,
            page,
            count,
            admit,
        )
        self.uploads = self.requests = 0
        self.buckets = Buckets(settings.rate, settings.rate * BURST_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        started = False

        async def send_on(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self.count(scope["method"], message["status"])
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault(
                    "cache-control", "no-cache" if self._is_page(scope["path"]) else "no-store"
                )
            await send(message)

        refusal = self._refusal(scope)
        upload = scope["method"] == "POST" and scope["path"] == "/unmix"
        if refusal is None and (refusal := self._crowded(upload, scope["path"])) and upload:
            await _drain(receive)
        if refusal is not None:
            await _refuse(send_on, *refusal)
            return
        self.requests, self.uploads = self.requests + 1, self.uploads + upload
        try:
            await self.app(scope, _counted(receive, self._limit(scope["path"])), send_on)
        except Exception as error:
            log.exception("unexpected at %s %s", scope["method"], scope["path"])
            if started:
                raise
            name = type(error).__name__
            sentence = (
                f"something unexpected went wrong ({name}); please report it with the "
                f"service's log."
            )
            await _refuse(send_on, 500, sentence, {})
        finally:
            self.requests, self.uploads = self.requests - 1, self.uploads - upload

    def _crowded(self, upload: bool, path: str) -> Refusal | None:
        if self.requests >= REQUESTS and path not in OPEN_PATHS:
            return (
                429,
                f"{REQUESTS} requests are being answered already; try again in a moment.",
                {"retry-after": "2"},
            )
        if not upload:
            return None
        if self.uploads >= UPLOADS:
            return (
                429,
                f"{UPLOADS} sounds are being read already; try again in a moment.",
                {"retry-after": "2"},
            )
        return self.admit()

    def _refusal(self, scope: Scope) -> Refusal | None:
        headers, path = Headers(scope=scope), scope["path"]
        if not self._ours(headers.get("host", "")):
            return (
                421,
                "this address is not one of the service's; add it to UNMIXER_SERVE_NAMES if it is.",
                {},
            )
        if not self._same_origin(headers, scope["method"]):
            return 403, "requests from other sites are not answered.", {}
        limit = self._limit(path)
        if _length(headers) > limit:
            return 413, _too_large(limit), {}
        wait_s = (
            0.0 if path in OPEN_PATHS else self.buckets.take((scope.get("client") or ("", 0))[0])
        )
        if wait_s > 0:
            return (
                429,
                "too many requests; wait a moment.",
                {"retry-after": str(max(1, round(wait_s)))},
            )
        if not self._known(headers, path):
            return (
                401,
                "a token is needed: Authorization: Bearer followed by what the service printed at "
                "its start.",
                {"www-authenticate": "Bearer"},
            )
        return None

    def _limit(self, path: str) -> int:
        return self.settings.upload_bytes if path == "/unmix" else PATCH_BYTES

    def _ours(self, host: str) -> bool:
        """A Host header names this service.

        An address it is bound to, localhost, or a configured name.
        """
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name in self.settings.names or name == self.settings.host.lower() or name == "localhost":
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not loopback(self.settings.host)  # numbers cannot be rebound

    def _same_origin(self, headers: Headers, method: str) -> bool:
        """A link from elsewhere may be followed.

        A form of another page is a navigation too, but it posts.
        """
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            followed = (
                headers.get("sec-fetch-mode") == "navigate"
                and headers.get("sec-fetch-dest") == "document"
            )
            return followed and method in ("GET", "HEAD")
        origin = headers.get("origin")
        if origin is None:
            return True
        try:
            return urlsplit(origin).netloc.lower() == headers.get("host", "").lower() != ""
        except ValueError:
            return False

    def _known(self, headers: Headers, path: str) -> bool:
        if not self.settings.token or path in OPEN_PATHS or self._is_page(path):
            return True
        kind, _, token = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(
            token.strip().encode(), self.settings.token.encode()
        )

    def _is_page(self, path: str) -> bool:
        return path == "/" or any(
            path == start or path.startswith(f"{start}/") for start in self.page
        )


class Buckets:
    """A token bucket a client: `rate` a second, `burst` at once.

    The longest idle clients are forgotten.
    """

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate, self.burst, self.clock = rate, burst, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """0 when the request may go on, else the seconds after which one may."""
        now = self.clock()
        left, last = self._left.pop(client, (self.burst, now))
        left = min(self.burst, left + (now - last) * self.rate)
        allowed = left >= 1.0
        self._left[client] = (left - 1.0 if allowed else left, now)
        if len(self._left) > CLIENTS:
            self._left.popitem(last=False)
        return 0.0 if allowed else (1.0 - left) / self.rate


def _length(headers: Headers) -> int:
    """What a request says about its body."""
    text = headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _counted(receive: Receive, limit: int) -> Receive:
    """The same body; its bytes are counted, whatever the request says about them.

    Raises HTTPException (413).
    """
    total = 0

    async def receive_on() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > limit:
            raise HTTPException(413, _too_large(limit))
        return message

    return receive_on


async def _drain(receive: Receive) -> None:
    """Reads a body and keeps nothing of it."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while (await receive()).get("more_body", False):
                pass


def _too_large(limit: int) -> str:
    return f"at most {limit / 2**20:g} MiB are accepted here."


async def _refuse(send: Send, status: int, sentence: str, headers: dict[str, str]) -> None:
    body = json.dumps({"detail": sentence}).encode()
    fields = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **headers,
    }
    raw = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
