"""The service's values as the API's types, and the other way round."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from pathlib import PurePath

import numpy as np

from unmixer_app.answer import patch_file
from unmixer_app.service.service import Service
from unmixer_app.service.store import DONE, WAITING, QueuedJob
from unmixer_app.web.models import (
    Best,
    CandidateView,
    JobView,
    PatchBody,
    PushedValue,
    PushView,
    Readiness,
)
from unmixer_core import config
from unmixer_core.live.push import PushReport
from unmixer_core.schema.chain import MAX_EFFECTS
from unmixer_core.schema.devices import Device
from unmixer_core.schema.knob import Choice, Knob
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK
from unmixer_core.system.json_types import Json


def job(job: QueuedJob, service: Service) -> JobView:
    known = job.progress
    return JobView(
        id=job.id,
        name=job.name,
        state=job.state,
        step="" if job.ended else known.get("step", ""),
        position=service.position(job) if job.state == WAITING else None,
        seconds=known.get("seconds"),
        budget_s=budget_s(job.options, service.params.unmix),
        renders=known.get("renders", 0),
        best=Best(**known["best"]) if "best" in known else None,
        note=job.heard["note"],
        gate_s=job.heard["gate_s"],
        remarks=job.heard["remarks"],
        message=job.message,
        created=job.created_s,
        finished=job.finished_s,
        options=job.options,
        expires=job.finished_s + service.settings.keep_s
        if job.finished_s and job.state == DONE
        else None,
    )


def budget_s(options: Json, unmix: config.Unmix) -> float | None:
    """Seconds the search may take, about: `polish_s` begins where refinement has ended.

    None: it is over in seconds.
    """
    polish_s = options.get("polish_s")
    if polish_s is None:
        return None if options.get("fast") else unmix.seconds
    refined = options.get("itf", True) and not options.get("fast")
    return float(polish_s + (unmix.itf_seconds if refined else 0.0))


def file_name(job: QueuedJob, ending: str) -> str:
    """What a download is called."""
    return PurePath(job.name).stem + ending


def patch(body: PatchBody) -> Patch:
    """Raises ConfigError, SchemaMismatch."""
    return patch_file.parse(body.model_dump(by_alias=True))


def candidates(identity: str, found: list[Json], chance_db: float) -> list[CandidateView]:
    views = []
    for number, document in enumerate(found, start=1):
        percent = float(np.clip(100.0 * (1.0 - document["mss_db"] / chance_db), 0.0, 100.0))
        place = f"/jobs/{identity}/candidates/{number}"
        views.append(
            CandidateView(
                number=number,
                mss_db=document["mss_db"],
                similarity_percent=round(percent, 2),
                chain=document["chain"],
                sound=f"{place}/sound.wav",
                patch=f"{place}/patch.json",
            )
        )
    return views


def pushed(report: PushReport) -> PushView:
    return PushView(
        live=report.live,
        tracks=list(report.tracks),
        chain=list(report.chain),
        read_back=sum(value.good for value in report.values),
        values=[PushedValue(**asdict(value)) for value in report.values],
        not_set=[str(one) for one in report.frozen],
    )


def ready(service: Service) -> Readiness:
    problems = service.problems()
    return Readiness(
        ready=not problems,
        problems=problems,
        queued=service.store.counts()[WAITING],
        queue_limit=service.settings.queue,
        upload_bytes=service.settings.upload_bytes,
        live=str(service.settings.live),
    )


@cache
def schema() -> Json:
    """RACK as data."""
    return {
        "digest": RACK.digest,
        "max_effects": MAX_EFFECTS,
        "devices": [_device(device) for device in RACK.devices],
    }


def _device(device: Device) -> Json:
    return {
        "key": device.key,
        "name": device.name,
        "effect": device is not RACK.synth,
        "lti": device.lti,
        "knobs": [_knob(knob) for knob in device.knobs],
        "choices": [_choice(choice) for choice in device.choices],
    }


def _knob(knob: Knob) -> Json:
    """`law` maps raw to physical, and raw is raw_low + (raw_high - raw_low) · unit (rounded when
    `integer`).
    """
    return {
        "key": knob.key,
        "name": knob.name,
        "unit": knob.unit,
        "raw_low": knob.raw_low,
        "raw_high": knob.raw_high,
        "default": knob.default,
        "integer": knob.integer,
        "bipolar": knob.bipolar_amount,
        "law": {"kind": type(knob.law).__name__, **vars(knob.law)},
    }


def _choice(choice: Choice) -> Json:
    return {
        "key": choice.key,
        "name": choice.name,
        "items": list(choice.items),
        "default": choice.default,
    }
