"""The middle: facts go through the decision, actions to the executor, verdicts to the journal and to the records.

It alone carries out what the rooms of execution decide, so that none of them has to know another that knows it. What it
does for a fact never waits: it decides at once, queues, or posts. Its loops (`run`) do what waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

import anyio.lowlevel
from anyio.abc import TaskStatus
from solders.pubkey import Pubkey

from keeper.domain.actions import Action, ExecuteOrder, RecordExpired
from keeper.domain.errors import JournalError
from keeper.domain.events import AccountUnreadable, ChainTime, Event, FeedSeen, MarketSeen, OrderGone, OrderSeen
from keeper.domain.orders import Order, OrderState
from keeper.domain.reports import Note, OrderTriggered, Report
from keeper.execution.account_wait import AccountWait
from keeper.execution.armory import Armory
from keeper.execution.consequences import take_effect
from keeper.execution.drafting import Job
from keeper.execution.endings import Endings, unreadable
from keeper.execution.executor import Executor
from keeper.execution.flights import Flights
from keeper.execution.gate import NO_POSITION, Gate
from keeper.execution.lander import Lander, Polled
from keeper.execution.lookout import Divided, Lookout
from keeper.execution.noting import RestingNotes
from keeper.execution.orders import Orders, Reason
from keeper.execution.purse import Purse
from keeper.execution.settlement import Settlement
from keeper.execution.verdicts import Recorder, Verdict
from keeper.journal import Journal
from keeper.journal.ops import NoteOrder
from keeper.triggers.book import Change

_LINES_AT_ONCE: Final = 64
_AT_ONCE: Final = 32
"""So many are carried out before the event loop may do something else."""
_JOURNAL_REST_S: Final = 1.0
_LONGEST_WAIT_S: Final = 3600.0


class Router:
    """Connects facts, decision, executor and journal, from when the keeper begins to work until it stops. `share`: the
    markets that it works on; None for all.
    """

    def __init__(
        self,
        *,
        lookout: Lookout,
        orders: Orders,
        journal: Journal,
        flights: Flights,
        gate: Gate,
        purse: Purse,
        executor: Executor,
        lander: Lander,
        settlement: Settlement,
        endings: Endings,
        accounts: AccountWait,
        armory: Armory,
        report: Callable[[Report], None],
        share: frozenset[Pubkey] | None = None,
    ) -> None:
        self.lookout = lookout
        self.decision = decision = lookout.decision
        self.clock, self._markets = lookout.clock, lookout.markets
        self.orders = orders
        self._book = decision.book
        self._journal = journal
        self._flights = flights
        self._gate = gate
        self._purse = purse
        self._executor = executor
        self._lander = lander
        self._settlement = settlement
        self._endings = endings
        self._accounts = accounts
        self._armory = armory
        self._report = report
        self._recorder = Recorder(journal, report)
        self._notes = RestingNotes(journal, decision.book, orders, flights, share)
        self._share = share
        self._divided = None if share is None else Divided(lookout, self, share)
        self._unfinished: dict[Pubkey, int] = {}  # markets with more to act on, and the at_ns of their news

    def __repr__(self) -> str:
        return f"Router({self.decision!r}, {self.orders!r}, {self._executor!r})"

    # -- facts

    def on_event(self, event: Event) -> None:
        """Take in one fact and act on what it decides, or have it held back (`Lookout.held`)."""
        if type(event) is MarketSeen:
            self._market(event)
        elif (held := self.lookout.held) is not None and not isinstance(event, ChainTime):
            held.append(event)
        else:
            self.take_in(event)

    def take_in(self, event: Event) -> None:
        """See Worker."""
        match event:
            case FeedSeen(market, price, at_ns) if self.decision.on_feed(market, price):
                self.review(market, at_ns)
            case OrderSeen(order):
                if order.pending:
                    self._pending(order)
                else:
                    self._not_pending(order.address, order.slot)
            case OrderGone(address, slot):
                if self._book.remove(address, slot) or self.orders.has(address, Reason.UNREADABLE):
                    self._ended(address, slot)
            case AccountUnreadable():
                self._unreadable(event)
            case ChainTime():
                self.clock.observe(event, time.monotonic())
                self._executor.drop_overtaken(int(event.unix_time_s))
                self._act(self.decision.on_time(event))

    def _read(self, event: Event) -> None:
        """Take in what was not told, but read: where it may be of another keeper's order, only learn it."""
        (self if self._divided is None else self._divided).on_event(event)

    def _market(self, event: MarketSeen) -> None:
        market = event.market
        known = self._markets.get(market.address)
        if known is None or known.slot <= market.slot:
            self._markets[market.address] = market
        if self.decision.on_market(event):
            self.review(market.address, event.received_at_ns)

    def _pending(self, order: Order) -> None:
        change = self._book.upsert(order)
        if change is Change.STALE:
            return  # late news from before its end, or an older reading: it revives nothing in the journal either
        back = any(self.orders.has(order.address, reason) for reason in (Reason.UNREADABLE, Reason.ENDED))
        self.orders.seen(order)
        if change is Change.SAME and not back:
            return
        action = self.decision.look_at(order, self.clock.now_or(time.monotonic(), time.time()), time.monotonic_ns())
        if action is not None:
            self._act([action])
        # Pending after an end that was said or noted: a fork dropped that end, or it was made again. Or it reads well.
        self._notes.post(self._notes.of(order, reopen=back or change is Change.NEW))

    def _not_pending(self, address: Pubkey, slot: int) -> None:
        """What each fill of a burst tells, so it makes no order of what the book held."""
        known = self._book.slot(address)
        if known is not None and known > slot:
            return
        self._book.close(address, slot)
        if known is not None or not self.orders.has(address, Reason.ATTEMPT):
            self._ended(address, slot)

    def _ended(self, address: Pubkey, slot: int) -> None:
        """At processed it is not pending any more. What became of it is read at confirmed."""
        self.orders.block(self.orders.record(address), Reason.ENDED, slot)

    def note_all(self) -> None:
        """See Worker."""
        self._notes.note_all()

    def seems_ended(self, address: Pubkey) -> None:
        """An order that the journal knows and the chain's list of pending ones does not show."""
        # The reading that tells has to be as new as the news that it ended, if there was any.
        self._ended(address, max(self.clock.slot or 0, self._book.returns_at(address)))

    def _unreadable(self, event: AccountUnreadable) -> None:
        """Its account does not decode: nothing else is known of it, and nothing is done until it reads well again."""
        known = self._book.get(event.address)
        if known is None or known.slot > event.slot or self.orders.has(event.address, Reason.UNREADABLE):
            return
        record = self.orders.record(event.address, known)
        self.orders.block(record, Reason.UNREADABLE, event.reason)
        self._notes.post(NoteOrder(known, OrderState.FAILED, unreadable(event.reason)))

    # -- actions

    def review(self, market: Pubkey, at_ns: int) -> None:
        """See Worker."""
        limit = self.decision.rules.max_actions
        lifted = 0
        if self.orders.waiting:
            price = self.decision.prices.read(market)
            lifted = 0 if price is None else self.orders.price_came(market, price.slot, limit)
        actions = self.decision.review(market, self.clock.now_or(time.monotonic(), time.time()), at_ns)
        if limit is not None and (len(actions) >= limit or lifted >= limit):
            self._unfinished[market] = at_ns
            self.orders.wake.set()
        if actions:
            self._act(actions)

    def _act(self, actions: Sequence[Action]) -> None:
        triggered: list[ExecuteOrder] = []
        share = self._share
        for action in actions:
            order = action.order
            if share is not None and order.market not in share:
                self._leave(action)
                continue
            if isinstance(action, RecordExpired):
                self.orders.block(self.orders.record(order.address, order), Reason.EXPIRED)
                reason = "It is past its expiry by the chain's clock, so the program will not fill it."
                # The clock says so, and not this reading: another keeper may have noted a later one.
                self._journal.post(NoteOrder(order, OrderState.EXPIRED, reason, stands=True))
                continue
            executes = isinstance(action, ExecuteOrder)
            crank = action.crank if isinstance(action, ExecuteOrder) else None
            record = self.orders.begin(order, executes=executes)
            job = Job(action, record, record.generation, order, action.price, action.triggered_at_ns, executes, crank)
            self._executor.submit(job)
            if isinstance(action, ExecuteOrder):
                triggered.append(action)
        if triggered:
            # Said when the executor has begun: it goes first, and a line of the log takes as long as a signature.
            asyncio.get_running_loop().call_soon(self._tell, triggered)
        self._executor.go()

    def _leave(self, action: Action) -> None:
        """Another keeper acts on it. Nothing follows here; but an expiry, of which the decision goes on telling while
        it is watched for, must not be told in the place of the keeper's own.
        """
        if isinstance(action, RecordExpired):
            self.orders.block(self.orders.record(action.order.address, action.order), Reason.EXPIRED)

    def _tell(self, triggered: Sequence[ExecuteOrder]) -> None:
        if len(triggered) > _LINES_AT_ONCE:
            asyncio.get_running_loop().call_soon(self._tell, triggered[_LINES_AT_ONCE:])
        for action in triggered[:_LINES_AT_ONCE]:
            o, p = action.order, action.price
            self._report(OrderTriggered(o.address, o.market, o.order_type.word, p.price_1e6, p.slot))

    def reopen(self, address: Pubkey, generation: int, reason: str, *lifted: Reason) -> None:
        """Let a failed order rest again: its user's account changed, or an operator said so."""
        order = self._book.get(address)
        if self.orders.lift(address, generation, *lifted) and order is not None and self.orders.free(address):
            self._notes.post(NoteOrder(order, OrderState.OPEN, reason, reopen=True, stands=True))

    def look_again(self) -> None:
        """Act on what became free: an attempt at it is over, a pause, a wait."""
        while self.orders.freed:
            address = next(iter(self.orders.freed))
            del self.orders.freed[address]
            order = self._book.get(address)
            if order is not None:
                action = self.decision.look_at(
                    order, self.clock.now_or(time.monotonic(), time.time()), time.monotonic_ns()
                )
                if action is None:
                    self._armory.stir(order.market)
                else:
                    self._act([action])

    # -- verdicts

    async def settle(self, polled: Polled) -> None:
        """Read what became of the attempts that came to an end, have it recorded, and carry it out."""
        self._armory.seen(polled.seen)
        for flight in polled.dropped:
            self.orders.cancel_relayed(flight.cancels, flight.signature)
        if polled.landed.flights:
            await self.carry_out(await self._settlement.landed(polled.landed), "confirmed_journaled")
        # Users' transactions last: what they leave behind depends on which attempts are still under way.
        for failed in polled.failed.own_first():
            await self.carry_out(await self._settlement.failed(failed), "failed_journaled")
        for dead in polled.dead.own_first():
            await self.carry_out(await self._settlement.expired(dead), "failed_journaled")
        if final := [flight for flight in polled.final if flight.read_back]:
            await self.carry_out(self._settlement.finalized(final), "finalized_journaled")

    async def carry_out(self, verdicts: Sequence[Verdict], passed: str) -> None:
        """Durable first, consequences second: a crash in between finds the entry closed and the order resting."""
        if not verdicts:
            return
        for verdict in verdicts:
            if verdict.stop is not None:  # at once: what is signed while the journal writes would be one too many
                self._gate.close(NO_POSITION, verdict.stop)
        for i, verdict in enumerate(await self._recorder.record(verdicts, passed)):
            if i % _AT_ONCE == _AT_ONCE - 1:
                await anyio.lowlevel.checkpoint()
            self._carry_out(verdict)
        self.look_again()

    def _carry_out(self, verdict: Verdict) -> None:
        flight, address, signature = verdict.flight, verdict.flight.attempt.order, verdict.flight.signature
        for report in verdict.reports:
            self._report(report)
        if verdict.paid is not None:
            self._purse.spend(*verdict.paid)
            self._purse.release(signature)
        if verdict.read_back:
            # Only now: if the journal had not taken it, the next poll would read it back again.
            flight.read_back = True
        if verdict.closed:
            self._flights.remove(flight)
            self._armory.ended(flight)
        for event in verdict.news:
            self._read(event)
        if verdict.following is not None:
            take_effect(verdict.following, self.orders, time.monotonic())
        for ended, slot in verdict.ended.items():
            self.orders.close(ended, slot)
        if verdict.frees:
            # Last: an order that this frees must not find anything of its old attempt.
            if flight.cancels:
                self.orders.cancel_over(flight.cancels, signature)
            self.orders.attempt_over(address, signature)

    # -- loops

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Everything that waits, until cancelled."""
        async with anyio.create_task_group() as tg:
            await tg.start(self._executor.run, name="executor")
            tg.start_soon(self._follow_records, name="records")
            tg.start_soon(self._read_endings, name="endings")
            tg.start_soon(self._watch_accounts, name="account-wait")
            tg.start_soon(self._notes.run, name="resting-notes")
            task_status.started()

    async def follow_attempts(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Send again, ask, and conclude, for every open attempt."""
        task_status.started()
        while True:
            await self._lander.turns.turn()
            rest_s = 0.0
            try:
                for group in self._lander.due():
                    await self.settle(await self._lander.poll(group))
                await self._lander.resend()
            except JournalError as e:
                # Nothing is lost: what the journal could not take is asked of the chain again.
                self._report(Note("lander.journal", str(e), level="error"))
                rest_s = _JOURNAL_REST_S
            await self._lander.pause(at_least_s=rest_s)

    async def _follow_records(self) -> None:
        """Look again at what became free, at what a later price is known for, and at the rest of long answers."""
        while True:
            self.orders.wake.clear()
            self.orders.pauses_over(time.monotonic())
            for market in list(self.orders.waiting):
                self.review(market, time.monotonic_ns())
            self.look_again()
            while self._unfinished:
                # With room for other work in between: a tick that crosses thousands must not hold up the event loop.
                market, at_ns = self._unfinished.popitem()
                self.review(market, at_ns)
                await anyio.lowlevel.checkpoint()
            over_s = self.orders.next_pause_over_s()
            with anyio.move_on_after(_LONGEST_WAIT_S if over_s is None else max(0.0, over_s - time.monotonic())):
                await self.orders.wake.wait()

    async def _read_endings(self) -> None:
        while True:
            for event in await self._endings.look():
                self._read(event)
            self.look_again()
            await self._endings.pause()

    async def _watch_accounts(self) -> None:
        while True:
            for address, generation in await self._accounts.look():
                reason = "Its user's account changed; it may be tried again."
                self.reopen(address, generation, reason, Reason.ACCOUNT)
            self.look_again()
            await self._accounts.pause()
