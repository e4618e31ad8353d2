"""An RPC answer's parts, or MalformedReply: whatever is wrong with an answer's shape stays inside its call."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from solders.hash import ParseHashError

from keeper.domain.errors import MalformedReply


def context_slot(answer: Any) -> int:
    """The slot as of which a node answered."""
    return number(field(field(answer, "context"), "slot"))


def number(value: Any) -> int:
    """An unsigned 64-bit integer, as every slot, height and balance is."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64:
        return value
    raise MalformedReply(f"a reply has {str(value)[:40]!r} where a number belongs")


@contextmanager
def shape(what: str) -> Iterator[None]:
    """Whatever is wrong with an answer's shape stays inside the call that it answers."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError, ParseHashError, struct.error) as e:
        raise MalformedReply(f"{what} in an unknown shape ({type(e).__name__})") from None


def field(answer: Any, name: str) -> Any:
    """A field that an answer must have."""
    if not isinstance(answer, dict) or name not in answer:
        raise MalformedReply(f"a reply lacks {name}")
    return answer[name]
