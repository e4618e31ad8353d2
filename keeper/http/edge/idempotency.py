"""The Idempotency-Key: a request that is sent twice, because its answer got lost, prepares one order.

The key and a hash of what was asked are kept with the prepared transaction, in the same commit; so a repetition
gets the same answer after a restart too. The hash is over the decoded body in a canonical encoding: another order
of keys or other white space is still the same request.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final
from weakref import WeakValueDictionary

import anyio
import msgspec
from starlette.requests import Request

from keeper.http.edge.problems import Problem
from keeper.http.models import Request as Body

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotency-Replayed"
KEY_HEADER: Final = {
    HEADER: ("1 to 255 characters; a repetition with the same body gets the same answer.", "^[!-~]{1,255}$")
}
REPLAYED_HEADER: Final = {201: {REPLAYED: "`true` when an earlier request with this key had this answer."}}
_KEY: Final = re.compile(r"[!-~]{1,255}")


class KeyedLock:
    """Mutual exclusion among those who name the same key; others don't meet. Waiters get it in the order in which they
    came, and a key's lock lives for as long as somebody holds or waits for it.
    """

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"KeyedLock({len(self._locks)} in use)"

    def of(self, key: str) -> anyio.Lock:
        """The key's lock, for `async with`."""
        return self._locks.setdefault(key, anyio.Lock())


def key_of(request: Request) -> str | None:
    """The request's key, None without one. The draft standard's quotes around it are taken off."""
    values = request.headers.getlist(HEADER)
    if not values:
        return None
    value = values[0].strip()
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = value[1:-1]
    if len(values) > 1 or not _KEY.fullmatch(value):
        raise Problem("invalid_idempotency_key", "Send one key of 1 to 255 printable ASCII characters without spaces.")
    return value


def fingerprint(operation: str, body: Body) -> str:
    """What was asked, as a hash: the operation with its path, and the body."""
    canonical = msgspec.json.encode(body, order="sorted")
    return hashlib.sha256(operation.encode() + b"\0" + canonical).hexdigest()
