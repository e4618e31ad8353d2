"""The decision: facts in, actions out. It alone knows the book, the prices and the circuit breaker at once.

Every method takes the time from its caller and returns at once; nothing here waits. `now_s` is the chain's clock
in unix seconds (`prices.ChainClock`), and judges how old a price is. `at_ns` is `time.monotonic_ns` when the news
arrived, and goes into the actions, for latency to be measured from. Expiry is judged by sightings of the chain's
clock alone (`on_time`), not by estimates of it: an order may be filled up to its last second.

Whether an order may be acted on is not decided here: an order of which the book watches less than everything is left
alone. Whoever carries out an action has the book watch less of its order in the same step (`keeper.execution.orders`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from solders.pubkey import Pubkey

from keeper.domain.actions import Action, ExecuteOrder, RatchetStop, RecordExpired
from keeper.domain.events import ChainTime, MarketSeen
from keeper.domain.orders import REVISION_0_2, Order, OrderType
from keeper.domain.prices import Crank, Price
from keeper.triggers.book import Book
from keeper.triggers.conditions import trigger_of
from keeper.triggers.cranks import CrankRules, Cranks, Refusal
from keeper.triggers.explain import explain
from keeper.triggers.feeds import Feeds
from keeper.triggers.prices import Breaker, BreakerRules, PriceCache
from keeper.triggers.watchlist import Watched

_EXPIRY: Final = Watched.EXPIRY
_EVERYTHING: Final = Watched.EVERYTHING
_TRAILING_STOP: Final = OrderType.TRAILING_STOP


@dataclass(frozen=True, slots=True)
class Rules:
    """What the decision may act on.

    `executable` are the types that the program's revision executes. A price older than `max_price_age_s` decides
    nothing; the program refuses above 300 s. A trailing stop is moved in steps of at least `trailing_step_ppm` of
    the stop. `breaker` None means that no jump pauses a market. `max_actions` bounds how many actions one call
    returns, so that a burst does not hold up the caller's event loop: 15 to 40 us each. None means no bound.
    `max_deviation_ppm` is how far a market's feed and its own price may be apart (`Feeds`); None: no market names one.
    `crank`: of which markets the keeper posts the price; None: of none. It takes feeds.
    """

    executable: frozenset[OrderType] = REVISION_0_2
    max_price_age_s: float = 60.0
    trailing_step_ppm: int = 1_000
    breaker: BreakerRules | None = field(default_factory=BreakerRules)
    max_actions: int | None = None
    max_deviation_ppm: int | None = None
    crank: CrankRules | None = None


class Decision:
    """What the newest facts call for, and why they do not call for an order's execution."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.book = Book(rules.executable, rules.trailing_step_ppm)
        self.prices = PriceCache()
        self.breaker = None if rules.breaker is None else Breaker(rules.breaker)
        self.feeds: Feeds | None = None
        self.cranks: Cranks | None = None
        if rules.max_deviation_ppm is not None:
            crank = rules.crank
            apart = {} if crank is None else {Pubkey(each): crank.max_deviation_ppm for each, _ in crank.feeds}
            self.feeds = Feeds(rules.max_deviation_ppm, rules.max_price_age_s, apart)
            self.cranks = None if crank is None else Cranks(crank, self.feeds)
        self._chain_time_s = 0.0
        self._market_slots: dict[Pubkey, int] = {}
        self._inactive: set[Pubkey] = set()

    def __repr__(self) -> str:
        return f"Decision({self.book!r}, {self.prices!r}, {self.breaker!r}, inactive={len(self._inactive)})"

    # -- facts

    def on_market(self, seen: MarketSeen) -> bool:
        """A market account was read, and its price with it. False when a newer reading is known: nothing to review."""
        market = seen.market
        address, slot = market.address, market.slot
        if slot < self._market_slots.get(address, -1):
            return False
        self._market_slots[address] = slot
        if market.is_active:
            self._inactive.discard(address)
        else:
            self._inactive.add(address)
        price = Price(address, market.last_oracle_price_1e6, slot, market.last_oracle_update_s)
        if self.prices.offer(price) and self.breaker is not None:
            self.breaker.offer(price)
        return True

    def on_feed(self, market: Pubkey, price: Price | None) -> bool:
        """A market's feed was read; without a price that is any good, with None. False when that is nothing new."""
        if self.feeds is None:
            return False
        return self.feeds.forget(market) if price is None else self.feeds.offer(price)

    def on_time(self, time: ChainTime) -> list[Action]:
        """The chain's clock was sighted: orders that are past their expiry by it, the longest past first, at most
        `max_actions`. The rest is left to the next sighting.
        """
        self._chain_time_s = max(self._chain_time_s, time.unix_time_s)
        return [RecordExpired(order) for order in self.book.expired(self._chain_time_s, self.rules.max_actions)]

    # -- the decision itself

    def review(self, market: Pubkey, now_s: float, at_ns: int) -> list[Action]:
        """What the market's present price calls for, at most `max_actions`: then more may be left for another call.
        Touches only the orders that the price triggers.
        """
        if self.held(market) is not None:
            return []
        own = self.prices.fresh(market, now_s, self.rules.max_price_age_s)
        price, crank = own, None
        if self.feeds is not None:
            price, crank = self._beside_feed(market, own, now_s)
        if price is None:
            return []
        limit = self.rules.max_actions
        orders = self.book.crossed(market, price.price_1e6, limit)
        actions: list[Action] = []
        for order in orders:
            expired = order.expires_at and order.expired_at(int(self._chain_time_s))
            if expired:
                actions.append(RecordExpired(order))
            elif crank is None:
                actions.append(ExecuteOrder(order, price, at_ns))
            else:
                actions.append(self._cranked(order, crank, own, at_ns))
        if own is not None and len(orders) != limit:
            left = None if limit is None else limit - len(orders)
            # The program moves a stop by the market's own price. One that moves a stop can't meet it, but another can.
            met = () if price is own else {order.address for order in orders}
            for order, new_stop_1e6 in self.book.ratchets(market, own.price_1e6, left):
                if order.address not in met:
                    actions.append(RatchetStop(order, own, new_stop_1e6, at_ns))
        return actions

    def look_at(self, order: Order, now_s: float, at_ns: int) -> Action | None:
        """What the present facts call for, for one order that has just begun to rest or has changed."""
        if order.expires_at and order.expired_at(int(self._chain_time_s)):
            return RecordExpired(order) if self.book.watched(order.address) <= _EXPIRY else None
        own = self.prices.fresh(order.market, now_s, self.rules.max_price_age_s)
        price, crank = own, None
        if self.feeds is not None:
            price, crank = self._beside_feed(order.market, own, now_s)
        if price is None:
            return None
        # The price first: it calls for nothing nearly every time, and is the cheapest to ask.
        action = self._action(order, price, own, crank, at_ns)
        if action is None or self.book.watched(order.address) is not _EVERYTHING:
            return None
        return None if self.held(order.market) is not None else action

    def _action(self, order: Order, price: Price, own: Price | None, crank: Crank | None, at_ns: int) -> Action | None:
        if self.book.meets(order, price.price_1e6):
            return ExecuteOrder(order, price, at_ns) if crank is None else self._cranked(order, crank, own, at_ns)
        if order.order_type is not _TRAILING_STOP or own is None:
            return None
        new_stop_1e6 = self.book.ratchet(order, own.price_1e6)
        return None if new_stop_1e6 is None else RatchetStop(order, own, new_stop_1e6, at_ns)

    def _beside_feed(self, market: Pubkey, own: Price | None, now_s: float) -> tuple[Price | None, Crank | None]:
        """Which price decides, `own` being the market's while it is fresh, and what is posted where that does not do. A
        market whose price the keeper posts is decided by its feed only where that may be posted. (`held` says whether
        the two are too far apart.)
        """
        assert self.feeds is not None
        if self.cranks is None or market not in self.cranks:
            return None if own is None else self.feeds.fresher(own, now_s), None
        found = self.cranks.judge(market, self.prices.read(market), now_s, fresh=own is not None)
        return (found.price, found) if isinstance(found, Crank) else (own, None)

    def _cranked(self, order: Order, crank: Crank, own: Price | None, at_ns: int) -> ExecuteOrder:
        """Nothing is posted where the market's own fresh price does: that is cheaper."""
        met = own is not None and self.book.meets(order, own.price_1e6)
        return ExecuteOrder(order, crank.price, at_ns, None if met else crank)

    # -- questions

    def crank(self, market: Pubkey, now_s: float) -> Crank | Refusal | None:
        """What would be posted to the market now, or why nothing is; None where the keeper never posts a price."""
        if self.cranks is None or market not in self.cranks:
            return None
        own = self.prices.read(market)
        fresh = own is not None and own.age_s(now_s) <= self.rules.max_price_age_s
        return self.cranks.judge(market, own, now_s, fresh=fresh)

    def held(self, market: Pubkey) -> str | None:
        """Why nothing in this market is acted on; None when it may be."""
        # An empty set would still have the address hashed.
        if self._inactive and market in self._inactive:
            return "the market is inactive"
        jumped = None if self.breaker is None else self.breaker.reason(market)
        if jumped is not None or self.feeds is None:
            return jumped
        return self.feeds.dispute(self.prices.read(market), self._chain_time_s)

    def markets(self) -> list[Pubkey]:
        """Every market that was read."""
        return list(self._market_slots)

    def why(self, order: Order, blocked: str | None, now_s: float) -> str:
        """Why this order is not executed now, as a sentence for its owner; `blocked` is what its record says."""
        found = self.crank(order.market, now_s)
        return explain(
            order,
            blocked=blocked,
            trigger=trigger_of(order, self.rules.executable),
            price=found.price if isinstance(found, Crank) else self.prices.read(order.market),
            now_s=now_s,
            max_price_age_s=self.rules.max_price_age_s,
            held=self.held(order.market),
            unposted=found.sentence if isinstance(found, Refusal) else None,
        )
