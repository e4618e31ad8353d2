"""The decision: facts in, actions out. It alone knows the book, the prices and the brakes at once.

Every method takes the time from its caller and returns at once; nothing here waits. `now_s` is the chain's clock
in unix seconds (`prices.ChainClock`), and judges how old a price is. `at_ns` is `time.monotonic_ns` when the news
arrived, and goes into the actions, for latency to be measured from. Expiry is judged by sightings of the chain's
clock alone (`on_time`), not by estimates of it: an order may be filled up to its last second.

An action suspends its order, so that there is one live attempt at a time, until the executor says how it went:
`release` (it rests again) or `forget` (nothing more will come of it). A ratchet is an attempt like any other, so
an order is never moved and executed at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from solders.pubkey import Pubkey

from keeper.domain.actions import Action, ExecuteOrder, RatchetStop, RecordExpired
from keeper.domain.events import ChainTime, MarketSeen, OrderGone, OrderSeen
from keeper.domain.orders import Order, OrderType
from keeper.domain.prices import Price
from keeper.triggers.book import Book, Change, Posture
from keeper.triggers.breaker import Breaker, BreakerRules
from keeper.triggers.conditions import REVISION_0_2, trigger_of
from keeper.triggers.explain import explain
from keeper.triggers.loading import Loading
from keeper.triggers.prices import PriceCache
from keeper.triggers.waiting import Waiting


@dataclass(frozen=True, slots=True)
class Rules:
    """What the decision may act on.

    `executable` are the types that the program's revision executes. A price older than `max_price_age_s` decides
    nothing; the program refuses above 300 s. A trailing stop is moved in steps of at least `trailing_step_ppm` of
    the stop. `breaker` None means that no jump pauses a market. `max_actions` bounds how many actions one call
    returns, so that a burst does not hold up the caller's event loop: 15 to 40 us each; the rest comes from
    `carry_on`. None means no bound.
    """

    executable: frozenset[OrderType] = REVISION_0_2
    max_price_age_s: float = 60.0
    trailing_step_ppm: int = 1_000
    breaker: BreakerRules | None = field(default_factory=BreakerRules)
    max_actions: int | None = None


_TO_LOOK_AT: Final = (Change.CHANGED, Change.NEW)
_ARMED: Final = Posture.ARMED
_PARKED: Final = Posture.PARKED
_TRAILING_STOP: Final = OrderType.TRAILING_STOP


class Decision:
    """Which orders to act on, and why not the others."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.book = Book(rules.executable, rules.trailing_step_ppm)
        self.prices = PriceCache()
        self.breaker = None if rules.breaker is None else Breaker(rules.breaker)
        self._chain_time_s = 0.0
        self._market_slots: dict[Pubkey, int] = {}
        self._inactive: set[Pubkey] = set()
        self._holds: dict[Pubkey, str] = {}
        self._global_hold: str | None = None
        self._waiting = Waiting()
        self._unfinished: dict[Pubkey, int] = {}  # markets with more to act on, and the at_ns of their news

    def __repr__(self) -> str:
        return (
            f"Decision({self.book!r}, {self.prices!r}, {self.breaker!r}, waiting={len(self._waiting)}, "
            f"inactive={len(self._inactive)}, held={len(self._holds)}, global_hold={self._global_hold!r})"
        )

    # -- facts

    def on_order(self, seen: OrderSeen, now_s: float, at_ns: int) -> list[Action]:
        """An order account was read. One that arrives already met by a fresh price is acted on at once."""
        order = seen.order
        change = self.book.upsert(order)
        if change in _TO_LOOK_AT:
            return self._look_at(order, now_s, at_ns)
        if change is Change.GONE:
            self._waiting.drop(order.address)
        return []

    def load(self, orders: Iterable[Order]) -> int:
        """Take in many orders without acting on any: a snapshot at the start. How many are known afterwards.

        The next price of each market acts on those that are met; `review` does it for a price known already.
        """
        return self.book.load(orders)

    def loading(self) -> Loading:
        """The same in parts, from the fields of the accounts (`keeper.triggers.loading`)."""
        return self.book.loading()

    def on_gone(self, gone: OrderGone) -> list[Action]:
        """An order account does not exist any more."""
        if self.book.remove(gone.address, gone.slot):
            self._waiting.drop(gone.address)
        return []

    def on_market(self, seen: MarketSeen, now_s: float) -> list[Action]:
        """A market account was read, and its price with it. Costs a few microseconds when nothing triggers."""
        market = seen.market
        address = market.address
        if market.slot < self._market_slots.get(address, -1):
            return []
        self._market_slots[address] = market.slot
        if market.is_active:
            self._inactive.discard(address)
        else:
            self._inactive.add(address)
        price = Price(address, market.last_oracle_price_1e6, market.slot, market.last_oracle_update_s)
        if self.prices.offer(price) and self.breaker is not None:
            self.breaker.offer(price)
        return self.review(address, now_s, seen.received_at_ns)

    def on_time(self, time: ChainTime) -> list[Action]:
        """The chain's clock was sighted. Orders past their expiry are recorded, once each, and not watched again.

        Those beyond `max_actions` are left to the next sighting.
        """
        self._chain_time_s = max(self._chain_time_s, time.unix_time_s)
        expired = self.book.expired(self._chain_time_s, self.rules.max_actions)
        for order in expired:
            self._expire(order)
        return [RecordExpired(order) for order in expired]

    # -- how attempts went

    def suspend(self, address: Pubkey) -> None:
        """Act on this order no more until `release`: an attempt at it is open, or its user's cancel is.

        It may be unknown yet: an attempt found in the journal at a restart is suspended before its order is read.
        """
        self._waiting.drop(address)
        self.book.suspend(address)

    def release(self, address: Pubkey, *, after_price_slot: int | None, now_s: float, at_ns: int) -> list[Action]:
        """An attempt ended and the order rests again; it is evaluated at once.

        With `after_price_slot`, only a price from a later slot counts: the one that the chain itself had in that
        slot did not do, and neither will an older one, so that a refusal never makes a storm. Until such a price
        is known the order waits for it, not for a timer.
        """
        self._waiting.drop(address)
        self.book.resume(address)
        order = self.book.get(address)
        if order is None:
            return []
        if after_price_slot is not None:
            price = self.prices.read(order.market)
            if price is None or price.slot <= after_price_slot:
                self.book.park(address)
                self._waiting.put(order.market, address, after_price_slot)
        return self._look_at(order, now_s, at_ns)

    def forget(self, address: Pubkey, slot: int) -> None:
        """Nothing more will come of this order: as of `slot` its account is not pending, or not there.

        News from a later slot can bring it back, when a fork dropped what ended it.
        """
        self._waiting.drop(address)
        self.book.close(address, slot)
        self.book.resume(address)

    # -- brakes

    def hold(self, market: Pubkey, reason: str) -> None:
        """Act on nothing in this market until `open`."""
        self._holds[market] = reason

    def open(self, market: Pubkey, now_s: float, at_ns: int) -> list[Action]:
        """End a market's hold, and its breaker's pause. Its present price is evaluated again."""
        self._holds.pop(market, None)
        if self.breaker is not None:
            self.breaker.reset(market)
        return self.review(market, now_s, at_ns)

    def hold_all(self, reason: str) -> None:
        """Act on nothing at all until `open_all`."""
        self._global_hold = reason

    def open_all(self, now_s: float, at_ns: int) -> list[Action]:
        """End the global hold; the holds of single markets stay. Every present price is evaluated again."""
        self._global_hold = None
        self._unfinished |= dict.fromkeys(self._market_slots, at_ns)
        return self.carry_on(now_s)

    def held(self, market: Pubkey) -> str | None:
        """Why nothing in this market is acted on; None when it may be."""
        if self._global_hold is not None:
            return self._global_hold
        # An empty set would still have the address hashed.
        if self._inactive and market in self._inactive:
            return "the market is inactive"
        reason = self._holds.get(market) if self._holds else None
        if reason is None and self.breaker is not None:
            reason = self.breaker.reason(market)
        return reason

    # -- the decision itself

    @property
    def unfinished(self) -> bool:
        """Whether `max_actions` cut an answer short, so that `carry_on` is to be called again."""
        return bool(self._unfinished)

    def carry_on(self, now_s: float) -> list[Action]:
        """The next actions of answers that were cut short, by the price that each market has now."""
        actions: list[Action] = []
        for market, at_ns in list(self._unfinished.items()):
            actions += self.review(market, now_s, at_ns)
            if self.rules.max_actions is not None and len(actions) >= self.rules.max_actions:
                break
        return actions

    def review(self, market: Pubkey, now_s: float, at_ns: int) -> list[Action]:
        """Everything that the market's present price calls for. Touches only the orders that it triggers."""
        self._unfinished.pop(market, None)
        price = self.prices.fresh(market, now_s, self.rules.max_price_age_s)
        if price is None or self.held(market) is not None:
            return []
        limit = self.rules.max_actions
        woken = self._waiting.due(market, price.slot, limit)
        for address in woken:
            self.book.resume(address)
        orders = self.book.crossed(market, price.price_1e6, limit)
        left = None if limit is None else limit - len(orders)
        ratchets = self.book.ratchets(market, price.price_1e6, left)
        actions: list[Action] = [ExecuteOrder(order, price, at_ns) for order in orders]
        actions += [RatchetStop(order, price, new_stop_1e6, at_ns) for order, new_stop_1e6 in ratchets]
        for action in actions:
            self.book.suspend(action.order.address)
        if limit in (len(woken), len(actions)):
            self._unfinished[market] = at_ns
        return actions

    def why(self, address: Pubkey, now_s: float) -> str:
        """Why this order is not executed now, as a sentence for its owner."""
        order = self.book.get(address)
        if order is None:
            return "The keeper does not know this order as a pending one."
        return explain(
            order,
            posture=self.book.posture(address),
            trigger=trigger_of(order, self.rules.executable),
            price=self.prices.read(order.market),
            now_s=now_s,
            max_price_age_s=self.rules.max_price_age_s,
            held=self.held(order.market),
            after_price_slot=self._waiting.slot(address),
        )

    # -- inside

    def _look_at(self, order: Order, now_s: float, at_ns: int) -> list[Action]:
        """What the present price calls for, for one order that has just begun to rest or has changed."""
        if order.expires_at and order.expired_at(int(self._chain_time_s)):
            if self.book.posture(order.address) <= _PARKED:
                self._expire(order)
                return [RecordExpired(order)]
            return []
        price = self.prices.fresh(order.market, now_s, self.rules.max_price_age_s)
        if price is None:
            return []
        # The price first: it calls for nothing nearly every time, and is the cheapest to ask.
        action = self._action(order, price, at_ns)
        if action is None or self.book.posture(order.address) is not _ARMED or self.held(order.market) is not None:
            return []
        self.book.suspend(order.address)
        return [action]

    def _action(self, order: Order, price: Price, at_ns: int) -> Action | None:
        if self.book.meets(order, price.price_1e6):
            return ExecuteOrder(order, price, at_ns)
        if order.order_type is not _TRAILING_STOP:
            return None
        new_stop_1e6 = self.book.ratchet(order, price.price_1e6)
        return None if new_stop_1e6 is None else RatchetStop(order, price, new_stop_1e6, at_ns)

    def _expire(self, order: Order) -> None:
        self._waiting.drop(order.address)
        self.book.expire(order.address)
