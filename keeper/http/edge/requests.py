"""What routes read of a request beside its body, and the parameters that several of them share."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

from fastapi import Path, Query
from solders.pubkey import Pubkey
from starlette.requests import Request

from keeper.http.edge.problems import Problem
from keeper.http.models import BASE58, EXAMPLE_ORDER

T = TypeVar("T")

ADDRESS_SCHEMA: Final[dict[str, Any]] = {"pattern": BASE58, "minLength": 32, "maxLength": 44}
OrderPath = Annotated[
    str, Path(description="The order account's address.", examples=[EXAMPLE_ORDER], json_schema_extra=ADDRESS_SCHEMA)
]
User = Annotated[str | None, Query(description="Only this wallet's.", json_schema_extra=ADDRESS_SCHEMA)]
Market = Annotated[str | None, Query(description="Only this market's: a symbol or an address.")]
Cursor = Annotated[str | None, Query(max_length=256, description="From the page before.")]
PageSize = Annotated[int, Query(ge=1, le=200)]


def part(request: Request, kind: type[T]) -> T:
    """The one object of this class that `create_api` connected to the application."""
    found: T = request.app.state.parts[kind]
    return found


def address(text: str, field: str) -> Pubkey:
    """A base58 address, or a Problem that names the field."""
    try:
        return Pubkey.from_string(text)
    except ValueError:
        raise Problem("invalid_field", f"The field {field} has to be a base58 address.", field=field) from None


async def strict_query(request: Request) -> None:
    """Refuse what the route's query does not have: a misspelt filter that is ignored answers another question.

    A coroutine though it never waits: FastAPI runs a plain function in a thread, which costs more than most requests.
    """
    known = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        shown = name[:64] if name.isprintable() else "?"
        if name not in known:
            raise Problem("unknown_field", f"There is no query parameter {shown}.", field=shown)
        if names.count(name) > 1:
            raise Problem("invalid_field", f"The query parameter {shown} occurs more than once.", field=shown)
