"""A token bucket for each client address."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from keeper.http.problems import Problem

_MOST_CLIENTS: Final = 10_000


class Rates:
    """At most `per_s` requests a second from one client in the long run, `burst` at once. 0 a second: no limit.

    The client that was quiet for longest is forgotten first, so that many addresses take a bounded amount of memory.
    """

    def __init__(self, per_s: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = float(max(1, burst))
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __repr__(self) -> str:
        return f"Rates({self._per_s:g}/s, burst {self._burst:g}, {len(self._buckets)} clients)"

    def admit(self, client: str) -> Problem | None:
        """Take a token of the client's; a problem that says when there is one again when there is none."""
        if self._per_s <= 0:
            return None
        now = self._clock()
        tokens, since = self._buckets.pop(client, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._per_s)
        admitted = tokens >= 1.0
        self._buckets[client] = (tokens - 1.0 if admitted else tokens, now)
        if len(self._buckets) > _MOST_CLIENTS:
            self._buckets.popitem(last=False)
        if admitted:
            return None
        wait = math.ceil((1.0 - tokens) / self._per_s)
        return Problem("rate_limited", f"At most {self._per_s:g} requests a second.", retry_after_s=max(1, wait))
