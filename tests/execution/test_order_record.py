"""The order's record against a small model of the chain, of what the keeper was told of it, and of what is in the air.

Whatever comes, in whatever order: an order that may be acted on is acted on, one that is not acted on has a reason
whose way out is open, nothing is tried twice at once or against its user's cancel, and nothing is kept of what is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from solders.pubkey import Pubkey

from keeper.domain.actions import RatchetStop
from keeper.domain.attempts import AttemptKind, Fate
from keeper.domain.events import OrderGone
from keeper.domain.orders import OnchainStatus, Order, OrderState, OrderType, fields_of
from keeper.domain.reports import FillAccepted
from keeper.execution.flights import Flight, Flights
from keeper.execution.lander import Landing, Polled
from keeper.execution.noting import RestingNotes
from keeper.execution.orders import OF_THE_ADDRESS, Orders, Reason, Record
from keeper.journal.ops import NoteOrder, NoteState
from keeper.telemetry.metrics import Metrics
from keeper.telemetry.reporting import Telemetry
from keeper.triggers.book import Book
from keeper.triggers.watchlist import Watched
from keeper.venue.program_errors import ProgramFailure
from tests.execution.paper_chain import ADDRESSES, LIMITS, UNREADABLE
from tests.execution.surroundings import ANY, OFTEN, ONE, REACHED_BY_NONE, SELDOM, UNSURE, Surroundings
from tests.triggers.order_making import SOL, key, make_order

BOUNDED = settings(
    derandomize=True,
    deadline=None,
    max_examples=120,
    stateful_step_count=60,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow],
)
FAILURES = {
    "ConditionNotMet": Fate.PRICE_MOVED_BACK,
    "ComputationalBudgetExceeded": Fate.TRANSIENT,
    "InsufficientCollateral": Fate.CANNOT_PAY,
    "InvalidLeverage": Fate.REFUSED,
    "OrderNotPending": Fate.LOST_RACE,
}


def met(order: Order, price_1e6: int) -> bool:
    if order.order_type is OrderType.TAKE_PROFIT:
        return price_1e6 >= order.stop_price_1e6
    return price_1e6 <= order.stop_price_1e6


class OrderRecords(Surroundings):
    """The keeper's own transactions, its restarts, and what holds after each step."""

    # -- what the keeper does

    @precondition(lambda self: self.life.flights.open)
    @rule(n=ANY, failure=st.sampled_from([None, None, None, None, *FAILURES]), told=OFTEN, asked=OFTEN, anew=SELDOM)
    def a_transaction_lands(self, n: int, failure: str | None, told: bool, asked: bool, anew: bool) -> None:
        """`anew`: and right after that another order is made at the address."""
        flight = self.flights()[n % len(self.flights())]
        address, signature = flight.attempt.order, flight.signature
        if signature in self.chain.landed or signature in self.chain.dead:
            return
        order = self.chain.read(address)
        if not isinstance(order, Order) or not order.pending:
            failure = "OrderNotPending"
        elif failure is None and flight.attempt.kind is AttemptKind.RELAY:
            self.end(order._replace(status=OnchainStatus.CANCELLED), told=told)
        elif failure is None and flight.attempt.kind is AttemptKind.EXECUTE:
            self.end(order._replace(status=OnchainStatus.FILLED), told=told)
        elif failure is None:
            action = self.of_attempt[signature][0].action
            assert isinstance(action, RatchetStop)
            if order.order_type is OrderType.TRAILING_STOP:
                self.end(order._replace(stop_price_1e6=action.new_stop_1e6), told=told)
        self.chain.slot += 1
        error = None if failure is None else ProgramFailure(failure, None, None, 2, "", FAILURES[failure])
        self.chain.landed[signature] = (self.chain.slot, error)
        if asked:
            self.chain.slot += 1
            self.chain.confirm()
            self.poll(flight)
        if anew:
            self.somebody_places_an_order(address, OrderType.STOP_LOSS, False, True, True)

    @precondition(lambda self: self.life.flights.open)
    @rule(n=ANY, dead=st.booleans())
    def a_transaction_is_asked_for(self, n: int, dead: bool) -> None:
        flight = self.flights()[n % len(self.flights())]
        if dead and flight.signature not in self.chain.landed:
            self.chain.dead.add(flight.signature)
            self.chain.root()
        self.poll(flight)

    def poll(self, flight: Flight) -> None:
        _, order = self.of_attempt.get(flight.signature, (None, self.armed_for.get(flight.signature)))
        if order is not None and flight.attempt.kind is not AttemptKind.RELAY:
            self.failures[flight.attempt.order, order.created_at] += 1
        self.loop.do(lambda: self.life.poll(flight))
        if order is not None and flight.attempt.fate in (None, Fate.EXECUTED, Fate.RATCHETED):
            self.failures[flight.attempt.order, order.created_at] -= 1

    @rule(ago=st.sampled_from([0, 0, 3]), lacks=st.sets(ONE, max_size=1))
    def the_keeper_is_killed_and_started(self, ago: int, lacks: set[Pubkey], *, polls: bool = False) -> None:
        """The first list may be old, or break off; with `polls` the attempts are asked about while it comes."""
        self.loop.kill()
        self.begin_life()
        life, slot = self.life, max(100, self.chain.slot - ago)
        self.chain_time_s = self.clock.time()

        async def start() -> None:
            await life.recovery.load()
            await life.begin()
            life.tell_time()
            load = life.lookout.begin_load()
            assert load is not None
            for address in ADDRESSES:
                account = self.chain.read(address, slot)
                if isinstance(account, Order) and account.pending and address not in lacks:
                    load.add([(bytes(address), fields_of(account))], slot)
                    self.hear(address, account, slot)
            self.loop.start(life)
            for flight in self.flights() if polls else []:
                await life.poll(flight)
            await life.lookout.end_load(load)
            await life.recovery.reconcile()

        self.loop.do(start)

    @rule(filled=st.none() | ONE, placed=st.none() | ONE, told=OFTEN, polls=st.booleans())
    def another_keeper_works_for_a_while(
        self, filled: Pubkey | None, placed: Pubkey | None, told: bool, polls: bool
    ) -> None:
        """This one stands by meanwhile, and hears what goes on or misses it; then it takes over."""
        lookout = self.life.lookout
        with lookout.leaving(self.life.router):
            pass
        self.loop.kill()
        self.life.orders.let_go()
        self.work(lookout)
        if filled is not None:
            self.an_order_is_filled_or_cancelled(filled, OnchainStatus.FILLED, told, False)
        if placed is not None:
            self.somebody_places_an_order(placed, OrderType.STOP_LOSS, False, told, True)
        life = self.life

        async def begin() -> None:
            await life.recovery.load()
            self.loop.start(life)
            for flight in self.flights() if polls else []:
                await life.poll(flight)
            await life.begin()
            await life.recovery.reconcile()

        self.loop.do(begin)
        self.sign_at_once()

    # -- what holds after each of these

    @invariant()
    def what_may_be_acted_on_is_acted_on(self) -> None:
        for address, (slot, account) in self.told.items():
            if not isinstance(account, Order) or not account.pending:
                continue
            order, record = self.life.book.get(address), self.life.orders.get(address)
            assert order is not None, f"an order that is pending in slot {slot} is not in the book"
            assert order.identity == account.identity
            if self.share is not None and order.market not in self.share:
                continue
            if self.price is None or self.clock.time() - self.price[1] > 60 or not met(account, self.price[0]):
                continue
            assert record is not None, f"no attempt at {order}"
            assert record.reasons, f"no attempt at {order}: {record}"

    @invariant()
    def each_reason_has_a_way_out(self) -> None:
        orders, book = self.life.orders, self.life.book
        for reason in Reason:
            having = {address for address in orders.addresses() if reason in _record(orders, address).reasons}
            assert having == set(orders.blocked(reason))
        for address in orders.addresses():
            record = _record(orders, address)
            assert book.watched(address) is record.watched
            for reason in record.reasons:
                assert self.way_out(record, reason), (
                    f"{reason.name} of {record} is never lifted; {self.ledger.row(address)}"
                )
        assert all(book.watched(a) is Watched.EVERYTHING for a in ADDRESSES if orders.get(a) is None)
        assert not orders.freed

    def way_out(self, record: Record, reason: Reason) -> bool:
        address, detail, life = record.address, record.reasons[reason], self.life
        if Reason.ENDED in record.reasons and reason not in OF_THE_ADDRESS:
            return isinstance(record.reasons[Reason.ENDED], int)  # a reading of its end settles the others with it
        match reason:
            case Reason.ATTEMPT if detail is None:
                return any(job.order.address == address for job in life.hands.queue)
            case Reason.ATTEMPT:
                return any(f.signature == detail and f.attempt.order == address for f in self.flights())
            case Reason.CANCEL:
                return detail == self.cancels(address) != frozenset() and detail <= life.flights.open.keys()
            case Reason.ENDED:
                return False
            case Reason.EXPIRED:
                order = life.book.get(address)
                if order is None:  # what can't be read is not in the book; a reading lifts both
                    return Reason.UNREADABLE in record.reasons
                return order.expired_at(int(self.clock.time()))
            case Reason.FAILED:
                row, known = self.ledger.row(address), self.told.get(address)
                if any(other < Reason.FAILED for other in record.reasons) or row is None:
                    return row is not None
                if known is not None and isinstance(known[1], Order):
                    assert self.failures[address, known[1].created_at], "another order than this one failed"
                return row.state is OrderState.FAILED  # or an operator can't let it be tried again
            case Reason.ACCOUNT:
                return isinstance(detail, Pubkey)
            case Reason.UNREADABLE:
                known = self.told.get(address)
                return known is None or known[1] in (UNREADABLE, UNSURE)
            case Reason.PAUSE:
                over_s = life.orders.next_pause_over_s()
                return isinstance(detail, float) and over_s is not None and self.clock.s < detail >= over_s
            case Reason.LATER_PRICE:
                waiting = life.orders.waiting.get(SOL, [])
                return any(slot == detail and raw == bytes(address) for slot, _, raw in waiting)
            case Reason.DRY_RUN:
                return False  # this keeper sends

    @invariant()
    def nothing_is_kept_of_what_is_gone(self) -> None:
        for address, (_, account) in self.told.items():
            record = self.life.orders.get(address)
            if record is not None and (account is None or (isinstance(account, Order) and not account.pending)):
                assert Reason.ENDED in record.reasons or record.reasons.keys() <= OF_THE_ADDRESS, record

    @invariant()
    def an_order_that_is_made_again_has_its_whole_budget(self) -> None:
        for address, (_, account) in self.told.items():
            record = self.life.orders.get(address)
            if record is not None and isinstance(account, Order) and account.pending:
                assert record.tries.used <= record.tries.failed <= self.failures[address, account.created_at], record

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            self.loop.close()
            self._clocks.undo()

    def settle(self) -> None:
        """When all has come to an end, records are kept of pending orders alone."""
        self.a_price_comes(REACHED_BY_NONE)
        for _ in range(6):
            self.time_passes(45.0)
            self.chain.root()
            while self.life.hands.queue:
                self.loop.do(self.life.sign)
            for flight in self.flights():
                if flight.signature not in self.chain.landed:
                    self.chain.dead.add(flight.signature)
                self.poll(flight)
            self.a_list_comes(0, True, set())  # which is all that it can rely on
            self.the_endings_are_read()
        assert not self.flights()
        for address in self.life.orders.addresses():
            account = self.chain.read(address)
            assert account is not None, f"kept: {_record(self.life.orders, address)}"
            assert isinstance(account, str) or account.pending, f"kept: {_record(self.life.orders, address)}"
            assert not _record(self.life.orders, address).reasons.keys() & {Reason.ENDED, *OF_THE_ADDRESS}
        self.what_may_be_acted_on_is_acted_on()
        self.each_reason_has_a_way_out()


