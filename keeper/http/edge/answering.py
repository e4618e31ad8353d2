"""What routes read of a request beside its body, the parameters that several of them share, and how they answer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta
from solders.pubkey import Pubkey
from starlette.requests import Request
from starlette.responses import Response

from keeper.domain.orders import OrderType
from keeper.http.edge.clients import CLIENT
from keeper.http.edge.problems import Problem
from keeper.http.models import EXAMPLE_ORDER, OrderTypeWord

T = TypeVar("T")

OrderPath = Annotated[Pubkey, Meta(description="The order account's address.", examples=[EXAMPLE_ORDER])]
User = Annotated[Pubkey, Meta(description="Only this wallet's.")]
Market = Annotated[str, Meta(description="Only this market's: a symbol or an address.")]
OfType = Annotated[OrderTypeWord, Meta(description="Only orders of this type.")]
Cursor = Annotated[str, Meta(max_length=256, description="From the page before.")]
PageSize = Annotated[int, Meta(ge=1, le=200)]
_JSON: Final = "application/json"


def part(request: Request, kind: type[T]) -> T:
    """The one object of this class that `create_api` connected to the application."""
    found: T = request.app.state.parts[kind]
    return found


def client(request: Request) -> str:
    """Whose request it is, as limits by client have it."""
    name: str = request.scope["state"][CLIENT]
    return name


def type_of(word: OrderTypeWord | None) -> OrderType | None:
    """The type of this word."""
    return None if word is None else OrderType[word.upper()]


def address(text: str, field: str) -> Pubkey:
    """A base58 address, or a Problem that names the field."""
    try:
        return Pubkey.from_string(text)
    except ValueError:
        raise Problem("invalid_field", f"The field {field} has to be a base58 address.", field=field) from None


def next_page(request: Request, cursor: str | None) -> str | None:
    """The same question with the cursor; None without one."""
    if cursor is None:
        return None
    url = request.url.include_query_params(cursor=cursor)
    return f"{url.path}?{url.query}"


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
