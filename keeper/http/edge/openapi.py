"""The API's description, OpenAPI 3.1, from the types that its code uses.

An endpoint names its body and its answers here, and its parameters are those of its function; msgspec reads requests by
the types, and makes the schemas of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final, get_args, get_type_hints

import msgspec

from keeper.http.edge.problems import BODY_PROBLEMS, KINDS, MEDIA_TYPE
from keeper.http.edge.routing import Endpoint, Guard, Handler, Route
from keeper.http.models import BASE58, Answer, ProblemDetails

_DESCRIPTION: Final = """\
Place conditional orders on the QuantDesk perpetuals program and see what becomes of them. Your key never leaves your
wallet: `POST /v1/orders` prepares a transaction, your wallet signs it, `POST /v1/orders/execute` relays it.

Decimals travel as strings. Errors are `application/problem+json` (RFC 9457) with a stable `code`.
"""

_REF_TEMPLATE: Final = "#/components/schemas/{name}"
_PROBLEM: Final = {MEDIA_TYPE: {"schema": {"$ref": _REF_TEMPLATE.format(name="Problem")}}}
_BEARER: Final = "bearer"
_ALWAYS: Final = ("malformed_request", "rate_limited", "internal_error")

_types: Final[list[type[msgspec.Struct]]] = [ProblemDetails]
"""Every type that an endpoint names. Filled while their modules are imported, read when the document is made."""


def hidden(handler: Handler) -> Endpoint:
    """An endpoint that the description leaves out."""
    return _endpoint(handler, None, None)


def described(
    summary: str,
    answers: Mapping[int, type[Answer] | str],
    *,
    plain: Sequence[str] = (),
    events: Mapping[str, type[Answer]] | None = None,
    example: Mapping[str, Any] | None = None,
    problems: Sequence[str] = (),
    headers: Mapping[str, tuple[str, str]] | None = None,
    answer_headers: Mapping[int, Mapping[str, str]] | None = None,
    guard: Guard | None = None,
) -> Callable[[Handler], Endpoint]:
    """Make a handler an endpoint, described by its answers by status (a type; or a sentence for one without a body, or
    with text of the media types `plain`, or with `events` and their data), an example of its body, the problems that it
    can answer with beside those of reading a request, and headers in and out. The handler's docstring is the text.
    """
    responses: dict[str, dict[str, Any]] = {}
    for status, what in answers.items():
        if isinstance(what, str):
            response: dict[str, Any] = {"description": what}
            if plain:
                response["content"] = {media_type: {"schema": {"type": "string"}} for media_type in plain}
            if events:
                response["content"] = _stream(events)
        else:
            response = {"description": (what.__doc__ or what.__name__).partition("\n")[0], "content": _json(what)}
        for name, meaning in (answer_headers or {}).get(status, {}).items():
            response.setdefault("headers", {})[name] = {"description": meaning, "schema": {"type": "string"}}
        responses[str(status)] = response
    parameters = [
        {"name": name, "in": "header", "required": False, "description": meaning}
        | {"schema": {"type": "string", "pattern": pattern}}
        for name, (meaning, pattern) in (headers or {}).items()
    ]

    def make(handler: Handler) -> Endpoint:
        operation: dict[str, Any] = {
            "summary": summary,
            "description": inspect.getdoc(handler),
            "parameters": parameters,
        }
        endpoint = _endpoint(handler, guard, operation)
        codes = [*_ALWAYS, *problems]
        if endpoint.parameters.__struct_fields__:
            codes += ["invalid_field", "unknown_field"]
        if guard is not None:
            codes += ["unauthorized", "not_found"]
            operation["security"] = [{_BEARER: []}]
        if endpoint.body is not None:
            codes += BODY_PROBLEMS
            content = _json(endpoint.body)
            if example is not None:
                content["application/json"]["example"] = dict(example)
            operation["requestBody"] = {"required": endpoint.body_required, "content": content}
        operation["responses"] = _refusals(codes) | responses
        return endpoint

    return make


def _endpoint(handler: Handler, guard: Guard | None, operation: dict[str, Any] | None) -> Endpoint:
    """A parameter whose default is None is one that may be left out: its shape has no null."""
    types = get_type_hints(handler, include_extras=True)
    fields: dict[str, tuple[Any, ...]] = {}
    for name, parameter in list(inspect.signature(handler).parameters.items())[1:]:
        kind = get_args(types[name])[0] if parameter.default is None else types[name]
        fields[name] = (name, kind) if parameter.default is parameter.empty else (name, kind, parameter.default)
    body = fields.pop("body", ())
    shape = msgspec.defstruct(handler.__name__, fields.values(), kw_only=True, forbid_unknown_fields=True)
    return Endpoint(handler, shape, body[1] if body else None, len(body) == 2, guard, operation)


def _json(what: type[msgspec.Struct]) -> dict[str, Any]:
    _types.append(what)
    return {"application/json": {"schema": {"$ref": _REF_TEMPLATE.format(name=what.__name__)}}}


def _stream(events: Mapping[str, type[Answer]]) -> dict[str, Any]:
    """A text of events, each of which is one of these."""
    kinds = []
    for name, data in events.items():
        reference = _json(data)["application/json"]["schema"]
        properties = {"event": {"const": name}, "id": {"type": "integer"}, "data": reference}
        kinds.append({"type": "object", "properties": properties, "required": list(properties)})
    schema = {"type": "string", "contentMediaType": "text/event-stream", "contentSchema": {"oneOf": kinds}}
    return {"text/event-stream": {"schema": schema}}


def _refusals(codes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By status, each with the codes that it can have."""
    lines: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        lines.setdefault(KINDS[code].status, []).append(f"- `{code}`: {KINDS[code].title}")
    return {str(status): {"description": "\n".join(of), "content": _PROBLEM} for status, of in sorted(lines.items())}


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """The document of these routes."""
    _, schemas = msgspec.json.schema_components(list(dict.fromkeys(_types)), ref_template=_REF_TEMPLATE)
    problem = schemas.pop("ProblemDetails")
    problem["properties"]["code"]["enum"] = sorted(KINDS)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if route.endpoint.operation is not None:
            paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, route.endpoint.operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "QuantDesk keeper", "description": _DESCRIPTION, "version": version("quantdesk-keeper")},
        "servers": [
            {"url": "/", "description": "Where this document came from"},
            {"url": "http://127.0.0.1:8080", "description": "A keeper on this machine, with its settings as they are"},
        ],
        "paths": paths,
        "components": {
            "schemas": dict(sorted({**schemas, "Problem": problem}.items())),
            "securitySchemes": {
                _BEARER: {"type": "http", "scheme": "bearer", "description": "An operator's token, or a wallet's."}
            },
        },
    }


