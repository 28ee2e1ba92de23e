"""The API: each route turns a request into a call of the service and its result into an answer,
and does nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from unmixer_app.answer import patch_file, presets
from unmixer_app.service import meters
from unmixer_app.service.service import Service
from unmixer_app.service.store import QueuedJob
from unmixer_app.web import faults, views
from unmixer_app.web.models import (
    CandidateView,
    Compared,
    Health,
    JobId,
    JobOptions,
    JobView,
    Number,
    PatchBody,
    Problem,
    PushView,
    Readiness,
    UploadForm,
)
from unmixer_core.schema.patch import Patch
from unmixer_core.system.json_types import Json

WAV = "audio/wav"
SENTENCES = {
    400: "The request cannot be read.",
    401: "A token is needed.",
    403: "The request comes from another site.",
    404: "There is no such job, or no such part of it.",
    409: "The job has no answer, or not yet.",
    413: "The body is too large.",
    415: "The file holds no usable sound.",
    421: "The Host header is not the service's.",
    422: "A value is not allowed.",
    429: "Too many requests or waiting jobs.",
    502: "The host or Live refused.",
    503: "Not ready; the sentence says why.",
    507: "The disk is full.",
}
ALWAYS = (400, 401, 403, 413, 421, 422, 429)
RETRY = {
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}, "example": 5}
}
LOCATION = {
    "Location": {
        "description": "Where the job is.",
        "schema": {"type": "string"},
        "example": "/jobs/7c9e6679f3a1b2c4",
    }
}
ACCEPTED: dict[int | str, Json] = {202: {"headers": LOCATION}}


def problems(*statuses: int) -> dict[int | str, Json]:
    """OpenAPI's `responses` for these and for what any request may meet."""
    return {
        s: {"model": Problem, "description": SENTENCES[s]}
        | ({"headers": RETRY} if s in faults.RETRY_S else {})
        for s in sorted({*statuses, *ALWAYS})
    }


def streamed_problems(*statuses: int) -> dict[int | str, Json]:
    """The same for a route whose success is no JSON but a stream."""
    problem = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {name: value for name, value in told.items() if name != "model"}
        | {"content": problem}
        for status, told in problems(*statuses).items()
    }


def binary(media: str, what: str) -> dict[int | str, Json]:
    return {
        200: {
            "description": what,
            "content": {media: {"schema": {"type": "string", "format": "binary"}}},
        }
    }


def _file(content: bytes, media: str, name: str) -> Response:
    """A download under a name."""
    plain = name.isascii()
    called = f'filename="{name}"' if plain else f"filename*=utf-8''{quote(name)}"
    return Response(
        content, media_type=media, headers={"content-disposition": f"attachment; {called}"}
    )


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Ours = Annotated[Service, Depends(_service)]
router = APIRouter()


# --- jobs -------------------------------------------------------------------------------------


@router.post("/unmix", status_code=202, tags=["jobs"], responses=problems(415, 503, 507) | ACCEPTED)
async def unmix(form: UploadForm, service: Ours, response: Response) -> JobView:
    """Upload a sound; the answer is a job that waits for a searcher.

    The first note in it is un-mixed.
    """
    options = form.model_dump(exclude={"file"}, exclude_defaults=True)
    job = await service.accept(form.file.filename or "", form.file.file, options)
    response.headers["location"] = f"/jobs/{job.id}"
    return views.job(job, service)


@router.post(
    "/jobs/{id}/again", status_code=202, tags=["jobs"], responses=problems(404, 503, 507) | ACCEPTED
)
async def again(id: JobId, options: JobOptions, service: Ours, response: Response) -> JobView:
    """Search once more for the same recording, with other options: what is locked stays."""
    job = service.again(id, options.model_dump(exclude_defaults=True))
    response.headers["location"] = f"/jobs/{job.id}"
    return views.job(job, service)


@router.get("/jobs", tags=["jobs"], responses=problems())
async def jobs(service: Ours) -> list[JobView]:
    """The newest 50 jobs, newest first."""
    return [views.job(job, service) for job in service.recent()]


