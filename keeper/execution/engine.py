"""The middle: events go through the decision, actions go to the executor, notes go to the journal.

It runs on the event loop and never waits: what it calls decides at once, queues, or posts. The two things that
do wait, releases that are due later and orders that wait for an account to change, are loops of their own.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import anyio
from anyio.abc import TaskStatus
from solders.pubkey import Pubkey

from keeper.domain.actions import Action, ExecuteOrder, RatchetStop, RecordExpired
from keeper.domain.events import ChainTime, Event, MarketSeen, OrderGone, OrderSeen
from keeper.domain.orders import Market, Order, OrderFields, OrderState, OrderType
from keeper.domain.prices import Price
from keeper.domain.reports import OrderTriggered, Report
from keeper.errors import JournalError
from keeper.execution.flights import Flights
from keeper.journal import Journal
from keeper.journal.ops import NoteOrder
from keeper.triggers.book import Level, Posture
from keeper.triggers.conditions import Fires
from keeper.triggers.decision import Decision
from keeper.triggers.loading import Loading
from keeper.triggers.prices import ChainClock

_LINES_AT_ONCE: Final = 64
_HELD_AT_ONCE: Final = 64

_NOTES_AT_ONCE: Final = 2_048
"""So many new orders are noted as they come; beyond that they are noted later, at leisure."""
_NOTES_PAUSE_S: Final = 0.5
_NOTES_STEP: Final = 16
_NOTES_STEP_S: Final = 0.03
"""Later: so many at a time, so that a commit rarely meets them, and then waits 2 ms. A million take half an hour."""
_NOTES_YIELD_S: Final = 2.0
"""For so long each of these steps waits for a burst to pass."""

RESTS: Final = "It rests until a fresh price meets its condition."


class Out(Protocol):
    """Where jobs go; the executor in life."""

    def submit(self, job: ExecuteOrder | RatchetStop) -> None:
        """Take a job; never blocks."""
        ...

    def go(self) -> None:
        """What was submitted may leave."""
        ...


class Ends(Protocol):
    """Who reads again what seems to have ended; `keeper.execution.endings` in life."""

    def add(self, address: Pubkey, slot: int) -> None:
        """As of `slot` it is no longer pending, or gone."""
        ...

    def revived(self, address: Pubkey) -> None:
        """It is pending after all, or anew."""
        ...


class _Load:
    """A first snapshot's orders on their way into the book."""

    def __init__(self, loading: Loading, order: Callable[[OrderSeen], None]) -> None:
        self.add = loading.add
        self.steps = loading.steps
        self._order = order

    def ended(self, order: Order) -> None:
        """One that is not pending: it is not in the load, so it is news like any other."""
        self._order(OrderSeen(order))


