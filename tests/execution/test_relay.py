"""The relay desk, with the real journal and the real records: what it takes in, when, and what it gives back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup
from solders.signature import Signature

from keeper.domain.attempts import AttemptKind, AttemptState
from keeper.domain.errors import DryRun, JournalError
from keeper.domain.events import OrderSeen
from keeper.domain.orders import OnchainStatus, Order, OrderState
from keeper.domain.reports import Report
from keeper.execution.flights import Flight
from keeper.execution.orders import Orders, Reason
from keeper.execution.relay import RelayDesk, expired, landed
from keeper.execution.tries import RetryLimits
from keeper.execution.verdicts import Verdict
from keeper.journal import (
    AddPrepared,
    Journal,
    JournalConflict,
    NoteOrder,
    NoteState,
    PreparedStatus,
    Queries,
    SetMeta,
)
from keeper.journal.records import OrderRow, PreparedRow
from keeper.journal.sqlite.files import open_reader
from keeper.triggers.book import Book
from keeper.triggers.watchlist import Watched
from tests.journal.journal_making import make_cancel, make_order, make_prepared
from tests.support import until

pytestmark = pytest.mark.anyio


class Hands:
    """In the lander's place: what is tracked and launched, and what the journal's file held at that moment."""

    def __init__(self, journal: Journal) -> None:
        self.tracked: list[Flight] = []
        self.launched: list[Flight] = []
        self.durable: set[Signature] = set()
        self._journal = journal

    def track(self, flight: Flight) -> None:
        self.tracked.append(flight)

    def begin(self, flights: Sequence[Flight]) -> None:
        queries = Queries(open_reader(Path(self._journal.name)))
        self.durable |= {attempt.signature for attempt in queries.open_attempts()}
        queries.close()

    async def launch(self, flights: Sequence[Flight], sending: None) -> None:
        self.launched += flights


class Desk:
    """A relay desk on a journal that knows one resting order and its prepared cancel."""

    def __init__(self, journal: Journal, tasks: TaskGroup, *, dry_run: bool = False) -> None:
        self.journal = journal
        self.book = Book()
        self.orders = Orders(self.book, RetryLimits(5, 1.0, 1.0, 30))
        self.hands = Hands(journal)
        self.relay = RelayDesk(journal, cast(Any, self.hands), self.orders, tasks, _unreported, dry_run=dry_run)
        self.order: Order = make_order()
        self.cancel: PreparedRow = make_cancel("c", self.order.address)
        self.book.upsert(self.order)

    async def rest(self) -> None:
        await self.journal.commit(NoteOrder(self.order, OrderState.OPEN, "It rests."), AddPrepared(self.cancel))

    @property
    def cancels(self) -> object:
        """The signatures that the order's record knows as cancels in the air; None without any."""
        record = self.orders.get(self.order.address)
        return None if record is None else record.reasons.get(Reason.CANCEL)


def _unreported(report: Report) -> None:
    """Logs are not what these tests are about."""


def signed(number: int) -> bytes:
    """As far as the desk looks at it, a signed transaction is one byte, a signature, and more."""
    return b"\x01" + number.to_bytes(64, "big") + b"the message"


def signature(number: int) -> Signature:
    return Signature.from_bytes(signed(number)[1:65])


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with Journal.open(tmp_path / "j.db") as journal, anyio.create_task_group() as tasks:
        made = Desk(journal, tasks)
        await made.rest()
        yield made


async def test_what_it_took_is_durable_before_it_is_sent(desk: Desk) -> None:
    await desk.relay.submit(desk.cancel, signed(1))
    await until(lambda: desk.hands.launched)
    (flight,) = desk.hands.launched
    assert desk.hands.tracked == [flight]
    assert flight.signature in desk.hands.durable
    assert (flight.prepared, flight.cancels) == ("c", (desk.order.address,))
    (attempt,) = await desk.journal.open_attempts()
    assert (attempt.kind, attempt.state, attempt.wire) == (AttemptKind.RELAY, AttemptState.SIGNED, signed(1))
    assert attempt.blockhash == desk.cancel.blockhash
    assert attempt.last_valid_block_height == desk.cancel.last_valid_block_height
    row = await desk.journal.order(desk.order.address)
    assert row is not None
    assert row.state is OrderState.CANCELLING


