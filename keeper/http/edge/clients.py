"""Who calls, and how much one may: API tokens, the API's bounds, and a token bucket for each client.

Of a token the keeper knows only its SHA-256; a bearer of one is recognised in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from keeper.http.edge.connections import ConnectionLimits, network_of
from keeper.http.edge.problems import Problem
from keeper.venue.relay_checks import RelayLimits

CLIENT: Final = "client"
"""In a request's state: whose it is, by `client_of`."""
_MOST_CLIENTS: Final = 10_000
_SCHEME: Final = "bearer "
_LONGEST: Final = 512


class Tokens:
    """Who may call, by the hash of their token: 64 hexadecimal digits in lower case, and a name for each."""

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self._names = {digest.encode(): name for digest, name in (names or {}).items()}

    def __repr__(self) -> str:
        return f"Tokens({sorted(set(self._names.values()))})"

    def __bool__(self) -> bool:
        return bool(self._names)

    def name_of(self, authorization: str | None) -> str | None:
        """The name behind an Authorization header; None when it holds no token that is known."""
        if authorization is None or not authorization.lower().startswith(_SCHEME) or len(authorization) > _LONGEST:
            return None
        digest = hashlib.sha256(authorization[len(_SCHEME) :].strip().encode()).hexdigest().encode()
        found = None
        # Every hash is compared, so that the time says nothing about which one it was.
        for known, name in self._names.items():
            if hmac.compare_digest(known, digest):
                found = name
        return found


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """Bounds that protect the keeper from its callers, and callers from their tools.

    `requests_per_s` and `burst` are per client (its token, else its address); 0 requests a second means no limit.
    `streams` bounds the open streams and long polls together, `streams_per_client` those of one client. Pages of
    `cors_origins` may call what is public ("*": any). `hosts` are the domains by which requests may come (`Hosts`).
    `stale_price_s` is the age from which the program itself refuses a price, `most_unit_price_micro_lamports` the most
    that a user may bid for a compute unit. `forward_s` is how long another keeper may take to answer what it was given,
    and `forwards` how many requests at once one other keeper is given.
    """

    requests_per_s: float
    burst: int
    streams: int
    streams_per_client: int = 200
    cors_origins: Sequence[str] = ("*",)
    hosts: Sequence[str] = ()
    body_bytes: int = 16 * 1024
    body_timeout_s: float = 10.0
    stale_price_s: float = 300.0
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
    relay: RelayLimits = field(default_factory=RelayLimits)
    most_unit_price_micro_lamports: int = 5_000_000
    forward_s: float = 10.0
    forwards: int = 64


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a request may go on, and the headers that tell its client how it stands (draft-ietf-httpapi-ratelimit
    -headers): the policy, what is left of it now, and after how many seconds there is more.
    """

    refused: Problem | None = None
    headers: tuple[tuple[str, str], ...] = ()


UNLIMITED: Final = Admission()


class Hosts:
    """By which names requests may come: any address, any name without a dot, and these domains; all with `*`.

    A page of a domain whose name server says that it is at 127.0.0.1 is of one origin with a keeper there, by the
    browser's rules, and would read it with its visitor's hands.
    """

    def __init__(self, domains: Sequence[str]) -> None:
        self._domains = frozenset(_without_port(domain.lower()) for domain in domains)

    def __repr__(self) -> str:
        return f"Hosts({sorted(self._domains)})"

    def knows(self, host: str) -> bool:
        """Whether a request with this Host is for us. One without any is: no browser sends such."""
        name = _without_port(host.lower()).rstrip(".")
        if "." not in name or name.endswith(".localhost") or name in self._domains or "*" in self._domains:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _without_port(host: str) -> str:
    return host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]


class Rates:
    """At most `per_s` requests a second from one client in the long run, `burst` at once. 0 a second: no limit.

    The client that was quiet for longest is forgotten first, so that many addresses take a bounded amount of memory.
    """

    def __init__(self, per_s: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = float(max(1, burst))
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        refill_s = math.ceil(self._burst / per_s) if per_s > 0 else 0
        self._policy = f'"default";q={int(self._burst)};w={refill_s}'

    def __repr__(self) -> str:
        return f"Rates({self._per_s:g}/s, burst {self._burst:g}, {len(self._buckets)} clients)"

    def admit(self, client: str) -> Admission:
        """Take a token of the client's, or refuse, with when there is one again."""
        if self._per_s <= 0:
            return UNLIMITED
        now = self._clock()
        tokens, since = self._buckets.pop(client, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._per_s)
        admitted = tokens >= 1.0
        left = tokens - 1.0 if admitted else tokens
        self._buckets[client] = (left, now)
        if len(self._buckets) > _MOST_CLIENTS:
            self._buckets.popitem(last=False)
        wait_s = max(1, math.ceil((1.0 - left) / self._per_s))
        headers = (
            ("RateLimit-Policy", self._policy),
            ("RateLimit", f'"default";r={max(0, int(left))};t={wait_s}'),
        )
        if admitted:
            return Admission(headers=headers)
        return Admission(
            Problem("rate_limited", f"At most {self._per_s:g} requests a second.", retry_after_s=wait_s), headers
        )

    def charge(self, client: str, requests: int) -> None:
        """Take what an admitted request costs beyond one. For what that leaves owing, the client's next ones wait."""
        if client in self._buckets:
            tokens, since = self._buckets[client]
            self._buckets[client] = (tokens - requests, since)


def client_of(address: str, token_name: str | None) -> str:
    """Whose bucket a request takes from. A token counts only when it is known, or anybody could make up new ones."""
    return network_of(address) if token_name is None else f"token:{token_name}"