class Engine:
    """Connects the decision with the executor and the journal, and answers for what is resting.

    `connect` names what it feeds: see there.
    """

    def __init__(
        self,
        *,
        decision: Decision,
        clock: ChainClock,
        journal: Journal,
        flights: Flights,
        report: Callable[[Report], None],
    ) -> None:
        self.decision = decision
        self.clock = clock
        self._journal = journal
        self._flights = flights
        self._report = report
        self._out: Out | None = None
        self._wait_for: Callable[[Order, Pubkey], None] | None = None
        self._endings: Ends | None = None
        self._markets: dict[Pubkey, Market] = {}
        self._by_symbol: dict[str, Market] = {}
        self._later: list[tuple[float, int, Pubkey, int | None]] = []
        self._later_count = itertools.count()
        self._later_added = anyio.Event()
        self._unfinished = anyio.Event()
        self._unnoted = anyio.Event()
        self._held: list[Event] | None = None
        self.events = 0

    def __repr__(self) -> str:
        return f"Engine({self.decision!r}, {len(self._later)} releases later)"

    def connect(self, out: Out, wait_for: Callable[[Order, Pubkey], None], endings: Ends) -> None:
        """Name the executor, the place where orders wait for an account, and who reads again what seems to have
        ended. Once, before any event.
        """
        self._out = out
        self._wait_for = wait_for
        self._endings = endings

    # -- facts

    def on_event(self, event: Event) -> None:
        """Take in one fact and act on what it decides."""
        self.events += 1
        if self._held is not None and isinstance(event, OrderSeen | OrderGone):
            self._held.append(event)
        else:
            self._take_in(event)

    def _take_in(self, event: Event) -> None:
        match event:
            case MarketSeen():
                self._market(event)
            case OrderSeen():
                self._order(event)
            case OrderGone():
                self._gone(event)
            case ChainTime():
                self.clock.observe(event, time.monotonic())
                self._act(self.decision.on_time(event))

    saw = on_event

    def _market(self, event: MarketSeen) -> None:
        market = event.market
        known = self._markets.get(market.address)
        if known is None or known.slot <= market.slot:
            self._markets[market.address] = self._by_symbol[market.symbol] = market
        self._act(self.decision.on_market(event, self._now()))

    def _order(self, event: OrderSeen) -> None:
        order = event.order
        if not order.pending:
            self._not_pending(event)
            return
        before = self.decision.book.get(order.address)
        if before is not None and before.slot > order.slot:
            return
        if self._flights.own(order.address) is not None:
            # It may have left the book (a processed fill that a fork dropped): its attempt is in the air still.
            self.decision.suspend(order.address)
        actions = self.decision.on_order(event, self._now(), time.monotonic_ns())
        if not actions and self.decision.book.get(order.address) is None:
            return  # late news from before its end, which the book refuses: it revives nothing in the journal either
        if before is None or _differs(before, order):
            if before is None:
                self._endings_of().revived(order.address)
            # While the keeper's own attempt is open its state is the attempt's to say, not the account's.
            resting = self.decision.book.posture(order.address) is Posture.ARMED
            state = OrderState.OPEN if resting and not actions else None
            # Pending at a newer slot than an end that was noted: it was placed anew at the same address.
            note = NoteOrder(order, state, RESTS if state else "", reopen=before is None)
            if self._journal.waiting_notes >= _NOTES_AT_ONCE or not self._journal.post(note):
                self._unnoted.set()
        self._act(actions)

    def _not_pending(self, event: OrderSeen) -> None:
        """What each fill of a burst tells, so it makes no order of what the book held."""
        address, slot = event.order.address, event.order.slot
        known = self.decision.book.slot(address)
        if known is not None and known > slot:
            return
        own = self._flights.own(address) is not None
        if own:
            # It may have left the book (a processed fill that a fork dropped): its attempt is in the air still.
            self.decision.suspend(address)
        self.decision.on_order(event, self._now(), time.monotonic_ns())
        if known is not None or not own:
            self._ended(address, slot)

    def _gone(self, event: OrderGone) -> None:
        known = self.decision.book.get(event.address) is not None
        self._act(self.decision.on_gone(event))
        if known:
            self._ended(event.address, event.slot)

    def seems_ended(self, address: Pubkey) -> None:
        """An order that the journal knows and the chain's snapshot does not show."""
        self._ended(address, self.clock.slot or 0)

    def _ended(self, address: Pubkey, slot: int) -> None:
        self._endings_of().add(address, slot)

    def _endings_of(self) -> Ends:
        assert self._endings is not None, "connect comes first"
        return self._endings

    # -- snapshots, in bulk

    def begin_load(self) -> _Load | None:
        """Take in a first snapshot's orders by a load, many times faster than one by one; None when some rest already.
        Until `end_load` what the subscription says of orders is held back.
        """
        if self._held is not None or len(self.decision.book):
            return None
        self._held = []
        return _Load(self.decision.loading(), self._order)

    async def end_load(self, load: _Load) -> None:
        """The snapshot has been given: the orders rest, and those that the present prices meet are acted on. In steps,
        with room for other work in between; it is not cancelled, because what is held back would be held for ever.
        """
        with anyio.CancelScope(shield=True):
            for _ in load.steps():
                await anyio.lowlevel.checkpoint()
            self._unnoted.set()
            while self._held:
                some, self._held = self._held[:_HELD_AT_ONCE], self._held[_HELD_AT_ONCE:]
                for event in some:
                    self._take_in(event)
                await anyio.lowlevel.checkpoint()
            self._held = None
            at_ns = time.monotonic_ns()
            for market in list(self._markets):
                self._act(self.decision.review(market, self._now(), at_ns))
                await anyio.lowlevel.checkpoint()

    def unchanged(self, address: Pubkey, fields: OrderFields, slot: int) -> bool:
        """Whether this is what is known of the order already: then there is nothing to do but to note the slot."""
        return self._flights.own(address) is None and self.decision.book.still(address, fields, slot)

    def not_seen_since(self, slot: int, cursor: int) -> tuple[list[Pubkey], int | None]:
        """Orders of the book that nothing as new as `slot` is known of, in steps: what a snapshot lacks."""
        return self.decision.book.older_than(slot, start=cursor)

    # -- actions

    def _act(self, actions: Sequence[Action]) -> None:
        assert self._out is not None, "connect comes first"
        if not actions:
            return
        triggered: list[ExecuteOrder] = []
        for action in actions:
            match action:
                case ExecuteOrder():
                    self._out.submit(action)
                    triggered.append(action)
                case RatchetStop():
                    self._out.submit(action)
                case RecordExpired(order):
                    reason = "It is past its expiry by the chain's clock, so the program will not fill it."
                    self._journal.post(NoteOrder(order, OrderState.EXPIRED, reason))
        if triggered:
            # Said when the executor has begun: it was woken first, and a line of the log takes as long as a signature.
            asyncio.get_running_loop().call_soon(self._tell, triggered)
        if self.decision.unfinished:
            self._unfinished.set()
        self._out.go()

    def _tell(self, triggered: Sequence[ExecuteOrder]) -> None:
        if len(triggered) > _LINES_AT_ONCE:
            asyncio.get_running_loop().call_soon(self._tell, triggered[_LINES_AT_ONCE:])
        for action in triggered[:_LINES_AT_ONCE]:
            order, price = action.order, action.price
            self._report(
                OrderTriggered(order.address, order.market, order.order_type.word, price.price_1e6, price.slot)
            )

    async def carry_on(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Act on the rest of answers that were cut short, with room for other work in between: a tick that crosses
        thousands of orders must not hold up the event loop.
        """
        task_status.started()
        while True:
            await self._unfinished.wait()
            self._unfinished = anyio.Event()
            while self.decision.unfinished:
                self._act(self.decision.carry_on(self._now()))
                await anyio.lowlevel.checkpoint()

    async def note_the_rest(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """After a flood of new orders (the first snapshot of a large book): note them all, at a pace that leaves the
        journal to the attempts. Until then the chain remembers them, and an attempt at one notes it itself.

        Goes through the whole book, because remembering a million addresses would cost more than noting an order twice.
        """
        task_status.started()
        while True:
            await self._unnoted.wait()
            await anyio.sleep(_NOTES_PAUSE_S)
            self._unnoted = anyio.Event()
            after: Pubkey | None = None
            while page := self.decision.book.orders(after=after, limit=_NOTES_STEP):
                await self._calm()
                try:
                    # Not posted: notes that wait for company would go with the next attempt's commit. And without
                    # an fsync of their own, or attempts would find the disk busy.
                    await self._journal.write(*(self._resting_note(order) for order in page))
                except JournalError:
                    await anyio.sleep(_NOTES_PAUSE_S)  # the disk: health tells of it; this page is noted later
                    continue
                after = page[-1].address
                await anyio.sleep(_NOTES_STEP_S)

    async def _calm(self) -> None:
        """Return when few attempts are in flight, or after a while: a burst needs the journal, and notes its own."""
        ends = time.monotonic() + _NOTES_YIELD_S
        while len(self._flights) > _NOTES_STEP < self._flights.in_flight and time.monotonic() < ends:  # noqa: ASYNC110
            await anyio.sleep(_NOTES_PAUSE_S)

    def _resting_note(self, order: Order) -> NoteOrder:
        if self.decision.book.posture(order.address) is Posture.ARMED:
            return NoteOrder(order, OrderState.OPEN, RESTS, reopen=True)
        return NoteOrder(order)

    # -- what execution says of an order

    def suspend(self, address: Pubkey) -> None:
        """Do not act on it until it is released."""
        self.decision.suspend(address)

    def release(self, address: Pubkey, *, after_price_slot: int | None = None, delay_s: float = 0.0) -> None:
        """It rests again, now or after `delay_s`; with `after_price_slot`, until a price from a later slot."""
        if delay_s <= 0:
            actions = self.decision.release(
                address, after_price_slot=after_price_slot, now_s=self._now(), at_ns=time.monotonic_ns()
            )
            self._act(actions)
            return
        entry = (time.monotonic() + delay_s, next(self._later_count), address, after_price_slot)
        heapq.heappush(self._later, entry)
        self._later_added.set()

    def forget(self, address: Pubkey, slot: int) -> None:
        """Nothing more will come of it, as of `slot`. Newer news of it stands against that: then it rests again."""
        self.decision.forget(address, slot)
        if self.decision.book.get(address) is not None and self._flights.own(address) is None:
            self.reopen(address, RESTS)

    def wait_for_account(self, order: Order, account: Pubkey) -> None:
        """It waits, suspended, until `account` changes."""
        assert self._wait_for is not None, "connect comes first"
        self._wait_for(order, account)

    def reopen(self, address: Pubkey, reason: str) -> None:
        """Let a failed order rest again: its user's account changed, or an operator said so."""
        order = self.decision.book.get(address)
        if order is not None:
            self._journal.post(NoteOrder(order, OrderState.OPEN, reason, reopen=True))
        self.release(address)

    async def run_later(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Release orders whose pause is over."""
        task_status.started()
        while True:
            self._later_added = anyio.Event()
            now = time.monotonic()
            while self._later and self._later[0][0] <= now:
                _, _, address, after_price_slot = heapq.heappop(self._later)
                self.release(address, after_price_slot=after_price_slot)
            wait = self._later[0][0] - now if self._later else 3600.0
            with anyio.move_on_after(wait):
                await self._later_added.wait()

    # -- what others ask (the API's desk)

    def order(self, address: Pubkey) -> Order | None:
        """The order as the book holds it."""
        return self.decision.book.get(address)

    def why(self, address: Pubkey) -> str:
        """Why it is not executed now; empty when the book does not hold it."""
        return self.decision.why(address, self._now()) if self.decision.book.get(address) is not None else ""

    def market(self, key: str | Pubkey) -> Market | None:
        """A market by symbol or address."""
        return self._by_symbol.get(key) if isinstance(key, str) else self._markets.get(key)

    def markets(self) -> list[Market]:
        """Every market seen."""
        return sorted(self._markets.values(), key=lambda market: market.symbol)

    def price(self, market: Pubkey) -> Price | None:
        """The newest price, however old."""
        return self.decision.prices.read(market)

    def chain_time_s(self) -> float | None:
        """The chain's clock."""
        return self.clock.now(time.monotonic())

    def executing(self, market: Market) -> tuple[bool, str]:
        """Whether the market's orders are executed now, and if not, why."""
        held = self.decision.held(market.address)
        if held is not None:
            return False, held
        age = self.decision.prices.age_s(market.address, self._now())
        limit = self.decision.rules.max_price_age_s
        if age is None:
            return False, "it never had a price"
        if age > limit:
            return False, f"its price is {age:.0f} s old, and the limit is {limit:g} s"
        return True, ""

    def counts(self) -> dict[tuple[Pubkey, OrderType], int]:
        """How many orders rest, by market and type."""
        return self.decision.book.counts()

    def levels(self, market: Pubkey, fires: Fires, n: int) -> list[Level]:
        """The first `n` triggers that a falling or a rising price would meet, the nearest first."""
        return list(itertools.islice(self.decision.book.levels(market, fires), n))

    def _now(self) -> float:
        now = self.clock.now(time.monotonic())
        return time.time() if now is None else now


def _differs(before: Order, after: Order) -> bool:
    return any(
        getattr(before, name) != getattr(after, name)
        for name in ("stop_price_1e6", "status", "price_1e6", "size_1e6", "expires_at", "created_at")
    )