def _record(orders: Orders, address: Pubkey) -> Record:
    record = orders.get(address)
    assert record is not None
    return record


OrderRecords.TestCase.settings = BOUNDED
TestOrderRecords = OrderRecords.TestCase


# -- steps that the machine takes in this order only now and then

A = ADDRESSES[0]


def holding_at_the_end(machine: OrderRecords) -> Iterator[OrderRecords]:
    """The keeper for one test: all that holds, holds at the end."""
    yield machine
    try:
        machine.what_may_be_acted_on_is_acted_on()
        machine.each_reason_has_a_way_out()
        machine.nothing_is_kept_of_what_is_gone()
        machine.an_order_that_is_made_again_has_its_whole_budget()
    finally:
        machine.teardown()


@pytest.fixture
def keeper() -> Iterator[OrderRecords]:
    """A keeper whose market has a price that meets the stop of an order at A."""
    machine = OrderRecords()
    machine.start()
    machine.somebody_places_an_order(A, OrderType.STOP_LOSS, False, True, False)
    yield from holding_at_the_end(machine)


def reasons(keeper: OrderRecords) -> set[Reason]:
    record = keeper.life.orders.get(A)
    return set() if record is None else set(record.reasons)


@pytest.mark.parametrize("failure", list(FAILURES))
def test_an_order_that_is_made_again_is_tried_whatever_the_one_before_waited_for(
    keeper: OrderRecords, failure: str
) -> None:
    keeper.a_transaction_lands(0, failure, True, True, False)
    keeper.somebody_places_an_order(A, OrderType.STOP_LOSS, False, True, True)
    assert reasons(keeper) == {Reason.ATTEMPT}


