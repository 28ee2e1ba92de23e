"""Who may come in. The application behind the gate answers 200 to everything."""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.types import Message, Receive, Scope, Send

from unmixer_app.service.settings import ServiceSettings
from unmixer_app.web import gate as gates
from unmixer_app.web.gate import UPLOADS, Buckets, Gate

TOKEN = "0123456789abcdef"


async def open_house(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def ask(
    gate: Gate, path: str = "/jobs", method: str = "GET", client: str = "127.0.0.1", **headers: str
) -> tuple[int, dict, str]:
    """(status, headers, sentence)"""
    fields = {"host": "127.0.0.1:8000"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    raw = [(name.encode(), value.encode()) for name, value in fields.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": raw, "client": (client, 5)}
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(gate(scope, None, send))  # type: ignore[arg-type]
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    body = sent[1]["body"]
    return sent[0]["status"], found, json.loads(body)["detail"] if body else ""


async def broken_house(scope: Scope, receive: Receive, send: Send) -> None:
    raise ZeroDivisionError("secret")


def gate(**settings: object) -> Gate:
    return Gate(open_house, ServiceSettings(**settings), ("/page",), lambda method, status: None)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "LOCALHOST"])
def test_our_own_host_is_answered(host: str):
    assert ask(gate(), host=host)[0] == 200


FOREIGN = [
    "evil.example",
    "evil.example:8000",
    "",
    "127.0.0.1.evil.example",
    "10.0.0.1",
    "[",
    "localhost.evil",
]


@pytest.mark.parametrize("host", FOREIGN)
def test_a_rebound_name_is_not(host: str):
    assert ask(gate(), host=host)[0] == 421


def test_a_configured_name_is_answered():
    assert ask(gate(names=("unmixer.studio",)), host="unmixer.studio")[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://["},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site", "sec_fetch_mode": "cors"},
        {
            "sec_fetch_site": "cross-site",
            "sec_fetch_mode": "navigate",
            "sec_fetch_dest": "document",
        },
    ],
)
def test_another_sites_page_cannot_use_a_visitors_browser(headers: dict[str, str]):
    status, found, _ = ask(gate(), method="POST", path="/unmix", **headers)
    assert status == 403 and not any(name.startswith("access-control") for name in found)


def test_our_own_page_and_a_link_from_elsewhere_are_answered():
    assert ask(gate(), origin="http://127.0.0.1:8000", sec_fetch_site="same-origin")[0] == 200
    assert (
        ask(
            gate(),
            "/",
            sec_fetch_site="cross-site",
            sec_fetch_mode="navigate",
            sec_fetch_dest="document",
        )[0]
        == 200
    )


def test_with_a_token_everything_but_the_page_and_health_asks_for_it():
    guarded = gate(host="0.0.0.0", token=TOKEN)
    assert [ask(guarded, path)[0] for path in ("/", "/page/main.js", "/health")] == [200, 200, 200]
    assert [
        ask(guarded, path)[0]
        for path in ("/jobs", "/unmix", "/metrics", "/pagejobs", "/openapi.json")
    ] == [401] * 5
    assert ask(guarded, authorization=f"Bearer {TOKEN}")[0] == 200
    for wrong in (f"Bearer {TOKEN}0", "Bearer ", f"Basic {TOKEN}", "Bearer ü"):
        status, headers, sentence = ask(guarded, authorization=wrong)
        assert (
            status == 401
            and headers["www-authenticate"] == "Bearer"
            and "token" in sentence
            and TOKEN not in sentence
        )


def test_too_many_requests_of_one_client_are_refused_and_others_are_not():
    limited = gate(rate=1.0)
    statuses = [ask(limited)[0] for _ in range(8)]
    assert statuses[:5] == [200] * 5 and statuses[-1] == 429
    assert int(ask(limited)[1]["retry-after"]) >= 1
    assert ask(limited, client="10.0.0.9")[0] == 200 and ask(limited, "/health")[0] == 200


def test_a_bucket_fills_at_its_rate_up_to_its_burst():
    now = [0.0]
    bucket = Buckets(2.0, 4.0, lambda: now[0])
    assert [bucket.take("a") for _ in range(4)] == [0.0] * 4
    assert bucket.take("a") == pytest.approx(0.5)
    now[0] = 0.5
    assert bucket.take("a") == 0.0 and bucket.take("a") > 0
    now[0] = 1e6
    assert [bucket.take("a") for _ in range(5)].count(0.0) == 4


