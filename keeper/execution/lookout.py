"""What the keeper knows of the chain, whether it works or stands by: the orders that rest, the markets, their prices,
and the chain's clock.

While it works every fact goes to its router, which acts on it. While it stands by the same facts are taken in, and
nothing follows from them: who takes over finds a book that is as new as the last one's. Where it works on a share of
the markets, the facts of those go to its router, and of the others' nothing follows (`Divided`).
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
from keeper.execution.orders import Orders, Reason
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
        self.on_event: Callable[[Event], None] = self.remember
        """Where a fact goes: a working router's own method, so that nothing stands between the two."""
        self._take_in: Callable[[Event], None] = self.learn
        self._worker: Worker | None = None
        self._share: frozenset[Pubkey] | None = None
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

    async def hand_to(self, worker: Worker, share: frozenset[Pubkey] | None = None) -> None:
        """Let it act from now on, and first on what the present prices call for. Its records are those that the journal
        told; what rests was read since, and may be other orders at their addresses. `share`: the markets that it works
        on, until it is `leaving`; None for all.
        """
        while self.held is not None:  # a list is being taken in
            await self._whole.wait()
        self._worker, self._share, self.on_event, self._take_in = worker, share, worker.on_event, worker.take_in
        if share is not None:
            divided = Divided(self, worker, share)
            self.on_event, self._take_in = divided.on_event, divided.take_in
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
                self._worker, self._share, self.on_event, self._take_in = None, None, self.remember, self.learn

    # -- while nobody acts

    def remember(self, event: Event) -> None:
        """Take in one fact from which nothing follows, or have it held back."""
        if type(event) is MarketSeen:
            market = event.market
            known = self.markets.get(market.address)
            if known is None or known.slot <= market.slot:
                self.markets[market.address] = market
            self.decision.on_market(event)
        elif self.held is not None and not isinstance(event, ChainTime):
            self.held.append(event)
        else:
            self.learn(event)

    def learn(self, event: Event) -> None:
        """The same, of one that was held back."""
        book = self.decision.book
        match event:
            case FeedSeen(market, price):
                self.decision.on_feed(market, price)
            case OrderSeen(order) if order.pending:
                book.upsert(order)
                self._follow(order.address)
            case OrderSeen(order):
                book.close(order.address, order.slot)
                self._follow(order.address)
            case OrderGone(address, slot):
                book.remove(address, slot)
                self._follow(address)
            case AccountUnreadable(address, slot):
                # It is not known any more: who takes over finds that the journal's order is missing, and reads it.
                book.close(address, slot)
                self._follow(address)
            case ChainTime():
                self.clock.observe(event, time.monotonic())
                self.decision.on_time(event)

    def _follow(self, address: Pubkey) -> None:
        """A worker with a share may have a record of another's order: it has expired, or was made at the address of an
        own one that was closed. That record keeps what is still true of it.
        """
        worker, share = self._worker, self._share
        if worker is None or share is None or (record := worker.orders.get(address)) is None:
            return
        book = self.decision.book
        known = book.get(address)
        if known is not None and known.market not in share:
            worker.orders.seen(known)
        elif known is None and record.order is not None and record.order.market not in share:
            # What became of it is its keeper's to say.
            slot = book.returns_at(address) - 1
            worker.orders.block(record, Reason.ENDED, slot)
            worker.orders.close(address, slot)

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
            if self._share is not None and market not in self._share:
                continue
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


class Divided:
    """Facts for a worker with a share of the markets: it is told those of its own. Of the others, on which other
    keepers work, it is only learnt what is so.
    """

    def __init__(self, lookout: Lookout, worker: Worker, share: frozenset[Pubkey]) -> None:
        self._lookout = lookout
        self._worker = worker
        self._share = share

    def on_event(self, event: Event) -> None:
        """One fact, which may have to be held back (`Lookout.held`)."""
        if self._is_own(event):
            self._worker.on_event(event)
        else:
            self._lookout.remember(event)

    def take_in(self, event: Event) -> None:
        """The same, of one that was held back."""
        if self._is_own(event):
            self._worker.take_in(event)
        else:
            self._lookout.learn(event)

    def _is_own(self, event: Event) -> bool:
        match event:
            case MarketSeen(market):
                return market.address in self._share
            case FeedSeen(market):
                return market in self._share
            case OrderSeen(order):
                return order.market in self._share
            case OrderGone(address) | AccountUnreadable(address):
                # Of what does not rest, what the journal told is known, and that was of the worker's own markets.
                known = self._lookout.decision.book.get(address)
                return self._worker.orders.get(address) is not None if known is None else known.market in self._share
            case ChainTime():
                return True