@router.get("/jobs/{id}", tags=["jobs"], responses=problems(404))
async def job(id: JobId, service: Ours) -> JobView:
    """A job's state, and the best so far."""
    return views.job(service.get(id), service)


async def _known_job(id: JobId, service: Ours) -> QueuedJob:
    return service.get(id)


@router.get(
    "/jobs/{id}/events",
    tags=["jobs"],
    response_class=EventSourceResponse,
    responses=streamed_problems(404),
)
async def events(
    service: Ours, known: Annotated[QueuedJob, Depends(_known_job)]
) -> AsyncIterable[ServerSentEvent]:
    """Server-sent events: the job (as GET /jobs/{id} gives it) now and after every change.

    The last event is `end`.
    """
    async for state in service.changes(known.id):
        yield ServerSentEvent(
            data=views.job(state, service), event="end" if state.ended else "progress"
        )


@router.delete("/jobs/{id}", tags=["jobs"], responses=problems(404))
async def cancel(
    id: JobId,
    service: Ours,
    keep: Annotated[
        bool, Query(description="Stop, and keep the best so far as the answer.")
    ] = False,
) -> JobView:
    """Cancel a job; within two seconds nothing computes for it.

    A job that has ended stays as it is.
    """
    return views.job(service.cancel(id, keep), service)


# --- answers ----------------------------------------------------------------------------------


@router.get("/jobs/{id}/patch.json", tags=["answers"], responses=problems(404, 409))
async def patch_json(id: JobId, service: Ours) -> Json:
    """The patch: devices in order, every knob in physical, unit and raw values with intervals.

    Similarity and its limits.
    """
    return service.document(id)


@router.get(
    "/jobs/{id}/rerender.wav",
    tags=["answers"],
    response_class=Response,
    responses=problems(404, 409) | binary(WAV, "The patch's sound at the recording's level."),
)
async def rerender(id: JobId, service: Ours) -> Response:
    """What the patch sounds like, by the host, at the recording's level.

    While the search runs, the best so far.
    """
    return Response(service.sound(id), media_type=WAV)


@router.get(
    "/jobs/{id}/input.wav",
    tags=["answers"],
    response_class=Response,
    responses=problems(404) | binary(WAV, "The note that is un-mixed."),
)
async def recording(id: JobId, service: Ours) -> Response:
    """The note of the recording that is un-mixed.

    Cut at its onset, at the clips' rate and length.
    """
    return _file(service.recorded(id), WAV, views.file_name(service.get(id), ".wav"))


@router.get(
    "/jobs/{id}/preset.vital",
    tags=["answers"],
    response_class=Response,
    responses=problems(404, 409) | binary("application/octet-stream", "A preset that Vital opens."),
)
async def preset(id: JobId, service: Ours) -> Response:
    """The patch as a Vital preset."""
    name = views.file_name(service.get(id), ".vital")
    return _file(service.content(id, "answer.vital"), "application/octet-stream", name)


@router.get(
    "/jobs/{id}/report.html",
    tags=["answers"],
    response_class=Response,
    responses=problems(404, 409) | binary("text/html", "A page that stands for itself."),
)
async def report(id: JobId, service: Ours) -> Response:
    """The answer as one page with sounds and pictures in it, to keep or to send."""
    name = views.file_name(service.get(id), "-report.html")
    return _file(service.content(id, "report.html"), "text/html", name)


@router.get("/jobs/{id}/candidates", tags=["answers"], responses=problems(404, 409))
async def candidates(id: JobId, service: Ours) -> list[CandidateView]:
    """Other patches that were rendered and sound different, best first."""
    return views.candidates(id, service.candidates(id), service.params.unmix.chance_db)


@router.get(
    "/jobs/{id}/candidates/{number}/patch.json", tags=["answers"], responses=problems(404, 409)
)
async def candidate_patch(id: JobId, number: Number, service: Ours) -> Json:
    """A candidate's patch."""
    service.part(id, "candidates", f"{number:02d}.json")
    return service.candidates(id)[number - 1]


