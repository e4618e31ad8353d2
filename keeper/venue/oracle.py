"""Prices by asking, for when they are not pushed: one ask serves all readers for a few seconds.

The oracle's price lives in each market's account, and the watch's subscription pushes every change of it. While no
socket brings news the keeper asks instead, so that a dead socket makes it slower, not blind. However many readers
want a price, there is one call in the air, for all markets together, and its answer counts for `ttl_s`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import anyio
from solders.pubkey import Pubkey

from keeper.domain.errors import ChainError, MalformedAccount
from keeper.domain.events import MarketSeen
from keeper.domain.intake import Intake
from keeper.solana.client import PROCESSED, ChainClient
from keeper.solana.watch import ProgramWatch
from keeper.venue.venue import Venue


class MarketPull:
    """Asks for the markets' accounts and reports them to `intake`, like the watch does, with the context's slot.

    `markets` gives the addresses to ask for; `asked` is told of each call, for the metric.
    """

    def __init__(
        self,
        client: ChainClient,
        venue: Venue,
        markets: Callable[[], Iterable[Pubkey]],
        intake: Intake[Any],
        asked: Callable[[], None],
        *,
        ttl_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._venue = venue
        self._markets = markets
        self._intake = intake
        self._asked = asked
        self._ttl_s = ttl_s
        self._clock = clock
        self._lock = anyio.Lock()
        self._answered_at = float("-inf")

    def __repr__(self) -> str:
        return f"MarketPull(ttl_s={self._ttl_s:g})"

    async def ensure(self) -> bool:
        """Make sure that the prices are at most `ttl_s` old news; whether they are.

        Readers that come while a call is in the air wait for that call. A failed call is not remembered: the
        next reader asks again.
        """
        async with self._lock:
            if self._clock() - self._answered_at <= self._ttl_s:
                return True
            addresses = list(self._markets())
            if not addresses:
                return True
            self._asked()
            try:
                slot, accounts = await self._client.accounts(addresses, commitment=PROCESSED)
            except ChainError:
                return False
            received = time.monotonic_ns()
            for account in accounts:
                try:
                    market = self._venue.market(account, slot)
                except MalformedAccount:
                    continue  # the watch's list of markets reports it
                if market is not None:
                    self._intake.on_event(MarketSeen(market, received))
            self._answered_at = self._clock()
            return True


class PullWhenSilent:
    """Asks for prices while no socket brings news."""

    def __init__(self, pull: MarketPull, watches: Sequence[ProgramWatch], *, silent_s: float) -> None:
        self._pull = pull
        self._watches = watches
        self._silent_s = silent_s

    async def look(self) -> None:
        """One look: nothing to do while any socket was heard of lately."""
        now = time.monotonic()
        heard = (w.health.last_heard_at for w in self._watches if w.health.connected)
        if not any(at is not None and now - at <= self._silent_s for at in heard):
            await self._pull.ensure()
