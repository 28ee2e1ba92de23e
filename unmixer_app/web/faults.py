"""Whatever can go wrong, as a status and one sentence.

What nobody expected is answered by the gate.
"""

from __future__ import annotations

import errno
import sqlite3

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from unmixer_app.service.renders import Busy
from unmixer_app.service.service import DiskFull, NotReady, NotYet, Service, Unknown
from unmixer_app.service.store import QueueFull
from unmixer_app.web.gate import Refusal
from unmixer_core import errors
from unmixer_core.errors import UnmixerError
from unmixer_core.system.child import ChildEnded, Failed
from unmixer_core.system.json_types import Json

STATUS: dict[type[Exception], int] = {
    Unknown: 404,
    NotYet: 409,
    errors.AudioError: 415,
    errors.ConfigError: 422,
    errors.SchemaMismatch: 422,
    QueueFull: 429,
    Busy: 429,
    Failed: 502,
    errors.HostError: 502,
    ChildEnded: 503,
    NotReady: 503,
    DiskFull: 507,
}
#: What the meters call a refused upload.
REFUSALS = {415: "audio", 422: "options", 429: "full", 503: "not ready", 507: "disk"}
FULL = "the disk is full; free some space, or lower UNMIXER_SERVE_KEEP_MIB."
RETRY_S = {429: 10, 503: 5}


def install(app: FastAPI) -> None:
    app.add_exception_handler(UnmixerError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(OSError, _disk)
    app.add_exception_handler(sqlite3.Error, _disk)


def refusal(service: Service) -> Refusal | None:
    """Why the service accepts no sound now, counted; None when it does."""
    try:
        service.check()
    except UnmixerError as error:
        status = _status(error)
        service.meters.refused(REFUSALS[status])
        return status, str(error), {"retry-after": str(RETRY_S[status])}
    return None


def answer(status: int, sentence: str) -> JSONResponse:
    headers = {"retry-after": str(RETRY_S[status])} if status in RETRY_S else None
    return JSONResponse({"detail": " ".join(sentence.split())}, status, headers)


async def _ours(request: Request, error: Exception) -> JSONResponse:
    status = _status(error)
    if status == 500:
        raise error
    if status in REFUSALS and request.url.path == "/unmix":
        request.app.state.service.meters.refused(REFUSALS[status])
    return answer(status, str(error))


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first: Json = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    given = first.get("input")
    but = f", but got {given!r}"[:80] if isinstance(given, str | int | float | bool) else ""
    return answer(422, f"{place or 'the body'}: {_small(str(first['msg']))}{but}.")


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    words = {
        404: f"there is nothing at {request.url.path[:100]}.",
        405: f"{request.method} is not possible here.",
        400: f"the request cannot be read ({_small(str(error.detail))}).",
    }
    found = answer(error.status_code, words.get(error.status_code, str(error.detail)))
    found.headers.update(error.headers or {})
    return found


async def _disk(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return answer(507, FULL)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return answer(507, FULL)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return answer(503, "the jobs' file is locked by another program; try again in a moment.")
    raise error  # the gate answers


def _status(error: Exception) -> int:
    return next(
        STATUS.get(kind, 500)
        for kind in type(error).__mro__
        if kind in STATUS or kind is UnmixerError
    )


def _small(text: str) -> str:
    return (text[:1].lower() + text[1:]).rstrip(".")