@router.get(
    "/jobs/{id}/candidates/{number}/sound.wav",
    tags=["answers"],
    response_class=Response,
    responses=problems(404, 409) | binary(WAV, "The candidate's sound at the recording's level."),
)
async def candidate_sound(id: JobId, number: Number, service: Ours) -> Response:
    """What a candidate sounds like."""
    return Response(service.content(id, "candidates", f"{number:02d}.wav"), media_type=WAV)


@router.post("/jobs/{id}/push", tags=["Live"], responses=problems(404, 409, 502, 503))
async def push(
    id: JobId,
    service: Ours,
    patch: Annotated[PatchBody | None, Body(description="Default: the job's answer.")] = None,
    adapt: Annotated[
        bool, Query(description="Leave what stock AbletonOSC cannot set, and say so.")
    ] = False,
) -> PushView:
    """Set a patch on a new track of the configured Live, and read every value back."""
    return views.pushed(
        await service.push(id, None if patch is None else views.patch(patch), adapt)
    )


# --- patches ----------------------------------------------------------------------------------


async def _patch(body: Annotated[PatchBody, Body()]) -> Patch:
    return views.patch(body)


Sent = Annotated[Patch, Depends(_patch)]


@router.post(
    "/render",
    tags=["patches"],
    response_class=Response,
    responses=problems(404, 502, 503)
    | binary(WAV, "24 bits, stereo; with a job, X-MSS-dB and X-Similarity-Percent."),
)
async def render(patch: Sent, query: Compared, service: Ours) -> Response:
    """A patch → its sound, by a warm host.

    With `job`, how similar it is to that job's recording (in the headers).
    """
    sound, found = await service.render(patch, query.job)
    names = {"mss_db": "x-mss-db", "similarity_percent": "x-similarity-percent"}
    return Response(
        sound, media_type=WAV, headers={names[key]: f"{value:g}" for key, value in found.items()}
    )


@router.post("/describe", tags=["patches"], responses=problems())
async def describe(patch: Sent) -> Json:
    """A patch → the same in full.

    Every control in physical, unit and raw values, and which of them can be heard.
    """
    return patch_file.describe(patch)


@router.post(
    "/preset",
    tags=["patches"],
    response_class=Response,
    responses=problems() | binary("application/octet-stream", "A preset that Vital opens."),
)
async def any_preset(patch: Sent) -> Response:
    """A patch → a Vital preset."""
    text = await asyncio.to_thread(presets.text, patch)
    return Response(text, media_type="application/octet-stream")


@router.get("/schema", tags=["patches"], responses=problems())
async def schema() -> Json:
    """Every device, knob (name, unit, range, law from raw to physical) and choice (items), in
    order; the schema's digest.
    """
    return views.schema()


# --- state ------------------------------------------------------------------------------------


@router.get("/health", tags=["state"], responses=problems())
async def health(service: Ours) -> Health:
    """The process answers; needs no token."""
    return Health(status="ok", uptime_s=round(time.time() - service.begun_s, 3))


NOT_READY: dict[int | str, Json] = {
    503: {"model": Readiness, "description": "Not ready; `problems` says why."}
}


@router.get("/ready", tags=["state"], responses=problems() | NOT_READY, response_model=Readiness)
async def ready(service: Ours) -> JSONResponse:
    """200 when sounds can be un-mixed and patches rendered, 503 with the reasons otherwise."""
    found = views.ready(service)
    return JSONResponse(found.model_dump(), 200 if found.ready else 503)


@router.get(
    "/metrics",
    tags=["state"],
    response_class=Response,
    responses=problems() | binary("text/plain", "Prometheus text."),
)
async def metrics(service: Ours) -> Response:
    """Counters, histograms and gauges for Prometheus."""
    return Response(service.measurements(), headers={"content-type": meters.MEDIA_TYPE})
