"""The API of a running service: what it promises, asked over HTTP."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from prometheus_client.parser import text_string_to_metric_families

from tests.processes import with_words
from tests.unmixer_app.serving import Server, served, sound
from unmixer_app.serve import create_app
from unmixer_app.service.settings import ServiceSettings
from unmixer_app.service.store import STATES
from unmixer_core import config, sampling
from unmixer_core.metrics import sound as metrics_sound
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK
from unmixer_core.system.json_types import Json

#: What is promised on a machine that does nothing else (benchmarks/unmix/service.py asks there),
#: and what other tests may add.
CANCEL_S, LOAD_S = 2.0, 4.0


def audio(data: bytes) -> tuple[np.ndarray, int]:
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return samples.T, rate


def events(server: Server, identity: str) -> list[tuple[str, Json]]:
    found, name = [], ""
    with server.client.stream("GET", f"/jobs/{identity}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                found.append((name, json.loads(line[6:])))
    return found


def test_a_sound_becomes_a_job_whose_events_end_with_the_answer(server: Server):
    answer = server.client.post(
        "/unmix", files={"file": ("my bass.wav", sound())}, data={"fast": "true", "chain": "none"}
    )
    job = answer.json()
    assert answer.status_code == 202 and answer.headers["location"] == f"/jobs/{job['id']}"
    assert (job["name"], job["state"], job["note"]) == ("my bass.wav", "queued", 50) or job[
        "state"
    ] == "running"
    told = events(server, job["id"])
    assert [name for name, _ in told[:-1]] == ["progress"] * (len(told) - 1) and told[-1][
        0
    ] == "end"
    bests = [state["best"]["mss_db"] for _, state in told if state["best"]]
    assert bests and bests == sorted(bests, reverse=True), "the best so far never gets worse"
    last = told[-1][1]
    assert last["state"] == "done" and last == server.client.get(f"/jobs/{job['id']}").json()
    document = server.client.get(f"/jobs/{job['id']}/patch.json").json()
    assert document["chain"] == [] and document["similarity"]["mss_db"] == pytest.approx(
        last["best"]["mss_db"], abs=1e-3
    )
    assert last["expires"] > last["finished"] and document["limits"]


def test_an_answers_parts_belong_together(server: Server, answered: str):
    get = lambda part: server.client.get(f"/jobs/{answered}/{part}")  # noqa: E731
    document = get("patch.json").json()
    assert document["chain"] == ["Saturator", "Delay", "Reverb"]
    rerender, recording = audio(get("rerender.wav").content), audio(get("input.wav").content)
    assert metrics_sound.mss(rerender[0], recording[0], rerender[1]) == pytest.approx(
        document["similarity"]["mss_db"], abs=0.05
    )
    assert np.sqrt(np.mean(rerender[0] ** 2)) == pytest.approx(
        np.sqrt(np.mean(recording[0] ** 2)), rel=0.01
    )
    assert json.loads(get("preset.vital").content)["settings"]["reverb_on"] == 1.0
    assert (
        "<audio" in get("report.html").text
        and 'filename="pluck.vital"' in get("preset.vital").headers["content-disposition"]
    )
    others = get("candidates").json()
    assert others and [one["number"] for one in others] == list(range(1, len(others) + 1))
    assert [one["mss_db"] for one in others] == sorted(one["mss_db"] for one in others)
    for one in others:
        assert server.client.get(one["patch"]).json()["chain"] == one["chain"]
        assert audio(server.client.get(one["sound"]).content)[0].shape == rerender[0].shape
    assert server.client.get(f"/jobs/{answered}/candidates/64/patch.json").status_code == 404


def test_a_patch_sounds_the_same_when_it_is_rendered_alone_and_says_how_similar_it_is(
    server: Server, answered: str
):
    document = server.client.get(f"/jobs/{answered}/patch.json").json()
    alone = server.client.post("/render", params={"job": answered}, json=document)
    rerender, rate = audio(server.client.get(f"/jobs/{answered}/rerender.wav").content)
    assert metrics_sound.mss(audio(alone.content)[0], rerender, rate) < 0.1
    assert float(alone.headers["x-mss-db"]) == pytest.approx(
        document["similarity"]["mss_db"], abs=0.05
    )
    assert float(alone.headers["x-similarity-percent"]) == pytest.approx(
        document["similarity"]["percent"], abs=0.5
    )
    assert "x-mss-db" not in server.client.post("/render", json=document).headers


def test_a_turned_knob_is_heard(server: Server, answered: str):
    document = server.client.get(f"/jobs/{answered}/patch.json").json()
    dry = server.client.post("/render", json=document | {"chain": []}).content
    saturator = next(device for device in document["devices"] if device["key"] == "saturator")
    saturator["knobs"]["drive"]["unit"] = 1.0
    hot = server.client.post("/render", json=document).content
    assert metrics_sound.mss(audio(dry)[0], audio(hot)[0], 44100) > 0.5


def test_describe_is_the_schemas_word_on_a_patch(server: Server, params: config.Params):
    schema = server.client.get("/schema").json()
    assert schema["digest"] == RACK.digest and [d["key"] for d in schema["devices"]] == [
        d.key for d in RACK.devices
    ]
    for i in range(5):
        patch = sampling.draw("full", "test", i, 3, params.sample)
        described = server.client.post("/describe", json=patch.to_dict()).json()
        assert described == patch.to_dict() | {"digest": patch.digest}
        assert server.client.post("/preset", json=described).json()["settings"]


def test_a_locked_control_stays_in_another_search(server: Server, answered: str):
    options = {
        "lock": ["saturator.drive=12", "wavetable.filter_1_type=Bandpass"],
        "chain": "Reverb>Saturator",
        "fast": True,
    }
    job = server.client.post(f"/jobs/{answered}/again", json=options)
    assert (
        job.status_code == 202
        and job.json()["id"] != answered
        and job.json()["name"] == "pluck.wav"
    )
    assert server.ended(job.json()["id"])["state"] == "done"
    document = server.client.get(f"/jobs/{job.json()['id']}/patch.json").json()
    assert document["chain"] == ["Reverb", "Saturator"]
    assert document["devices"][2]["knobs"]["drive"]["physical"] == pytest.approx(12.0, abs=1e-3)


def test_cancel_ends_a_search_within_two_seconds_and_the_next_one_starts(server: Server):
    long = server.unmix(fast="false", itf="false", polish_s="600")
    server.until(lambda: server.client.get(f"/jobs/{long}").json()["best"] is not None)
    waiting, begun = server.unmix(), time.monotonic()
    assert server.client.delete(f"/jobs/{long}").json()["state"] == "cancelled"
    server.until(lambda: server.client.get(f"/jobs/{waiting}").json()["state"] != "queued", 60)
    taken_s = time.monotonic() - begun
    assert taken_s < CANCEL_S + LOAD_S, f"{taken_s:.1f} s until the next search began"
    assert server.ended(waiting)["state"] == "done"
    assert server.client.get(f"/jobs/{long}").json()["state"] == "cancelled"
    assert server.client.get(f"/jobs/{long}/patch.json").status_code == 409


def test_a_waiting_job_is_cancelled_and_never_runs(server: Server):
    first, second = server.unmix(fast="false", polish_s="600"), server.unmix()
    assert server.client.delete(f"/jobs/{second}").json()["state"] == "cancelled"
    assert server.client.delete(f"/jobs/{first}").json()["state"] == "cancelled"
    assert server.client.delete(f"/jobs/{second}").json()["seconds"] is None


def test_stopped_with_keep_a_search_answers_with_its_best(server: Server):
    identity = server.unmix(fast="false", itf="false", polish_s="600")
    server.until(lambda: server.client.get(f"/jobs/{identity}").json()["best"] is not None)
    so_far = audio(server.client.get(f"/jobs/{identity}/rerender.wav").content)
    assert (
        so_far[0].shape == audio(server.client.get(f"/jobs/{identity}/input.wav").content)[0].shape
    )
    server.client.delete(f"/jobs/{identity}", params={"keep": "true"})
    job = server.ended(identity)
    document = server.client.get(f"/jobs/{identity}/patch.json").json()
    assert (
        job["state"] == "done"
        and document["interrupted"]
        and document["similarity"]["mss_db"] <= job["best"]["mss_db"] + 1e-6
    )


def test_a_process_that_dies_takes_nothing_along(server: Server, answered: str):
    """The searcher in the middle of a job: the job is searched again.

    The renderer: the next renders start another one.
    """
    job = server.unmix(fast="false", itf="false", polish_s="0")
    server.until(lambda: server.client.get(f"/jobs/{job}").json()["state"] == "running")
    for child in with_words(
        "unmixer_app.service.searcher", "unmixer_app.service.renderer", below=server.process.pid
    ):  # type: ignore[union-attr]
        child.kill()
    server.until(lambda: server.client.post("/render", json={}).status_code == 200)
    assert server.ended(job)["state"] == "done" and server.client.get("/ready").status_code == 200


def test_a_push_sets_the_patch_in_live_and_reads_it_back(server: Server, answered: str):
    report = server.client.post(f"/jobs/{answered}/push")
    found = report.json()
    assert report.status_code == 200, report.text
    assert found["chain"] == ["Saturator", "Delay", "Reverb"] and found["tracks"] == [
        "pluck (un-mixed)"
    ]
    assert found["read_back"] == len(found["values"]) > 50 and found["not_set"] == []
    own = server.client.post(
        f"/jobs/{answered}/push", json=Patch.init(48, 0.5, ["Compressor"]).to_dict()
    )
    assert own.status_code == 200 and own.json()["chain"] == ["Compressor"]


REFUSED: list[tuple[str, bytes, dict[str, str], int, str]] = [
    ("text.wav", b"this is no sound", {}, 415, "text.wav cannot be read as audio"),
    ("silence.wav", sound()[:44] + bytes(40_000), {}, 415, "silence.wav is silent"),
    ("empty.wav", b"", {}, 415, "empty.wav is empty"),
    ("ok.wav", sound(), {"note": "200"}, 422, "note: "),
    ("ok.wav", sound(), {"lock": "wavetable.nothing=1"}, 422, "there is no control"),
    ("ok.wav", sound(), {"chain": "Wah"}, 422, "there is no effect 'Wah'"),
    ("ok.wav", sound(), {"colour": "red"}, 422, "colour: "),
]


@pytest.mark.parametrize(("name", "data", "options", "status", "words"), REFUSED)
def test_what_cannot_be_un_mixed_is_refused_in_one_sentence(
    server: Server, name, data, options, status, words
):
    before = len(server.client.get("/jobs").json())
    answer = server.client.post("/unmix", files={"file": (name, data)}, data=options)
    assert answer.status_code == status and words in answer.json()["detail"], answer.text
    assert (
        list(answer.json()) == ["detail"]
        and "\n" not in answer.json()["detail"]
        and "--" not in answer.json()["detail"]
    )
    assert len(server.client.get("/jobs").json()) == before


def test_a_file_that_is_too_large_is_refused_before_it_is_stored(server: Server):
    answer = server.client.post("/unmix", files={"file": ("big.wav", bytes(65 << 20))})
    assert answer.status_code == 413 and answer.json() == {
        "detail": "at most 64 MiB are accepted here."
    }
    patch = {"note": 48, "gate_s": 1, "chain": [], "devices": [], "pad": "x" * (1 << 20)}
    assert server.client.post("/render", json=patch).json() == {
        "detail": "at most 1 MiB are accepted here."
    }
    chunks = (bytes(1 << 16) for _ in range(40))
    unsaid = server.client.post(
        "/render", content=chunks, headers={"content-type": "application/json"}
    )
    assert unsaid.status_code == 413 and list(unsaid.json()) == ["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/../../etc/passwd",
        "/jobs/0123/patch.json",
        "/page/../serve.py",
        "/page/%2e%2e/serve.py",
    ],
)
def test_no_path_of_a_request_reaches_the_file_system(server: Server, path: str):
    assert server.client.get(path).status_code in (404, 422)


def test_metrics_are_prometheus_text(server: Server, answered: str):
    answer = server.client.get("/metrics")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert answer.headers["content-type"].startswith("text/plain")
    jobs = {sample.labels["state"]: sample.value for sample in families["unmixer_jobs"].samples}
    assert set(jobs) == set(STATES) and jobs["done"] >= 1
    assert (
        families["unmixer_render_seconds"].type == "histogram"
        and families["unmixer_searchers_ready"].samples[0].value == 1
    )


def test_the_openapi_document_says_everything():
    document = create_app(ServiceSettings()).openapi()
    problem = {"$ref": "#/components/schemas/Problem"}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["description"] and operation["tags"], where
            assert {"401", "403", "413", "421", "422", "429"} <= set(operation["responses"]), where
            assert operation["security"] == [{"HTTPBearer": []}], where
            assert "Retry-After" in operation["responses"]["429"]["headers"], where
            assert (
                "202" not in operation["responses"]
                or "Location" in operation["responses"]["202"]["headers"]
            ), where
            for status, response in operation["responses"].items():
                if status >= "400" and (path, status) != ("/ready", "503"):
                    assert response["content"]["application/json"]["schema"] == problem, (
                        f"{where} {status}"
                    )
            assert any("content" in r for s, r in operation["responses"].items() if s < "300"), (
                where
            )
    bearer = document["components"]["securitySchemes"]["HTTPBearer"]
    assert (bearer["type"], bearer["scheme"]) == ("http", "bearer")
    for name, fields in document["components"]["schemas"].items():
        for key, field in fields["properties"].items():
            assert "description" in field and ("examples" in field or key == "file"), (
                f"{name}.{key}"
            )
    assert "/docs" not in document["paths"]


def test_no_documentation_of_others_is_served(server: Server):
    assert server.client.get("/docs").status_code == 404


def test_killed_in_the_middle_every_accepted_job_still_ends(tmp_path: Path, model_folder: Path):
    """With a queue of its own bound, the clear refusal of what does not fit, and a token."""
    token = "0123456789abcdef"
    with served(
        tmp_path / "data",
        model_folder,
        UNMIXER_SERVE_QUEUE="2",
        UNMIXER_SERVE_TOKEN=token,
        UNMIXER_SERVE_HOST="127.0.0.1",
    ) as server:
        assert (
            server.client.get("/jobs", headers={"authorization": "Bearer wrong"}).status_code == 401
        )
        long = server.unmix(fast="false", polish_s="600")
        server.until(lambda: server.client.get(f"/jobs/{long}").json()["best"] is not None)
        jobs = [server.unmix(note=str(40 + i)) for i in range(2)]
        full = server.client.post("/unmix", files={"file": ("a.wav", sound())})
        assert (
            full.status_code == 429
            and "retry-after" in full.headers
            and "2 sounds are waiting" in full.json()["detail"]
        )
        server.kill()
        server.start(wait=False)
        assert server.client.get(f"/jobs/{long}").json()["state"] in ("queued", "running")
        assert server.client.delete(f"/jobs/{long}").json()["state"] == "cancelled"
        assert [server.ended(one)["state"] for one in jobs] == ["done"] * 2
        left = {path.name for path in (tmp_path / "data" / "jobs").glob("*/*")}
        assert not any(name.startswith(("work", "upload")) for name in left)


def test_without_a_model_the_page_and_renders_work_and_the_reason_is_told(tmp_path: Path):
    server = Server(tmp_path / "data", tmp_path / "no models")
    try:
        server.start(wait=False)
        server.until(lambda: "no trained model" in server.client.get("/ready").text)
        assert (
            server.client.get("/ready").status_code == 503
            and server.client.get("/").status_code == 200
        )
        refused = server.client.post("/unmix", files={"file": ("a.wav", sound())})
        assert refused.status_code == 503 and "make repro" in refused.json()["detail"]
        assert server.client.post("/render", json={}).status_code == 200
    finally:
        server.stop()
