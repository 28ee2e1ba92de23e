"""Requests drawn from the OpenAPI document, right and wrong ones.

None is answered with a 500, and every answer is one that the document promises. Half of the drawn
job ids are replaced by one that exists.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.unmixer_app.serving import Server
from unmixer_app.serve import create_app
from unmixer_app.service.settings import ServiceSettings

#: Set, so many new requests an operation are drawn each time; left out, the same six.
EXAMPLES = int(os.environ.get("UNMIXER_FUZZ", "0"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
SCHEMA = schemathesis.openapi.from_dict(create_app(ServiceSettings()).openapi())
OPERATIONS = [
    (found.method.upper(), found.path)
    for found in (result.ok() for result in SCHEMA.get_all_operations())
]


@pytest.fixture(scope="module")
def idle(server: Server) -> Iterator[None]:
    """Afterwards nothing searches for what was drawn."""
    yield
    for job in server.client.get("/jobs").json():
        server.client.delete(f"/jobs/{job['id']}")


def test_the_document_holds_the_whole_api():
    assert len(OPERATIONS) >= 22 and len(set(OPERATIONS)) == len(OPERATIONS)


@pytest.mark.parametrize(
    "mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"]
)
@pytest.mark.parametrize(
    ("method", "path"), OPERATIONS, ids=[" ".join(found) for found in OPERATIONS]
)
def test_no_request_is_answered_with_a_500_or_with_something_unpromised(
    server: Server, answered: str, idle: None, method: str, path: str, mode: GenerationMode
):
    @settings(
        max_examples=EXAMPLES or 6,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=SCHEMA[path][method].as_strategy(generation_mode=mode))
    def ask(case: object) -> None:
        parameters = case.path_parameters or {}
        if str(parameters.get("id", "x"))[-1] in "02468ace":
            case.path_parameters["id"] = answered
        response = case.call(base_url=server.url, timeout=60)
        case.validate_response(response, checks=CHECKS)
        if response.status_code >= 400 and path != "/ready":
            sentence = response.json()["detail"]
            assert (
                isinstance(sentence, str)
                and sentence
                and "\n" not in sentence
                and len(sentence) < 600
            )

    try:
        ask()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE and method == "GET", (
            "nothing about this operation can be wrong"
        )