@pytest.mark.parametrize("failure", list(FAILURES))
def test_nothing_is_kept_of_an_order_once_its_end_was_read(keeper: OrderRecords, failure: str) -> None:
    keeper.a_transaction_lands(0, failure, True, True, False)
    keeper.a_price_comes(REACHED_BY_NONE)
    keeper.an_order_is_filled_or_cancelled(A, OnchainStatus.CANCELLED, True, False)
    assert Reason.ENDED in reasons(keeper)
    keeper.the_chain_votes(True, True)
    while keeper.flights():
        keeper.a_transaction_is_asked_for(0, True)
    keeper.the_endings_are_read()
    assert keeper.life.orders.get(A) is None


def test_what_the_journal_told_of_an_order_is_not_held_against_another_that_was_read_since(
    keeper: OrderRecords,
) -> None:
    """It failed for good; while this keeper stood by it was closed, and another made at its address."""
    keeper.a_transaction_lands(0, "InvalidLeverage", True, True, False)
    assert reasons(keeper) == {Reason.FAILED}
    keeper.another_keeper_works_for_a_while(None, A, told=True, polls=False)
    assert reasons(keeper) == {Reason.ATTEMPT}


def test_nor_are_the_tries_of_one_whose_cancel_is_in_the_air_still(keeper: OrderRecords) -> None:
    keeper.its_user_has_the_keeper_cancel_it(A)
    keeper.a_transaction_lands(0, "ComputationalBudgetExceeded", True, True, False)
    keeper.another_keeper_works_for_a_while(None, A, told=True, polls=False)
    record = keeper.life.orders.get(A)
    assert record is not None
    assert (set(record.reasons), record.tries.used, record.tries.failed) == ({Reason.CANCEL}, 0, 0)


