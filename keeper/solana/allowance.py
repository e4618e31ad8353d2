"""What the API's users may ask of the nodes: calls of their own, which take nothing from the executions'.

Anybody may call the API, and a node gives a keeper so many calls a second. So users' calls are counted, their failures
are their own, and so are their connections: whatever users do, the executions find the nodes as if nobody had called.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Final

from keeper.domain.errors import RateLimited
from keeper.solana.pool import RpcPool, Seat
from keeper.solana.rpc import BegunBatch, Call, Endpoint, Reply

_ASKS_STILL_S: Final = 2.0
_SHARED: Final = 0.8

ASKING: ContextVar[str] = ContextVar("asking", default="")
"""For whom the present task asks: a client of the API."""


class Allowance:
    """At most `per_s` calls a second in the long run, and what two seconds give at once.

    While several clients ask, each has an equal share, and a fifth is left for whoever comes new: however much some
    ask, one who asks seldom is answered at once.
    """

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._all = (2.0 * per_s, clock())
        self._clients: dict[str, tuple[float, float]] = {}
        """By client: how many calls are left, as of when. Who has not asked for two seconds is not among them."""

    def __repr__(self) -> str:
        return f"Allowance({self._per_s:g}/s, {len(self._clients)} clients)"

    def take(self, client: str, calls: int = 1) -> None:
        """Take calls. RateLimited, with when there are some again, while there are none."""
        now = self._clock()
        mine = self._clients.pop(client, None)
        while self._clients and now - next(iter(self._clients.values()))[1] > _ASKS_STILL_S:
            del self._clients[next(iter(self._clients))]
        others = len(self._clients)
        share = self._per_s if not others else _SHARED * self._per_s / (others + 1)
        mine = _filled(mine or (math.inf, now), share, now)
        self._all = _filled(self._all, self._per_s, now)
        missing_s = max((1.0 - mine[0]) / share, (1.0 - self._all[0]) / self._per_s)
        if missing_s <= 0.0:
            # What is asked at once may overdraw: a later call waits for it.
            mine, self._all = (mine[0] - calls, now), (self._all[0] - calls, now)
        self._clients[client] = mine
        if missing_s > 0.0:
            raise RateLimited("what users may ask of the chain's node is used up", retry_after_s=missing_s)


def _filled(left: tuple[float, float], per_s: float, now: float) -> tuple[float, float]:
    """What is left as of now, when it was so much then; at most what two seconds give, and never less than a call."""
    return min(max(1.0, 2.0 * per_s), left[0] + (now - left[1]) * per_s), now


class UsersPool(RpcPool):
    """The endpoints of `main`, asked for the API's users: within an allowance, on connections of its own.

    Which endpoint is trusted and which comes first is `main`'s to say, and one that rests for the executions rests for
    users. What goes wrong here benches an endpoint for users alone.
    """

    def __init__(
        self,
        main: RpcPool,
        endpoints: Sequence[Endpoint],
        allowance: Allowance,
        *,
        observe: Callable[[str, str, float, str], None] | None = None,
    ) -> None:
        super().__init__(endpoints, main.limits, clock=main._clock, observe=observe)
        self._main = main
        self._allowance = allowance

    def _by_preference(self) -> list[Seat]:
        now, awake, back_at = self._clock(), [], []
        for theirs in self._main._by_preference():
            seat = self._seats[theirs.order]
            until = max(theirs.health.benched_until, seat.health.benched_until)
            if until <= now:
                awake.append(seat)
            back_at.append(until)
        if not awake:
            raise RateLimited("the chain's nodes have no time for users now", retry_after_s=min(back_at) - now)
        return awake

    async def _tried(self, seat: Seat, method: str, params: Sequence[Any], deadline_s: float) -> Any:
        self._allowance.take(ASKING.get())
        return await super()._tried(seat, method, params, deadline_s)

    async def tried_batch(
        self, seat: Seat, calls: Sequence[Call], deadline_s: float, begun: BegunBatch | None = None
    ) -> list[Reply]:
        """See RpcPool: within the allowance."""
        self._allowance.take(ASKING.get(), len(calls))
        return await super().tried_batch(seat, calls, deadline_s, begun)
