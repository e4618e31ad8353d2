"""What the keeper knows of the chain, whether it works or stands by: the orders that rest, the markets, their prices,
and the chain's clock.

While it works every fact goes to its router, which acts on it. While it stands by the same facts are taken in, and
nothing follows from them: who takes over finds a book that is as new as the last one's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import anyio
import anyio.lowlevel
from solders.pubkey import Pubkey

from keeper.domain.events import AccountUnreadable, ChainTime, Event, FeedSeen, MarketSeen, OrderGone, OrderSeen
from keeper.domain.orders import Market, OrderFields
from keeper.execution.orders import Orders
from keeper.triggers.decision import Decision
from keeper.triggers.loading import Loading
from keeper.triggers.prices import ChainClock

_AT_ONCE: Final = 32
"""So many are taken in before the event loop may do something else."""


class Worker(Protocol):
    """Who acts on facts. `keeper.execution.router` is one."""

    orders: Orders

    def on_event(self, event: Event) -> None:
        """Take in one fact and act on what it decides, or have it held back (`Lookout.held`)."""
        ...

    def take_in(self, event: Event) -> None:
        """The same, of one that was held back."""
        ...

    def review(self, market: Pubkey, at_ns: int) -> None:
        """Act on everything that the market's present price calls for."""
        ...

    def note_all(self) -> None:
        """Note every resting order, at leisure."""
        ...


class Lookout:
    """Where all facts go. They may come from several watches: the newest counts."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.clock = ChainClock()
        self.markets: dict[Pubkey, Market] = {}
        self.held: list[Event] | None = None
        """What was told of orders while a list of them is being taken in, or a worker begins."""
        self.on_event: Callable[[Event], None] = self._remember
        """Where a fact goes: a working router's own method, so that nothing stands between the two."""
        self._take_in: Callable[[Event], None] = self._learn
        self._worker: Worker | None = None
        self._whole = anyio.Event()

    def __repr__(self) -> str:
        return f"Lookout({self.decision!r}, {'at work' if self._worker is not None else 'standing by'})"

    def now_s(self) -> float:
        """The chain's clock, unix seconds; this machine's before that was first seen."""
        return self.clock.now_or(time.monotonic(), time.time())

    def tell(self, event: Event) -> None:
        """`on_event`, for who is made before it is known whether the keeper works."""
        self.on_event(event)

    # -- who acts

    async def hand_to(self, worker: Worker) -> None:
        """Let it act from now on, and first on what the present prices call for. Its records are those that the journal
        told; what rests was read since, and may be other orders at their addresses.
        """
        while self.held is not None:  # a list is being taken in
            await self._whole.wait()
        self._worker, self.on_event, self._take_in = worker, worker.on_event, worker.take_in
        if len(self.decision.book):
            self._hold()
            with anyio.CancelScope(shield=True):
                await self._complete()

    @contextlib.contextmanager
    def leaving(self, worker: Worker) -> Iterator[None]:
        """Let it act no more from the moment on at which this ends."""
        try:
            yield
        finally:
            if self._worker is worker:
                self._worker, self.on_event, self._take_in = None, self._remember, self._learn

    # -- while nobody acts

    def _remember(self, event: Event) -> None:
        if type(event) is MarketSeen:
            market = event.market
            known = self.markets.get(market.address)
            if known is None or known.slot <= market.slot:
                self.markets[market.address] = market
            self.decision.on_market(event)
        elif self.held is not None and not isinstance(event, ChainTime):
            self.held.append(event)
        else:
            self._learn(event)

    def _learn(self, event: Event) -> None:
        book = self.decision.book
        match event:
            case FeedSeen(market, price):
                self.decision.on_feed(market, price)
            case OrderSeen(order) if order.pending:
                book.upsert(order)
            case OrderSeen(order):
                book.close(order.address, order.slot)
            case OrderGone(address, slot):
                book.remove(address, slot)
            case AccountUnreadable(address, slot):
                # It is not known any more: who takes over finds that the journal's order is missing, and reads it.
                book.close(address, slot)
            case ChainTime():
                self.clock.observe(event, time.monotonic())
                self.decision.on_time(event)

    # -- lists of orders, in bulk

    def begin_load(self) -> Loading | None:
        """Take in a first list's orders by a load, many times faster than one by one; None when some rest already.
        Until `end_load` what the subscription says of orders is held back.
        """
        if self.held is not None or len(self.decision.book):
            return None
        self._hold()
        return self.decision.book.loading()

    async def end_load(self, load: Loading) -> None:
        """The list has been given: the orders rest, and those that the present prices meet are acted on. In steps,
        with room for other work in between; it is not cancelled, because what is held back would be held for ever.
        """
        with anyio.CancelScope(shield=True):
            for _ in load.steps():
                await anyio.lowlevel.checkpoint()
            await self._complete()

    def _hold(self) -> None:
        self.held, self._whole = [], anyio.Event()

    async def _complete(self) -> None:
        """The book is whole: hold the worker's records to it, take in what was held back, and look at every market."""
        if (worker := self._worker) is not None:
            for address in worker.orders.addresses():
                # What the journal told of an order before it was read may be of another one that was at its address.
                order = self.decision.book.get(address)
                if order is not None and worker is self._worker:
                    worker.orders.seen(order)
                    await anyio.lowlevel.checkpoint()
            worker.note_all()
        while self.held:
            some, self.held = self.held[:_AT_ONCE], self.held[_AT_ONCE:]
            for event in some:
                self._take_in(event)
            await anyio.lowlevel.checkpoint()
        self.held = None
        self._whole.set()
        at_ns = time.monotonic_ns()
        for market in self.decision.markets():
            if self._worker is None:
                break
            self._worker.review(market, at_ns)
            await anyio.lowlevel.checkpoint()

    def unchanged(self, address: Pubkey, fields: OrderFields, slot: int) -> bool:
        """Whether this is what is known of the order already: then there is nothing to do but to note the slot."""
        if self._worker is not None and not self._worker.orders.free(address):
            return False
        return self.decision.book.still(address, fields, slot)

    def not_seen_since(self, slot: int, cursor: int) -> tuple[list[Pubkey], int | None]:
        """Orders that nothing as new as `slot` is known of, in steps: what a list of that slot lacks."""
        if self._worker is None:
            return self.decision.book.older_than(slot, start=cursor)
        return self._worker.orders.not_seen_since(slot, cursor)