def test_an_order_that_can_not_be_read_is_read_by_who_takes_over(keeper: OrderRecords) -> None:
    keeper.a_transaction_lands(0, "ConditionNotMet", True, True, False)
    lookout = keeper.life.lookout
    with lookout.leaving(keeper.life.router):
        pass
    keeper.its_account_becomes_unreadable_or_reads_well_again(A, True, True, OnchainStatus.PENDING)
    keeper.chain.slot += 1
    keeper.chain.confirm()
    assert lookout.decision.book.get(A) is None
    keeper.another_keeper_works_for_a_while(None, None, told=True, polls=False)
    keeper.the_endings_are_read()
    assert reasons(keeper) == {Reason.UNREADABLE}


def test_a_cancel_in_the_air_holds_up_the_next_order_too(keeper: OrderRecords) -> None:
    keeper.a_transaction_is_asked_for(0, True)
    keeper.its_user_has_the_keeper_cancel_it(A)
    keeper.somebody_places_an_order(A, OrderType.STOP_LOSS, False, True, True)
    assert reasons(keeper) == {Reason.CANCEL}
    keeper.a_transaction_is_asked_for(0, True)
    assert reasons(keeper) == {Reason.ATTEMPT}


def test_what_the_end_of_a_cancel_tells_while_a_first_list_comes_is_not_lost(keeper: OrderRecords) -> None:
    keeper.its_user_has_the_keeper_cancel_it(A)
    keeper.a_transaction_lands(1, "ConditionNotMet", False, False, False)
    keeper.chain.slot += 1
    keeper.the_chain_votes(True, True)
    keeper.the_keeper_is_killed_and_started(0, {A}, polls=True)
    assert keeper.life.book.get(A) is not None
    assert len(keeper.life.book) == 1


