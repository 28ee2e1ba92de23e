"""What goes over the wire, as types: they make the OpenAPI document.

Units are part of the names.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import File, Form, Path, Query, UploadFile
from pydantic import BaseModel, ConfigDict, Field

from unmixer_app.service.store import State
from unmixer_core.schema.chain import MAX_EFFECTS
from unmixer_core.schema.rack import RACK
from unmixer_core.system.json_types import Json

EFFECTS = tuple(RACK.effect_names)
DEVICES = tuple(device.key for device in RACK.devices)
JobId = Annotated[
    str, Path(pattern="^[0-9a-f]{16}$", description="A job's id.", examples=["7c9e6679f3a1b2c4"])
]
Number = Annotated[
    int, Path(ge=1, le=64, description="A candidate's number, from 1, best first.", examples=[1])
]
Word = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f]*$")]


class Problem(BaseModel):
    """Every answer that is not a success: one sentence for a person."""

    detail: str = Field(
        description="What is wrong and what to do about it, in one sentence.",
        examples=["kick.wav is silent: nothing in it is above -80 dBFS."],
    )


EXAMPLE_OPTIONS: Json = {"lock": ["saturator.drive=12"], "chain": "Saturator>Reverb"}
STEPS = "propose, proposal, refine, refined, corrected, changed, polished, write"


class JobOptions(BaseModel):
    """How to search; what is left out is as params.yaml's `unmix` section says."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE_OPTIONS]})
    note: int | None = Field(
        None,
        ge=0,
        le=127,
        description="MIDI note that is played; detected when left out.",
        examples=[48],
    )
    gate_s: float | None = Field(
        None,
        ge=0.01,
        le=60,
        description="Seconds the key is held; detected when left out.",
        examples=[0.5],
    )
    candidates: int | None = Field(
        None, ge=1, le=64, description="Candidates that are refined and rendered.", examples=[8]
    )
    itf_steps: int | None = Field(
        None, ge=0, le=10_000, description="Refinement steps, at most.", examples=[100]
    )
    itf: bool = Field(True, description="Refine candidates through the proxy.", examples=[True])
    fast: bool = Field(
        False,
        description="A few proposals, rendered once: seconds instead of a minute.",
        examples=[False],
    )
    polish_s: float | None = Field(
        None,
        ge=0,
        le=600,
        description="Seconds of the last search on the host; 0 = none.",
        examples=[20.0],
    )
    lock: list[Word] = Field(
        [],
        max_length=200,
        description="Controls to hold, CONTROL=VALUE in physical units or Live's item name.",
        examples=[["wavetable.filter_1_type=Lowpass"]],
    )
    chain: Word | None = Field(
        None,
        description='Effects in order, such as "Saturator>Reverb", or "none"; free when left out.',
        examples=["Saturator>Reverb"],
    )


class Upload(JobOptions):
    """The form of POST /unmix."""

    file: UploadFile = File(
        description="WAV, AIFF, FLAC, OGG or MP3; any rate from 4 kHz; the first minute is read."
    )


UploadForm = Annotated[Upload, Form(media_type="multipart/form-data")]


EXAMPLE_BEST: Json = {
    "mss_db": 3.2,
    "similarity_percent": 79.2,
    "chain": ["Saturator", "Reverb"],
    "source": "refined",
}


class Best(BaseModel):
    """The nearest render so far."""

    mss_db: float = Field(
        description="Multi-scale log-mel distance to the recording, dB; 0 = the same sound.",
        examples=[3.2],
    )
    similarity_percent: float = Field(
        description="100 = the same sound, 0 = as far as random patches.", examples=[79.2]
    )
    chain: list[str] = Field(description="Effects in order.", examples=[["Saturator", "Reverb"]])
    source: str = Field("", description="The step that found it.", examples=["refined"])


class JobView(BaseModel):
    """A job as it is now."""

    id: str = Field(description="16 hex digits.", examples=["7c9e6679f3a1b2c4"])
    name: str = Field(description="The uploaded file's name, as shown.", examples=["bass.wav"])
    state: State = Field(
        description="queued → running → done, failed or cancelled.", examples=["running"]
    )
    step: str = Field("", description=f"What a running job is doing: {STEPS}.", examples=["refine"])
    position: int | None = Field(
        None, description="Jobs that are started before this waiting one.", examples=[0]
    )
    seconds: float | None = Field(None, description="Seconds of search so far.", examples=[12.4])
    budget_s: float | None = Field(
        None, description="Seconds the search may take, about.", examples=[44.0]
    )
    renders: int = Field(0, description="Patches the host has rendered for it.", examples=[31])
    best: Best | None = Field(
        None,
        description="The nearest render so far; of a done job, the answer.",
        examples=[EXAMPLE_BEST],
    )
    note: int = Field(description="MIDI note that was heard or asked for.", examples=[45])
    gate_s: float = Field(description="Seconds the key is held.", examples=[0.5])
    remarks: list[str] = Field(
        description="What may mislead the answer, one sentence each.",
        examples=[["There are 2 notes; the first is un-mixed."]],
    )
    message: str = Field("", description="Why it failed, in one sentence.", examples=[""])
    created: float = Field(description="Seconds since 1970.", examples=[1795000000.0])
    finished: float | None = Field(None, description="Seconds since 1970.", examples=[1795000046.5])
    expires: float | None = Field(
        None,
        description="When its results are removed at the latest, seconds since 1970.",
        examples=[1795604846.5],
    )
    options: Json = Field(description="What was asked for.", examples=[EXAMPLE_OPTIONS])