async def test_what_it_took_when_the_keeper_stopped_to_work_is_left_to_who_works_next(tmp_path: Path) -> None:
    """Its caller is not of the keeper's work, and hears that it was taken."""
    async with Journal.open(tmp_path / "j.db") as journal:
        async with anyio.create_task_group() as tasks:
            desk = Desk(journal, tasks)
            await desk.rest()
            tasks.cancel_scope.cancel()
        await desk.relay.submit(desk.cancel, signed(1))
        assert [attempt.wire for attempt in await journal.open_attempts()] == [signed(1)]
        assert not desk.hands.launched
        assert not desk.hands.tracked


async def test_a_cancel_suspends_its_order_before_the_journal_has_it(desk: Desk) -> None:
    """While the journal writes, no execution of the order may be signed."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.relay.submit, desk.cancel, signed(1))
        await anyio.lowlevel.checkpoint()
        assert not desk.hands.tracked
        assert desk.cancels == {signature(1)}
        assert desk.book.watched(desk.order.address) is Watched.NOTHING
    assert desk.cancels == {signature(1)}


async def test_a_placing_suspends_nothing(desk: Desk) -> None:
    order = make_order(slot=0)
    placed = make_prepared("p", order=order.address)
    await desk.journal.commit(AddPrepared(placed))
    await desk.relay.submit(placed, signed(1), order)
    assert desk.orders.get(placed.order) is None
    row = await desk.journal.order(placed.order)
    assert row is not None
    assert (row.state, row.order) == (OrderState.SUBMITTED, order)


async def test_a_cancel_that_the_journal_refuses_releases_its_order(desk: Desk) -> None:
    unknown = make_cancel("of another journal", desk.order.address)
    with pytest.raises(JournalError):
        await desk.relay.submit(unknown, signed(1))
    assert desk.cancels is None
    assert desk.book.watched(desk.order.address) is Watched.EVERYTHING
    assert desk.order.address in desk.orders.freed, "it is looked at again"
    assert not desk.hands.tracked
    assert await desk.journal.open_attempts() == []


async def test_of_two_with_the_same_prepared_one_goes_on(desk: Desk) -> None:
    """The second may come from another wallet's session, so with another signature."""
    refused: list[JournalConflict] = []

    async def submit(number: int) -> None:
        try:
            await desk.relay.submit(desk.cancel, signed(number))
        except JournalConflict as error:
            refused.append(error)

    async with anyio.create_task_group() as tasks:
        for number in (1, 2):
            tasks.start_soon(submit, number)
    assert len(refused) == 1
    (attempt,) = await desk.journal.open_attempts()
    assert [flight.signature for flight in desk.hands.tracked] == [attempt.signature]
    assert desk.cancels == {attempt.signature}, "the refusal of one is not the other's end"
    (prepared,) = await desk.journal.prepared_of(desk.order.address)
    assert (prepared.status, prepared.signature) == (PreparedStatus.SUBMITTED, attempt.signature)


async def test_a_caller_that_goes_away_leaves_nothing_that_nobody_follows(desk: Desk) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await desk.relay.submit(desk.cancel, signed(1))
    attempts = await desk.journal.open_attempts()
    assert [flight.signature for flight in desk.hands.tracked] == [attempt.signature for attempt in attempts]
    assert desk.cancels == (frozenset({signature(1)}) if attempts else None)


async def test_a_dry_run_takes_nothing(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / "j.db") as journal, anyio.create_task_group() as tasks:
        desk = Desk(journal, tasks, dry_run=True)
        await desk.rest()
        with pytest.raises(DryRun):
            await desk.relay.submit(desk.cancel, signed(1))
        await journal.commit(SetMeta("after", "that"))
        assert desk.cancels is None
        assert await journal.open_attempts() == []
        (prepared,) = await journal.prepared_of(desk.order.address)
        assert prepared.status is PreparedStatus.PREPARED


async def order_placed_by(desk: Desk) -> tuple[Order, Flight]:
    """An order whose placing the keeper relayed, and which it has read since."""
    order = make_order(order_id=8, slot=7)
    await desk.journal.commit(AddPrepared(make_prepared("p", order=order.address)))
    await desk.relay.submit((await desk.journal.prepared_of(order.address))[0], signed(1), order)
    (flight,) = desk.hands.tracked
    flight.landed_slot = 7
    desk.book.upsert(order)
    return order, flight