def test_an_attempt_goes_on_when_the_cancel_laid_over_it_comes_to_nothing(keeper: OrderRecords) -> None:
    keeper.its_user_has_the_keeper_cancel_it(A)
    assert reasons(keeper) == {Reason.ATTEMPT, Reason.CANCEL}
    keeper.a_transaction_is_asked_for(1, True)
    assert reasons(keeper) == {Reason.ATTEMPT}


def test_an_execution_and_a_cancel_that_expire_together_leave_the_order_open(keeper: OrderRecords) -> None:
    """The cancel's end said that the attempt was on its way, which it was until a moment before."""
    keeper.its_user_has_the_keeper_cancel_it(A)
    keeper.a_price_comes(REACHED_BY_NONE)
    execution, cancel = keeper.flights()
    keeper.chain.dead |= {execution.signature, cancel.signature}
    keeper.chain.root()
    polled = Polled(dead=Landing(keeper.chain.rooted, [execution, cancel]))
    keeper.failures[A, keeper.of_attempt[execution.signature][1].created_at] += 1
    keeper.loop.do(lambda: keeper.life.router.settle(polled))
    row = keeper.ledger.row(A)
    assert row is not None
    assert row.state is OrderState.OPEN


def test_the_rooting_of_a_ratchet_does_not_end_the_next_one(keeper: OrderRecords) -> None:
    keeper.a_price_comes(100_000_000)
    keeper.a_transaction_is_asked_for(0, True)
    keeper.somebody_places_an_order(A, OrderType.TRAILING_STOP, False, True, True)
    keeper.a_transaction_lands(0, None, True, True, False)
    keeper.a_price_comes(115_000_000)
    first, second = keeper.flights()
    keeper.chain.root()
    keeper.poll(first)
    assert keeper.flights() == [second]
    assert reasons(keeper) == {Reason.ATTEMPT}


def test_a_move_of_the_stop_leaves_its_order_open(keeper: OrderRecords) -> None:
    """What was said of it before may hold no more: that it is triggered, by a price that is gone since."""
    keeper.a_price_comes(100_000_000)
    keeper.a_transaction_is_asked_for(0, True)
    keeper.somebody_places_an_order(A, OrderType.TRAILING_STOP, False, True, True)
    order = keeper.life.book.get(A)
    assert order is not None
    keeper.loop.do(
        lambda: keeper.ledger.commit(NoteState(A, OrderState.TRIGGERED, "Its condition is met, but paused."))
    )
    keeper.a_transaction_lands(0, None, True, True, False)
    row = keeper.ledger.row(A)
    assert row is not None
    assert row.state is OrderState.OPEN


def test_a_cancel_that_a_fork_dropped_is_in_the_air_again(keeper: OrderRecords) -> None:
    keeper.a_transaction_is_asked_for(0, True)
    keeper.its_user_has_the_keeper_cancel_it(A)
    keeper.a_transaction_lands(0, None, True, True, False)
    keeper.a_fork_drops_what_was_not_voted_on(True, True)
    keeper.a_transaction_is_asked_for(0, False)
    assert Reason.CANCEL in reasons(keeper)


def test_a_later_price_lifts_the_wait_for_it(keeper: OrderRecords) -> None:
    keeper.a_transaction_lands(0, "ConditionNotMet", True, True, False)
    assert reasons(keeper) == {Reason.LATER_PRICE}
    keeper.a_price_comes(85_000_000)
    assert reasons(keeper) == {Reason.ATTEMPT}


