"""The code held to its description: schemathesis makes requests from it, and compares the answers with it.

QUANTDESK_SCHEMA_EXAMPLES sets how many examples each operation gets (12 unless set).
"""

from __future__ import annotations

import os
from typing import Any

import anyio.to_thread
import hypothesis
import pytest
import requests
import schemathesis
from schemathesis import checks
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks as openapi_checks

from keeper.http.routes import openapi_document
from tests.http.http_world import World
from tests.support import BOUND_S

pytestmark = pytest.mark.anyio
EXAMPLES = int(os.environ.get("QUANTDESK_SCHEMA_EXAMPLES", "12"))
ENDLESS = "/v1/orders/stream"
DOCUMENT = openapi_document()
OPERATIONS = [
    (method.upper(), path) for path, operations in DOCUMENT["paths"].items() for method in operations if path != ENDLESS
]
MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.negative_data_rejection,
    openapi_checks.unsupported_method,
]

SETTINGS = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)


def cases_of(operation: Any) -> Any:
    """Requests that fit the operation's description, and such that do not."""
    return hypothesis.strategies.one_of(*(operation.as_strategy(generation_mode=mode) for mode in MODES))


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=[" ".join(operation) for operation in OPERATIONS])
async def test_an_operation_does_what_its_description_says(world: World, method: str, path: str) -> None:
    schema: Any = schemathesis.openapi.from_dict(DOCUMENT)
    schema.config.update(base_url=f"http://127.0.0.1:{world.port}")
    # A body can be too large before it can be wrong.
    refusals = schema.config.checks.negative_data_rejection
    refusals.expected_statuses = [*refusals.expected_statuses, "413"]
    operation = schema[path][method]

    @SETTINGS
    @hypothesis.given(case=cases_of(operation))
    def check(case: Any) -> None:
        case.call_and_validate(checks=CHECKS, timeout=BOUND_S)

    # In a thread: the API under test lives in this event loop.
    await anyio.to_thread.run_sync(check)


async def test_the_stream_does_what_its_description_says(world: World) -> None:
    """Of an answer that goes on, the head and the first line; of a refusal, everything."""
    schema: Any = schemathesis.openapi.from_dict(DOCUMENT)
    base_url = f"http://127.0.0.1:{world.port}"
    schema.config.update(base_url=base_url)
    operation = schema[ENDLESS]["GET"]

    @SETTINGS
    @hypothesis.given(case=cases_of(operation))
    def check(case: Any) -> None:
        # A session of its own, closed with its answer: a stream is never read to its end.
        request = case.as_transport_kwargs(base_url=base_url)
        with requests.Session() as session, session.request(**request, stream=True, timeout=BOUND_S) as answer:
            if answer.status_code != 200:
                case.validate_response(answer, checks=CHECKS)
                return
            assert answer.headers["content-type"] == "text/event-stream"
            assert next(answer.iter_lines()).startswith(b"retry: ")

    await anyio.to_thread.run_sync(check)