async def told_of_its_landing(desk: Desk, order: Order, flight: Flight) -> OrderRow:
    """What the journal has of the order once its placing is confirmed."""
    verdict = Verdict.of(flight)
    landed(verdict, lambda _: order, lambda _: None, desk.orders)
    await desk.journal.commit(*verdict.ops)
    row = await desk.journal.order(order.address)
    assert row is not None
    return row


@pytest.mark.parametrize(("executes", "then"), [(False, OrderState.OPEN), (True, OrderState.EXECUTING)])
async def test_a_placing_that_lands_tells_of_all_but_an_execution_under_way(
    desk: Desk, *, executes: bool, then: OrderState
) -> None:
    """A stop that is being moved is told nowhere else: the order was `submitted` for ever."""
    order, flight = await order_placed_by(desk)
    desk.orders.begin(order, executes=executes).reasons[Reason.ATTEMPT] = signature(9)
    if executes:
        await desk.journal.commit(NoteOrder(order, OrderState.EXECUTING, "An attempt at it is on its way."))
    row = await told_of_its_landing(desk, order, flight)
    assert row.state is then


@pytest.mark.parametrize(("executes", "then"), [(False, OrderState.OPEN), (True, OrderState.EXECUTING)])
async def test_a_cancel_that_comes_to_nothing_leaves_what_holds_of_its_order(
    desk: Desk, *, executes: bool, then: OrderState
) -> None:
    desk.orders.begin(desk.order, executes=executes).reasons[Reason.ATTEMPT] = signature(9)
    await desk.relay.submit(desk.cancel, signed(1))
    verdict = Verdict.of(desk.hands.tracked[0])
    expired(verdict, lambda _: desk.order, 9, desk.orders)
    await desk.journal.commit(*verdict.ops)
    row = await desk.journal.order(desk.order.address)
    assert row is not None
    assert row.state is then


HELD = "Its condition is met, but an operator has paused the keeper."


@pytest.mark.parametrize("signed_since", [False, True])
async def test_a_placing_that_lands_leaves_why_its_execution_waits(desk: Desk, *, signed_since: bool) -> None:
    order, flight = await order_placed_by(desk)
    record = desk.orders.begin(order)
    record.held = HELD
    await desk.journal.commit(NoteOrder(order, OrderState.TRIGGERED, HELD, stands=True))
    if signed_since:  # what held it is over; by then the attempt has told more
        record.reasons[Reason.ATTEMPT] = signature(9)
        await desk.journal.commit(NoteOrder(order, OrderState.EXECUTING, "An attempt at it is on its way."))
    row = await told_of_its_landing(desk, order, flight)
    assert row.state is (OrderState.EXECUTING if signed_since else OrderState.TRIGGERED)
    assert (row.reason == HELD) is not signed_since


async def test_a_cancel_that_comes_to_nothing_leaves_why_its_orders_execution_waits(desk: Desk) -> None:
    desk.orders.begin(desk.order).held = HELD
    await desk.relay.submit(desk.cancel, signed(1))
    verdict = Verdict.of(desk.hands.tracked[0])
    expired(verdict, lambda _: desk.order, 9, desk.orders)
    await desk.journal.commit(*verdict.ops)
    row = await desk.journal.order(desk.order.address)
    assert row is not None
    assert (row.state, row.reason) == (OrderState.TRIGGERED, HELD)


async def test_a_cancel_that_comes_too_late_leaves_the_alarm_of_the_fill(desk: Desk) -> None:
    """The fill's own attempt told how the order ended. That its position is missing was told anew as a plain fill."""
    await desk.relay.submit(desk.cancel, signed(1))
    filled = desk.order._replace(status=OnchainStatus.FILLED, slot=desk.order.slot + 1)
    alarm = NoteState(filled.address, OrderState.FAILED, "It has no position.", slot=filled.slot, reopen=True)
    await desk.journal.commit(NoteOrder(filled), alarm)
    verdict = Verdict.of(desk.hands.tracked[0])
    expired(verdict, lambda _: filled, filled.slot + 1, desk.orders)
    await desk.journal.commit(*verdict.ops)
    row = await desk.journal.order(filled.address)
    assert row is not None
    assert (row.state, row.reason) == (OrderState.FAILED, "It has no position.")
    assert [event.order for event in verdict.news if isinstance(event, OrderSeen)] == [filled], "Endings hears of it"
