"""The decision with the records of its orders, and what the router does between them; no loop, no clock, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from solders.pubkey import Pubkey

from keeper.domain.actions import Action, RecordExpired
from keeper.domain.events import ChainTime, MarketSeen, OrderGone, OrderSeen
from keeper.domain.orders import Order, fields_of
from keeper.execution.orders import Orders, Reason
from keeper.execution.tries import RetryLimits
from keeper.triggers.book import Book, Change
from keeper.triggers.decision import Decision, Rules

LIMITS = RetryLimits(budget=5, first_pause_s=1.0, longest_pause_s=60.0, attempts_per_hour=30)


class Desk:
    """Facts in, the actions that are then under way out."""

    def __init__(self, rules: Rules, decision: Decision | None = None) -> None:
        self.decision = decision or Decision(rules)
        self.book: Book = self.decision.book
        self.prices = self.decision.prices
        self.orders = Orders(self.book, LIMITS)
        self._limit = rules.max_actions
        self._unfinished: dict[Pubkey, int] = {}

    def on_order(self, seen: OrderSeen, now_s: float, at_ns: int) -> list[Action]:
        order = seen.order
        if not order.pending:
            self.book.close(order.address, order.slot)
            self.orders.close(order.address, order.slot)
            return []
        change = self.book.upsert(order)
        if change is Change.STALE:
            return []
        self.orders.seen(order)
        if change is Change.SAME:
            return []
        return self._look([order.address], now_s, at_ns) + self._freed(now_s, at_ns)

    def on_gone(self, gone: OrderGone) -> list[Action]:
        if self.book.remove(gone.address, gone.slot):
            self.orders.close(gone.address, gone.slot)
        return []

    def on_market(self, seen: MarketSeen, now_s: float) -> list[Action]:
        if not self.decision.on_market(seen):
            return []
        return self.review(seen.market.address, now_s, seen.received_at_ns)

    def on_time(self, time: ChainTime) -> list[Action]:
        return self._carry_out(self.decision.on_time(time))

    def review(self, market: Pubkey, now_s: float, at_ns: int) -> list[Action]:
        self._unfinished.pop(market, None)
        price = self.prices.read(market)
        lifted = 0 if price is None else self.orders.price_came(market, price.slot, self._limit)
        actions = self._carry_out(self.decision.review(market, now_s, at_ns))
        if self._limit in (len(actions), lifted):
            self._unfinished[market] = at_ns
        self.orders.freed.clear()
        return actions

    @property
    def unfinished(self) -> bool:
        return bool(self._unfinished)

    def carry_on(self, now_s: float) -> list[Action]:
        return [a for market, at_ns in list(self._unfinished.items()) for a in self.review(market, now_s, at_ns)]

    def load(self, orders: Iterable[Order]) -> int:
        loading = self.book.loading()
        for order in orders:
            loading.add([(bytes(order.address), fields_of(order))], order.slot)
        for _ in loading.steps():
            pass
        return len(self.book)

    def block(self, address: Pubkey) -> None:
        """An attempt at it was found in the journal, or is made."""
        self.orders.block(self.orders.record(address), Reason.ATTEMPT)

    def release(self, address: Pubkey, *, after_price_slot: int | None, now_s: float, at_ns: int) -> list[Action]:
        """The attempt at it is over."""
        record, order = self.orders.get(address), self.book.get(address)
        if record is not None and order is not None and after_price_slot is not None:
            self.orders.await_price(record, order.market, after_price_slot)
        self.orders.attempt_over(address, None)
        for market in list(self.orders.waiting):
            price = self.prices.read(market)
            if price is not None:
                self.orders.price_came(market, price.slot)
        return self._freed(now_s, at_ns)

    def forget(self, address: Pubkey, slot: int) -> None:
        """Nothing more will come of it, as of `slot`."""
        self.orders.close(address, slot)
        self.orders.attempt_over(address, None)

    def held(self, market: Pubkey) -> str | None:
        return self.decision.held(market)

    def why(self, address: Pubkey, now_s: float) -> str:
        order, record = self.book.get(address), self.orders.get(address)
        if order is None:
            return ""
        return self.decision.why(order, None if record is None else record.sentence(order, 0.0), now_s)

    def _freed(self, now_s: float, at_ns: int) -> list[Action]:
        freed = list(self.orders.freed)
        self.orders.freed.clear()
        return self._look(freed, now_s, at_ns)

    def _look(self, addresses: Iterable[Pubkey], now_s: float, at_ns: int) -> list[Action]:
        orders = [order for address in addresses if (order := self.book.get(address)) is not None]
        found = [self.decision.look_at(order, now_s, at_ns) for order in orders]
        return self._carry_out([action for action in found if action is not None])

    def _carry_out(self, actions: Sequence[Action]) -> list[Action]:
        for action in actions:
            if isinstance(action, RecordExpired):
                self.orders.block(self.orders.record(action.order.address, action.order), Reason.EXPIRED)
            else:
                self.orders.begin(action.order)
        return list(actions)
