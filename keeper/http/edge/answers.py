"""Answers: JSON bodies with the headers that go with them, and entity tags."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec
from starlette.requests import Request
from starlette.responses import Response

_JSON = "application/json"


def answer(body: msgspec.Struct, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer that nobody may cache: what it says is true now."""
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        media_type=_JSON,
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def tagged(request: Request, body: msgspec.Struct, about: msgspec.Struct | None = None) -> Response:
    """A JSON answer with a weak ETag; 304 without a body when the client has as good as this already.

    The tag is of `about`, or of the whole body: it changes with everything in it, and with nothing else.
    """
    content = msgspec.json.encode(body)
    tag = f'"{hashlib.sha256(content if about is None else msgspec.json.encode(about)).hexdigest()[:32]}"'
    headers = {"ETag": f"W/{tag}", "Cache-Control": "no-cache"}
    if _matches(request.headers.getlist("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=_JSON, headers=headers)


def _matches(values: list[str], tag: str) -> bool:
    """RFC 9110's weak comparison: a W/ in front does not matter here."""
    candidates = [candidate.strip().removeprefix("W/") for value in values for candidate in value.split(",")]
    return tag in candidates or "*" in candidates
