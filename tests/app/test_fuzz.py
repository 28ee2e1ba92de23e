"""Requests drawn from the OpenAPI document, right and wrong ones: none is answered with a 500, and every answer is one that
the document promises. Half of the drawn job ids are replaced by one that exists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.app.serving import Server

pytestmark = pytest.mark.xdist_group("service")
EXAMPLES = 10
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def document(server: Server, answered: str) -> Iterator[Any]:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json", config=SchemathesisConfig())

    @schema.hook
    def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
        if path_parameters and "id" in path_parameters and str(path_parameters["id"])[-1:] in "02468ace":
            path_parameters["id"] = answered
        return path_parameters

    yield schema
    for job in server.client.get("/jobs").json():
        server.client.delete(f"/jobs/{job['id']}")


asked = schemathesis.pytest.from_fixture("document")


@asked.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_request_is_answered_with_a_500_or_with_something_unpromised(case: schemathesis.Case, server: Server):
    response = case.call(base_url=server.url, timeout=60)
    case.validate_response(response, checks=CHECKS)
    if response.status_code >= 400 and case.path != "/ready":
        sentence = response.json()["detail"]
        assert isinstance(sentence, str) and sentence and "\n" not in sentence and len(sentence) < 600
