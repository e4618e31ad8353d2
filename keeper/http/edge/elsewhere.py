"""Which keeper works on a market, where several share the markets; and how one proves to another for whom it asks."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode

from solders.pubkey import Pubkey
from starlette.types import Scope

from keeper.journal import Holder, market_lease, url_of

FORWARDED: Final = "Keeper-Forwarded"
"""The header of a request that came by way of another keeper."""
CHARGED: Final = "charged"
"""In a request's state: its client's limits were charged by the keeper that it asked."""
REQUEST_ID: Final = "X-Request-Id"
"""The header, and the key under which a request's state has it."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Another keeper works on the market: its name, and where its API is. Both are empty while none does, and `url`
    while it is not known.
    """

    holder: str
    url: str


WhereElse = Callable[[Pubkey], Elsewhere | None]
"""Who works on a market; None when this keeper does."""


def elsewhere(leases: Callable[[], Iterable[Holder]], me: str, share: frozenset[Pubkey] | None) -> WhereElse:
    """Who works on each market, for the keeper `me`. It works on `share` for as long as this is asked: on all markets
    when that is None, and on none when it is empty, as it is while it stands by. `leases` are those of a moment ago.
    """

    def where(market: Pubkey) -> Elsewhere | None:
        if share is None or market in share:
            return None
        known = tuple(leases())
        lease = market_lease(known, str(market))
        if lease is None or lease.holder == me:
            # One that this keeper has just taken is nobody's until it begins to work on it.
            return Elsewhere("", "")
        return Elsewhere(lease.holder, url_of(known, lease.holder))

    return where


class Seal:
    """Marks a request as forwarded by a keeper that has the same key, and says for which client: its limits were
    charged where it asked. Whoever has not the key can say neither, only that a request is not to be forwarded again.

    It holds for one request: its method, its target and its id. It needs no clock, because keepers' clocks may differ.
    """

    def __init__(self, key: bytes) -> None:
        self.__key = key

    def __repr__(self) -> str:
        return "Seal()"

    def mark(self, client: str, method: str, target: bytes, request_id: str) -> str:
        """The header's value."""
        return urlencode({"for": client, "seal": self._seal(client, method, target, request_id)})

    def client(self, mark: str, method: str, target: bytes, request_id: str) -> str | None:
        """For whom another keeper asks; None when the mark is not one of a keeper's for this request."""
        parts = dict(parse_qsl(mark, keep_blank_values=True))
        client, seal = parts.get("for", ""), parts.get("seal", "")
        expected = self._seal(client, method, target, request_id)
        return client if hmac.compare_digest(seal.encode(), expected.encode()) else None

    def _seal(self, client: str, method: str, target: bytes, request_id: str) -> str:
        # Each part with its length, so that no two requests are the same text.
        parts = (client.encode(), method.encode(), target, request_id.encode())
        text = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self.__key, text, hashlib.sha256).hex()


def target_of(scope: Scope) -> bytes:
    """The path and the query of a request, as they came."""
    path, query = scope.get("raw_path") or scope["path"].encode(), scope["query_string"]
    return bytes(path + b"?" + query if query else path)


UNSEALED: Final = urlencode({"for": ""})
"""The header's value where keepers have no seal."""
