"""The OpenAPI parts of a route, from the same types that its code uses.

msgspec makes the schemas, FastAPI the paths: a route names its body and its answers here, and `openapi` puts the
schemas of all types named into the document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict

import msgspec

from keeper.http.edge.problems import KINDS, MEDIA_TYPE
from keeper.http.models import Answer, ProblemDetails

REF_TEMPLATE: Final = "#/components/schemas/{name}"
_PROBLEM: Final = {MEDIA_TYPE: {"schema": {"$ref": REF_TEMPLATE.format(name="Problem")}}}

described: list[type[msgspec.Struct]] = [ProblemDetails]
"""Every type that a route named. Filled while the routes' modules are imported, read when the document is made."""


def also_described(*types: type[msgspec.Struct]) -> None:
    """Put types into the document that no body or JSON answer has, but a text names."""
    described.extend(types)


class RouteDescription(TypedDict):
    """Keyword arguments of FastAPI's route decorators."""

    response_model: None
    status_code: int
    responses: dict[int | str, dict[str, Any]]
    openapi_extra: dict[str, Any]


def described_by(
    answers: Mapping[int, type[Answer] | str],
    *,
    plain: Sequence[str] = (),
    body: type[msgspec.Struct] | None = None,
    body_required: bool = True,
    example: Mapping[str, Any] | None = None,
    problems: Sequence[str] = (),
    headers: Mapping[str, tuple[str, str]] | None = None,
    answer_headers: Mapping[int, Mapping[str, str]] | None = None,
) -> RouteDescription:
    """Describe a route: its answers by status (a type; or a sentence for one without a body or with text of the media
    types `plain`), its body with an example, the problems that it can answer with, and headers in and out.
    """
    responses: dict[int | str, dict[str, Any]] = {}
    for status, what in answers.items():
        if isinstance(what, str):
            responses[status] = {"description": what}
            if plain:
                responses[status]["content"] = {media_type: {"schema": {"type": "string"}} for media_type in plain}
        else:
            described.append(what)
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
        described.append(body)
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
    return {
        "response_model": None,
        "status_code": min(answers),
        "responses": responses,
        "openapi_extra": extra,
    }


def problem_content() -> dict[str, Any]:
    """The `content` of an answer that is a problem."""
    return dict(_PROBLEM)


def _by_status(codes: Sequence[str]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        found.setdefault(KINDS[code].status, []).append(code)
    return dict(sorted(found.items()))
