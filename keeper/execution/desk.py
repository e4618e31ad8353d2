"""What others ask of the keeper's present knowledge: the book, the markets, their prices. It never waits.

Also while another keeper works, on all markets or on some: only why an order of those is left alone is that one's to
say, which the journal tells.
"""

from __future__ import annotations

import itertools
import time

from solders.pubkey import Pubkey

from keeper.domain.orders import Market, Order, OrderType
from keeper.domain.prices import Crank, Fires, Level, Price
from keeper.execution.lookout import Lookout
from keeper.execution.orders import Orders
from keeper.triggers.cranks import Refusal, Refused


class Desk:
    """Answers the API, health and the metrics, of all markets. `orders` are the records of a keeper that works, and
    `share` the markets that it works on; None for all.
    """

    def __init__(self, lookout: Lookout, orders: Orders | None = None, share: frozenset[Pubkey] | None = None) -> None:
        self._lookout = lookout
        self._orders = orders
        self._share = share
        self._decision = lookout.decision
        self._book = lookout.decision.book

    def order(self, address: Pubkey) -> Order | None:
        """The order as the book holds it; None when it does not rest there."""
        return self._book.get(address)

    def why(self, address: Pubkey) -> str:
        """Why it is not executed now; empty when the book does not hold it, and when another keeper knows."""
        order = self._book.get(address)
        if order is None or self._orders is None or (self._share is not None and order.market not in self._share):
            return ""
        record = self._orders.get(address)
        blocked = None if record is None else record.sentence(order, time.monotonic())
        return self._decision.why(order, blocked, self._lookout.now_s())

    def market(self, key: str | Pubkey) -> Market | None:
        """A market by symbol or address."""
        if isinstance(key, Pubkey):
            return self._lookout.markets.get(key)
        return next((market for market in self._lookout.markets.values() if market.symbol == key), None)

    def markets(self) -> list[Market]:
        """Every market seen."""
        return sorted(self._lookout.markets.values(), key=lambda market: market.symbol)

    def price(self, market: Pubkey) -> Price | None:
        """The newest price, however old."""
        return self._decision.prices.read(market)

    def chain_time_s(self) -> float | None:
        """The chain's clock, unix seconds; None before it was first seen."""
        return self._lookout.clock.now(time.monotonic())

    def executing(self, market: Market) -> tuple[bool, str]:
        """Whether the market's orders are executed now, and if not, why."""
        held = self._decision.held(market.address)
        if held is not None:
            return False, held
        price = self._decision.prices.read(market.address)
        limit = self._decision.rules.max_price_age_s
        if price is None:
            return False, "it never had a price"
        now_s = self._lookout.now_s()
        age = price.age_s(now_s)
        if age <= limit:
            return True, ""
        found = self._decision.crank(market.address, now_s)
        if isinstance(found, Crank):
            return True, ""
        why = "" if found is None else f", and its feed's is not posted: {found.sentence}"
        return False, f"its price is {age:.0f} s old, and the limit is {limit:g} s{why}"

    def unposted(self) -> dict[str, Refused]:
        """The markets, by symbol, whose own price is too old to decide, and of whose feed none is posted, and why."""
        cranks, now_s = self._decision.cranks, self._lookout.now_s()
        limit, found = self._decision.rules.max_price_age_s, dict[str, Refused]()
        for address in () if cranks is None else cranks.markets:
            market, price = self._lookout.markets.get(address), self._decision.prices.read(address)
            if market is not None and (price is None or price.age_s(now_s) > limit):
                said = self._decision.crank(address, now_s)
                if isinstance(said, Refusal):
                    found[market.symbol] = said.reason
        return found

    def all_stale(self) -> bool:
        """Whether there are active markets with a price, and each of those prices is too old to act on, and none is
        about to be posted.
        """
        now_s, limit = self._lookout.now_s(), self._decision.rules.max_price_age_s
        prices = [self._decision.prices.read(m.address) for m in self._lookout.markets.values() if m.is_active]
        known = [price for price in prices if price is not None]
        if not known or min(price.age_s(now_s) for price in known) <= limit:
            return False
        return not any(isinstance(self._decision.crank(price.market, now_s), Crank) for price in known)

    def counts(self) -> dict[tuple[Pubkey, OrderType], int]:
        """How many orders rest, by market and type."""
        return self._book.counts()

    def levels(self, market: Pubkey, fires: Fires, n: int) -> list[Level]:
        """The first `n` triggers that a falling or a rising price would meet, the nearest first."""
        return list(itertools.islice(self._book.levels(market, fires), n))