class Control(BaseModel):
    """One knob of a patch."""

    model_config = ConfigDict(extra="ignore")
    unit: float = Field(ge=0, le=1, description="Position, 0 to 1.", examples=[0.5])


class Item(BaseModel):
    """One choice of a patch."""

    model_config = ConfigDict(extra="ignore")
    item: Word = Field(description="Live's name of the item.", examples=["Lowpass"])


class DeviceBody(BaseModel):
    """One device of a patch."""

    model_config = ConfigDict(extra="ignore")
    key: Literal[DEVICES] = Field(description="Which device.", examples=["saturator"])  # type: ignore[valid-type]
    knobs: dict[str, Control] = Field(
        {}, max_length=200, description="By key.", examples=[{"drive": {"unit": 0.4}}]
    )
    choices: dict[str, Item] = Field(
        {}, max_length=100, description="By key.", examples=[{"type": {"item": "Soft Sine"}}]
    )


EXAMPLE_PATCH: Json = {
    "note": 48,
    "gate_s": 0.5,
    "chain": ["Saturator"],
    "devices": [{"key": "saturator", "knobs": {"drive": {"unit": 0.4}}, "choices": {}}],
}


class PatchBody(BaseModel):
    """A patch: patch.json as it came, or only what differs from the defaults."""

    model_config = ConfigDict(
        extra="ignore", populate_by_name=True, json_schema_extra={"examples": [EXAMPLE_PATCH]}
    )
    schema_digest: str | None = Field(
        None,
        alias="schema",
        max_length=64,
        description="The schema it was made with, if known; GET /schema tells ours.",
        examples=[RACK.digest],
    )
    note: int = Field(48, ge=0, le=127, description="MIDI note.", examples=[48])
    gate_s: float = Field(1.0, gt=0, le=60, description="Seconds the key is held.", examples=[0.5])
    chain: list[Literal[EFFECTS]] = Field(  # type: ignore[valid-type]
        [],
        max_length=MAX_EFFECTS,
        description="Effects in order, each once.",
        examples=[["Saturator", "Reverb"]],
    )
    devices: list[DeviceBody] = Field(
        [],
        max_length=2 * MAX_EFFECTS,
        description="Controls that are not at their default.",
        examples=[EXAMPLE_PATCH["devices"]],
    )


class RenderQuery(BaseModel):
    """Of POST /render."""

    model_config = ConfigDict(extra="forbid")
    job: str | None = Field(
        None,
        pattern="^[0-9a-f]{16}$",
        description="A job whose recording the render is compared with.",
        examples=["7c9e6679f3a1b2c4"],
    )


Compared = Annotated[RenderQuery, Query()]


class CandidateView(BaseModel):
    """Another patch that was rendered."""

    number: int = Field(description="From 1, best first.", examples=[1])
    mss_db: float = Field(description="Distance to the recording, dB.", examples=[4.1])
    similarity_percent: float = Field(description="As of the answer.", examples=[73.4])
    chain: list[str] = Field(description="Effects in order.", examples=[["Saturator"]])
    sound: str = Field(
        description="Where its sound is.",
        examples=["/jobs/7c9e6679f3a1b2c4/candidates/1/sound.wav"],
    )
    patch: str = Field(
        description="Where its patch is.",
        examples=["/jobs/7c9e6679f3a1b2c4/candidates/1/patch.json"],
    )


class PushedValue(BaseModel):
    """One value in Live's own scale."""

    device: str = Field(description="Live's name.", examples=["Saturator"])
    parameter: str = Field(description="Live's name.", examples=["Drive"])
    wanted: float = Field(
        description="What was set; on/off and items count from 0.", examples=[0.75]
    )
    kept: float = Field(description="What Live says it has.", examples=[0.75])


class PushView(BaseModel):
    """What Live holds now, read back."""

    live: str = Field(description="Its version.", examples=["Live 12.1"])
    tracks: list[str] = Field(
        description="Names of the tracks that hold the patch.", examples=[["bass (un-mixed)"]]
    )
    chain: list[str] = Field(description="Effects in order.", examples=[["Saturator"]])
    read_back: int = Field(
        description="Values that were set and read back as they were wanted.", examples=[93]
    )
    values: list[PushedValue] = Field(
        description="All of them.",
        examples=[[{"device": "Saturator", "parameter": "Drive", "wanted": 0.75, "kept": 0.75}]],
    )
    not_set: list[str] = Field(
        description="What stock AbletonOSC cannot set, with what Live has instead.", examples=[[]]
    )


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = Field(description="Always the same.", examples=["ok"])
    uptime_s: float = Field(description="Seconds since it started.", examples=[3600.0])


class Readiness(BaseModel):
    """Whether sounds can be un-mixed now."""

    ready: bool = Field(description="Sounds are un-mixed and patches rendered.", examples=[True])
    upload_bytes: int = Field(description="Largest upload.", examples=[67108864])
    problems: list[str] = Field(description="Why not, one sentence each.", examples=[[]])
    queued: int = Field(description="Jobs that wait.", examples=[2])
    queue_limit: int = Field(description="Jobs that may wait.", examples=[64])
    live: str = Field(description="Where patches are pushed to.", examples=["127.0.0.1:11000"])