def test_every_answer_carries_the_headers_that_keep_the_page_to_itself():
    for path, refused in (("/", False), ("/jobs", False), ("/jobs", True)):
        _, found, _ = ask(gate(), path, host="evil.example" if refused else "localhost")
        assert (
            "default-src 'none'" in found["content-security-policy"]
            and found["x-content-type-options"] == "nosniff"
        )
        assert (
            "frame-ancestors 'none'" in found["content-security-policy"]
            and found["referrer-policy"] == "no-referrer"
        )


def test_a_body_that_says_it_is_too_large_is_not_read():
    large = gate(upload_bytes=5 << 20)
    assert ask(large, "/unmix", "POST", content_length=str(5 << 20))[0] == 200
    assert ask(large, "/unmix", "POST", content_length=str((5 << 20) + 1))[0::2] == (
        413,
        "at most 5 MiB are accepted here.",
    )
    assert ask(large, "/render", "POST", content_length=str(2 << 20))[0] == 413


def test_what_nobody_expected_is_answered_with_the_same_headers_and_counted():
    counted: list[tuple[str, int]] = []
    broken = Gate(
        broken_house,
        ServiceSettings(),
        ("/page",),
        lambda method, status: counted.append((method, status)),
    )
    status, found, sentence = ask(broken)
    assert status == 500 and "ZeroDivisionError" in sentence and "secret" not in sentence
    assert "default-src 'none'" in found["content-security-policy"] and counted == [("GET", 500)]
    assert (broken.requests, broken.uploads) == (0, 0)


class Crowd:
    """Requests at once: what is behind the gate waits until all have come."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **bounds: int) -> None:
        for name, value in bounds.items():
            monkeypatch.setattr(gates, name, value)
        self.read: list[str] = []

    def ask(self, gate: Gate, paths: list[str]) -> list[int]:
        statuses: list[int] = []

        async def all_at_once() -> None:
            go = asyncio.Event()

            async def app(scope: Scope, receive: Receive, send: Send) -> None:
                await go.wait()
                await open_house(scope, receive, send)

            async def one(path: str) -> None:
                method = "POST" if path == "/unmix" else "GET"
                scope = {
                    "type": "http",
                    "method": method,
                    "path": path,
                    "headers": [(b"host", b"localhost")],
                    "client": ("a", 1),
                }
                bodies = [
                    {"type": "http.request", "body": b"x", "more_body": more}
                    for more in (True, False)
                ]

                async def receive() -> Message:
                    self.read.append(path)
                    return bodies.pop(0)

                async def send(message: Message) -> None:
                    statuses.append(message.get("status", 0))

                await gate(scope, receive, send)

            gate.app = app
            asks = [asyncio.create_task(one(path)) for path in paths]
            await asyncio.sleep(0.01)
            go.set()
            await asyncio.gather(*asks)

        asyncio.run(all_at_once())
        return [status for status in statuses if status]


def test_more_uploads_at_once_than_may_be_are_refused_and_what_they_send_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
):
    crowd = Crowd(monkeypatch, UPLOADS=2)
    assert sorted(crowd.ask(gate(), ["/unmix"] * 3 + ["/jobs"])) == [200, 200, 200, 429]
    assert crowd.read == ["/unmix"] * 2, "the refused one's body is read on, by nobody"
    assert 32 < UPLOADS


def test_more_requests_at_once_than_may_be_are_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
):
    crowd = Crowd(monkeypatch, REQUESTS=2)
    assert sorted(crowd.ask(gate(), ["/jobs"] * 3 + ["/health"])) == [200, 200, 200, 429]


def test_an_upload_for_which_there_is_no_room_is_refused_before_it_is_parsed(
    monkeypatch: pytest.MonkeyPatch,
):
    full = Gate(
        broken_house,
        ServiceSettings(),
        (),
        lambda method, status: None,
        lambda: (429, "64 wait.", {"retry-after": "10"}),
    )
    assert Crowd(monkeypatch).ask(full, ["/unmix", "/jobs"]) == [429, 200]
