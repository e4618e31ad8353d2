"""What others ask of the keeper's present knowledge: the book, the markets, their prices. It never waits."""

from __future__ import annotations

import itertools
import time

from solders.pubkey import Pubkey

from keeper.domain.orders import Market, Order, OrderType
from keeper.domain.prices import Fires, Level, Price
from keeper.execution.router import Router


class Desk:
    """Answers the API, health and the metrics."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._decision = router.decision
        self._book = router.decision.book

    def order(self, address: Pubkey) -> Order | None:
        """The order as the book holds it; None when it does not rest there."""
        return self._book.get(address)

    def why(self, address: Pubkey) -> str:
        """Why it is not executed now; empty when the book does not hold it."""
        order = self._book.get(address)
        if order is None:
            return ""
        record = self._router.orders.get(address)
        blocked = None if record is None else record.sentence(order, time.monotonic())
        return self._decision.why(order, blocked, self._router.now_s())

    def market(self, key: str | Pubkey) -> Market | None:
        """A market by symbol or address."""
        if isinstance(key, Pubkey):
            return self._router.markets.get(key)
        return next((market for market in self._router.markets.values() if market.symbol == key), None)

    def markets(self) -> list[Market]:
        """Every market seen."""
        return sorted(self._router.markets.values(), key=lambda market: market.symbol)

    def price(self, market: Pubkey) -> Price | None:
        """The newest price, however old."""
        return self._decision.prices.read(market)

    def chain_time_s(self) -> float | None:
        """The chain's clock, unix seconds; None before it was first seen."""
        return self._router.clock.now(time.monotonic())

    def executing(self, market: Market) -> tuple[bool, str]:
        """Whether the market's orders are executed now, and if not, why."""
        held = self._decision.held(market.address)
        if held is not None:
            return False, held
        price = self._decision.prices.read(market.address)
        limit = self._decision.rules.max_price_age_s
        if price is None:
            return False, "it never had a price"
        age = price.age_s(self._router.now_s())
        if age > limit:
            return False, f"its price is {age:.0f} s old, and the limit is {limit:g} s"
        return True, ""

    def all_stale(self) -> bool:
        """Whether there are active markets with a price, and each of those prices is too old to act on."""
        now_s, limit = self._router.now_s(), self._decision.rules.max_price_age_s
        prices = [self._decision.prices.read(m.address) for m in self._router.markets.values() if m.is_active]
        ages = [price.age_s(now_s) for price in prices if price is not None]
        return bool(ages) and min(ages) > limit

    def counts(self) -> dict[tuple[Pubkey, OrderType], int]:
        """How many orders rest, by market and type."""
        return self._book.counts()

    def levels(self, market: Pubkey, fires: Fires, n: int) -> list[Level]:
        """The first `n` triggers that a falling or a rising price would meet, the nearest first."""
        return list(itertools.islice(self._book.levels(market, fires), n))