def _address_schema(_: type) -> dict[str, Any]:
    return {"type": "string", "pattern": BASE58, "minLength": 32, "maxLength": 44}


def _operation(route: Route, operation: Mapping[str, Any]) -> dict[str, Any]:
    shape = route.endpoint.parameters
    _, schemas = msgspec.json.schema_components([shape], schema_hook=_address_schema, ref_template=_REF_TEMPLATE)
    parameters = []
    for name, schema in schemas[shape.__name__]["properties"].items():
        if schema.get("default", ...) is None:
            del schema["default"]
        in_path = f"{{{name}}}" in route.path
        parameter = {"name": name, "in": "path" if in_path else "query", "required": in_path, "schema": schema}
        if "description" in schema:
            parameter["description"] = schema.pop("description")
        parameters.append(parameter)
    if not route.anywhere:
        operation = {**operation, "responses": _also("standing_by", operation["responses"])}
    if route.handed_on:
        operation = {**operation, "responses": _also("not_holder", operation["responses"])}
    return {
        **({"tags": [route.tag]} if route.tag else {}),
        **operation,
        "operationId": route.endpoint.handler.__name__,
        "parameters": [*parameters, *operation["parameters"]],
    }


def _also(code: str, responses: Mapping[str, Any]) -> dict[str, Any]:
    """And what a keeper answers that stands by, or does not work on the order's market."""
    ((status, refusal),) = _refusals([code]).items()
    lines = [responses[status]["description"]] if status in responses else []
    told = {status: {**refusal, "description": "\n".join([*lines, refusal["description"]])}}
    return dict(sorted({**responses, **told}.items()))
