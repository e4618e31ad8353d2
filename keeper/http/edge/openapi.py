"""The API's description, OpenAPI 3.1, from the types that its code uses.

msgspec makes the schemas, FastAPI the paths: an endpoint names its body and its answers here, and `document` puts the
schemas of all types named into the description.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from keeper.http.edge.problems import KINDS, MEDIA_TYPE
from keeper.http.models import Answer, ProblemDetails

DESCRIPTION: Final = """\
Place conditional orders on the QuantDesk perpetuals program and see what becomes of them. Your key never leaves your
wallet: `POST /v1/orders` prepares a transaction, your wallet signs it, `POST /v1/orders/execute` relays it.

Decimals travel as strings. Errors are `application/problem+json` (RFC 9457) with a stable `code`.
"""

REF_TEMPLATE: Final = "#/components/schemas/{name}"
_PROBLEM: Final = {MEDIA_TYPE: {"schema": {"$ref": REF_TEMPLATE.format(name="Problem")}}}

_types: Final[list[type[msgspec.Struct]]] = [ProblemDetails]
"""Every type that an endpoint names. Filled while their modules are imported, read when the document is made."""


def also_described(*types: type[msgspec.Struct]) -> None:
    """Put types into the document that no body or JSON answer has, but a text names."""
    _types.extend(types)


Handler = Callable[..., Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A function that answers requests, and how the description shows it: keyword arguments of FastAPI's
    `add_api_route`. Its first parameter is the request, the others are parameters of the path and the query.
    """

    handler: Handler
    description: Mapping[str, Any]


def hidden(handler: Handler) -> Endpoint:
    """An endpoint that the description leaves out."""
    return Endpoint(handler, {"response_model": None, "include_in_schema": False})


def described(
    summary: str,
    answers: Mapping[int, type[Answer] | str],
    *,
    plain: Sequence[str] = (),
    body: type[msgspec.Struct] | None = None,
    body_required: bool = True,
    example: Mapping[str, Any] | None = None,
    problems: Sequence[str] = (),
    headers: Mapping[str, tuple[str, str]] | None = None,
    answer_headers: Mapping[int, Mapping[str, str]] | None = None,
) -> Callable[[Handler], Endpoint]:
    """Make a handler an endpoint, described by its answers by status (a type; or a sentence for one without a body or
    with text of the media types `plain`), its body with an example, the problems that it can answer with, and headers
    in and out. The handler's docstring is the text.
    """
    responses: dict[int | str, dict[str, Any]] = {}
    for status, what in answers.items():
        if isinstance(what, str):
            responses[status] = {"description": what}
            if plain:
                responses[status]["content"] = {media_type: {"schema": {"type": "string"}} for media_type in plain}
        else:
            _types.append(what)
            responses[status] = {
                "description": (what.__doc__ or what.__name__).partition("\n")[0],
                "content": {"application/json": {"schema": {"$ref": REF_TEMPLATE.format(name=what.__name__)}}},
            }
        for name, meaning in (answer_headers or {}).get(status, {}).items():
            responses[status].setdefault("headers", {})[name] = {"description": meaning, "schema": {"type": "string"}}
    for status, codes in _by_status((*problems, "malformed_request", "rate_limited", "internal_error")).items():
        lines = "\n".join(f"- `{code}`: {KINDS[code].title}" for code in codes)
        responses.setdefault(status, {"description": lines, "content": _PROBLEM})
    extra: dict[str, Any] = {}
    if body is not None:
        _types.append(body)
        content: dict[str, Any] = {"schema": {"$ref": REF_TEMPLATE.format(name=body.__name__)}}
        if example is not None:
            content["example"] = dict(example)
        extra["requestBody"] = {"required": body_required, "content": {"application/json": content}}
    if headers:
        extra["parameters"] = [
            {
                "name": name,
                "in": "header",
                "required": False,
                "description": meaning,
                "schema": {"type": "string", "pattern": pattern},
            }
            for name, (meaning, pattern) in headers.items()
        ]
    description = {
        "response_model": None,
        "summary": summary,
        "status_code": min(answers),
        "responses": responses,
        "openapi_extra": extra,
    }
    return lambda handler: Endpoint(handler, description)


def _by_status(codes: Sequence[str]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        found.setdefault(KINDS[code].status, []).append(code)
    return dict(sorted(found.items()))


def document(app: FastAPI) -> dict[str, Any]:
    """The document of an application, made once."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        _, schemas = msgspec.json.schema_components(list(dict.fromkeys(_types)), ref_template=REF_TEMPLATE)
        problem = schemas.pop("ProblemDetails")
        problem["properties"]["code"]["enum"] = sorted(KINDS)
        components = made.setdefault("components", {})
        # FastAPI adds its own shape for invalid parameters, which this API never answers with.
        components["schemas"] = dict(sorted({**schemas, "Problem": problem}.items()))
        for path in made["paths"].values():
            for operation in path.values():
                _without_fastapi_error(operation["responses"])
        app.openapi_schema = made
    return app.openapi_schema


@hidden
async def description(request: Request) -> Response:
    """The document of the application that answers."""
    return JSONResponse(document(request.app))


def _without_fastapi_error(responses: dict[str, Any]) -> None:
    schema = responses.get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if schema.get("$ref", "").endswith("HTTPValidationError"):
        responses["422"] = {"description": "- `invalid_field`: A parameter is not valid", "content": _PROBLEM}