def test_an_end_that_no_node_has_reached_is_not_believed_for_ever(keeper: OrderRecords) -> None:
    keeper.a_transaction_is_asked_for(0, True)
    keeper.loop.do(lambda: keeper.life.lookout.on_event(OrderGone(A, keeper.chain.slot + 1_000)))
    assert reasons(keeper) >= {Reason.ENDED}
    for _ in range(2):
        keeper.the_endings_are_read()
        keeper.time_passes(12.0)
    keeper.the_endings_are_read()
    assert reasons(keeper) == {Reason.ATTEMPT}


@pytest.mark.parametrize(
    ("reasons", "state"),
    [
        ((), OrderState.OPEN),
        ((Reason.PAUSE,), OrderState.OPEN),
        ((Reason.LATER_PRICE,), OrderState.OPEN),
        ((Reason.PAUSE, Reason.LATER_PRICE), OrderState.OPEN),
        ((Reason.ATTEMPT,), None),
        ((Reason.FAILED, Reason.LATER_PRICE), None),
        ((Reason.DRY_RUN,), None),
    ],
)
def test_an_order_that_nothing_but_time_or_a_price_holds_up_is_open(
    reasons: tuple[Reason, ...], state: OrderState | None
) -> None:
    """After a restart the row of one that was triggered under a pause stayed so, as its stop was to be moved first."""
    orders, order = Orders(Book(), LIMITS), make_order()
    record = orders.record(order.address, order)
    for reason in reasons:
        orders.block(record, reason)
    note = RestingNotes(cast(Any, None), orders.book, orders, Flights()).of(order)
    assert (note.state, note.reopen) == (state, state is not None)


def test_an_expiry_is_told_though_another_keeper_noted_a_later_reading() -> None:
    """Who takes over has the order as its own watch read it last."""
    machine = OrderRecords()
    machine.start()
    machine.a_price_comes(REACHED_BY_NONE)
    machine.somebody_places_an_order(A, OrderType.STOP_LOSS, True, True, False)
    known = machine.life.book.get(A)
    assert known is not None
    machine.ledger.post(NoteOrder(known._replace(slot=known.slot + 1)))
    machine.time_passes(45.0)
    row = machine.ledger.row(A)
    assert row is not None
    assert row.state is OrderState.EXPIRED
    machine.teardown()


def test_a_start_meets_an_account_that_does_not_decode_any_more() -> None:
    machine = OrderRecords()
    machine.start()
    machine.the_keeper_is_killed_and_started(0, set())
    machine.somebody_places_an_order(A, OrderType.STOP_LOSS, False, True, False)
    machine.its_account_becomes_unreadable_or_reads_well_again(A, True, True, OnchainStatus.PENDING)
    machine.the_chain_votes(rooted=False, read=False)
    machine.the_keeper_is_killed_and_started(0, set())
    assert machine.life.orders.has(A, Reason.UNREADABLE)
    machine.teardown()


def test_a_fill_that_creates_no_position_and_is_accepted_is_counted(keeper: OrderRecords) -> None:
    keeper.a_transaction_lands(0, None, True, True, False)
    (told,) = [report for report in keeper.life.reports if isinstance(report, FillAccepted)]
    assert told.order == A
    metrics = Metrics("0")
    Telemetry(metrics).report(told)
    assert metrics.registry.get_sample_value("keeper_fills_accepted_without_position_total") == 1


@pytest.mark.parametrize("reason", list(Reason))
def test_each_reason_is_a_sentence_for_people(reason: Reason) -> None:
    orders, order = Orders(Book(), LIMITS), make_order(expires_at=1_700_000_100)
    record = orders.record(order.address, order)
    assert record.sentence(order, 0.0) is None
    detail: dict[Reason, Any] = {Reason.PAUSE: 12.5, Reason.LATER_PRICE: 7, Reason.UNREADABLE: UNREADABLE}
    orders.block(record, reason, detail.get(reason, key(9)))
    sentence = record.sentence(order, 10.0)
    assert sentence is not None
    assert sentence.endswith(".")
