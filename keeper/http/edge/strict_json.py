"""JSON bodies and parameters, read strictly: what is not exactly what the API describes is refused, naming the field.

msgspec refuses wrong types, unknown fields, NaN and invalid UTF-8, and says where. It keeps the last of two equal
keys, though, and two readers that disagree on which key counts are how a check is walked around; so the keys are
looked at first.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, TypeVar

import anyio
import msgspec
from solders.pubkey import Pubkey
from starlette.requests import ClientDisconnect, Request

from keeper.http.edge.answering import part
from keeper.http.edge.clients import ApiLimits
from keeper.http.edge.forwarding import BODY
from keeper.http.edge.problems import Problem

T = TypeVar("T", bound=msgspec.Struct)

_PATH: Final = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_NAMED: Final = re.compile(r"Object (?P<what>missing required|contains unknown) field `(?P<name>[^`]*)`")
_LONGEST_NAME: Final = 64
_THROWN_AWAY: Final = 64
"""How many times the allowed size is read before the connection is simply cut."""


async def read_json(request: Request, shape: type[T]) -> T:
    """The request's body as a `shape`. Problem when it isn't JSON, too large, too slow, or not that shape."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Problem("unsupported_media_type", "Send the body with Content-Type: application/json.")
    body = await _read_body(request, part(request, ApiLimits))
    request.scope["state"][BODY] = body
    return decode(body, shape)


def has_body(request: Request) -> bool:
    """Whether there is a body, of whatever length."""
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


async def _read_body(request: Request, limits: ApiLimits) -> bytes:
    """The body, or a Problem. What is too large is read on for a while and thrown away: a connection that is closed
    with unread bytes in it is reset, and the answer that says why is lost with it.
    """
    body, read = bytearray(), 0
    try:
        with anyio.fail_after(limits.body_timeout_s):
            async for chunk in request.stream():
                read += len(chunk)
                if read <= limits.body_bytes:
                    body += chunk
                elif read > _THROWN_AWAY * limits.body_bytes:
                    break
    except TimeoutError:
        raise Problem(
            "body_timeout",
            f"The body did not arrive within {limits.body_timeout_s:g} s.",
            headers={"Connection": "close"},
        ) from None
    except ClientDisconnect:
        raise Problem("malformed_request", "The connection was closed before the body's end.") from None
    if read > limits.body_bytes:
        raise Problem("body_too_large", f"A body may have {limits.body_bytes} bytes.", headers={"Connection": "close"})
    return bytes(body)


def decode(body: bytes, shape: type[T]) -> T:
    """Bytes as a `shape`, or a Problem that names the field at fault."""
    try:
        json.loads(body, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
        return msgspec.json.decode(body, type=shape, strict=True)
    except msgspec.ValidationError as e:
        raise _problem_of(str(e)) from None
    except (ValueError, RecursionError):
        # json's and msgspec's syntax errors, bad UTF-8, integers of thousands of digits, thousands of brackets.
        raise Problem("malformed_json", "The body is not a valid JSON document (RFC 8259, UTF-8).") from None


def read_parameters(request: Request, shape: type[msgspec.Struct], *, any_query: bool) -> dict[str, Any]:
    """The parameters of a request's path and query. What is not in `shape` is refused, because a misspelt filter would
    answer another question, or ignored with `any_query`.
    """
    given: dict[str, str] = dict(request.path_params)
    for name, value in request.query_params.multi_items():
        if any_query and (name in given or name not in shape.__struct_fields__):
            continue
        if name in given:
            raise Problem("invalid_field", f"The parameter {_shown(name)} occurs more than once.", field=_shown(name))
        given[name] = value
    try:
        return msgspec.structs.asdict(msgspec.convert(given, shape, strict=False, dec_hook=_address))
    except msgspec.ValidationError as e:
        # All parameters are text: what it is says nothing, what it should look like does.
        raise _problem_of(str(e).replace(", got `str`", "")) from None


def _address(_: type, text: str) -> Pubkey:
    """The one type of parameters that msgspec does not know."""
    try:
        return Pubkey.from_string(text)
    except ValueError:
        raise ValueError("Expected a base58 address") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen = dict(pairs)
    if len(seen) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Problem("duplicate_key", f"The key {_shown(twice)} occurs more than once.", field=_shown(twice))
    return seen


def _refuse_constant(name: str) -> None:
    raise Problem("malformed_json", f"{name} is not a JSON number.")


def _problem_of(message: str) -> Problem:
    path = _PATH.search(message)
    where = path["path"].lstrip(".") if path else ""
    text = message[: path.start()] if path else message
    named = _NAMED.match(text)
    if named:
        field = _shown(f"{where}.{named['name']}" if where else named["name"])
        if named["what"] == "missing required":
            return Problem("missing_field", f"The field {field} is required.", field=field)
        return Problem("unknown_field", f"There is no field {field}.", field=field)
    if not where:
        return Problem("invalid_field", f"The body is not as described: {_hint(text)}.")
    return Problem(
        "invalid_field", f"The field {_shown(where)} is not as described: {_hint(text)}.", field=_shown(where)
    )


def _hint(text: str) -> str:
    if "got `float`" in text or ("got `int`" in text and "`str`" in text and "int |" not in text):
        return 'numbers with decimals are sent as strings, such as "95.5"'
    return text.rstrip(".").replace("`", "").replace("Expected", "expected")


def _shown(name: str) -> str:
    """A name from outside, fit to be shown: printable and not long."""
    clean = "".join(c if c.isprintable() else "?" for c in name)
    return clean if len(clean) <= _LONGEST_NAME else clean[:_LONGEST_NAME] + "..."
