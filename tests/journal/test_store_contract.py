"""What the journal asks of a store, held against each store there is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from solders.pubkey import Pubkey

from keeper.domain.attempts import AttemptKind, AttemptState, Fate
from keeper.domain.errors import DuplicateAttempt, JournalError
from keeper.domain.orders import OnchainStatus, OrderState
from keeper.domain.ways import Answer, WayRow
from keeper.journal import (
    AddAttempt,
    AddPrepared,
    CountOfDay,
    DropPrepared,
    JournalConflict,
    LimitReached,
    MoveAttempt,
    MovePrepared,
    NoteOrder,
    NoteState,
    PreparedStatus,
    Queries,
    Retention,
    UseBudget,
    home_of,
)
from keeper.journal.ops import Disarm, Intend, Launched, NoteWays, Op, TooLate
from keeper.journal.store import Store
from tests.journal.journal_making import make_attempt, make_order, make_prepared

Opened = tuple[Store, Queries]


@pytest.fixture
def opened(place: Path | str) -> Iterator[Opened]:
    home = home_of(place)
    store = home.open_store(lambda: None)
    queries = home.open_queries()
    yield store, queries
    assert home.verify() == []
    queries.close()
    store.close()


def refused(store: Store, *callers: tuple[Op, ...]) -> list[type[JournalError] | None]:
    return [None if error is None else type(error) for error in store.apply(callers, durable=True)]


def test_what_was_applied_is_read_by_others(opened: Opened) -> None:
    store, queries = opened
    order = make_order()
    assert refused(store, (NoteOrder(order),)) == [None]
    row = queries.order(order.address)
    assert row is not None
    assert row.order == order
    assert store.apply([(NoteState(order.address, OrderState.FAILED, "Why not."),)], durable=False) == [None]
    assert [change.state for change in queries.changes_of(order.address)] == [OrderState.OPEN, OrderState.FAILED]


def test_one_callers_refusal_is_not_the_others_loss(opened: Opened) -> None:
    store, queries = opened
    known, unknown = make_order(), make_order()
    first, second = make_attempt(known.address), make_attempt(known.address, number=2)
    found = refused(
        store,
        (NoteOrder(known), AddAttempt(first)),
        (NoteOrder(unknown), NoteState(make_order().address, OrderState.OPEN, "Of an order that nobody knows.")),
        (AddAttempt(second),),
        (UseBudget(known.address),),
    )
    assert found == [None, JournalError, DuplicateAttempt, None]
    assert queries.order(unknown.address) is None, "all of a caller's operations, or none"
    row = queries.order(known.address)
    assert row is not None
    assert (row.budget_used, row.attempts_made) == (1, 1)
    assert [attempt.signature for attempt in queries.attempts_of(known.address)] == [first.signature]


def test_the_stores_own_rules_refuse_alone(opened: Opened) -> None:
    """A signature that is there already, and a number that does not fit: found out by the store, not in memory."""
    store, queries = opened
    one, other, third = make_order(), make_order(), make_order()
    attempt = make_attempt(one.address, kind=AttemptKind.RELAY)
    assert refused(store, (NoteOrder(one), AddAttempt(attempt))) == [None]
    again = attempt._replace(order=other.address)
    found = refused(
        store, (NoteOrder(other), AddAttempt(again)), (NoteOrder(third),), (NoteOrder(one._replace(size_1e6=2**64)),)
    )
    assert found == [DuplicateAttempt, None, JournalError]
    assert queries.order(other.address) is None
    assert queries.order(third.address) is not None
    ids = [change.id for address in (one, third) for change in queries.changes_of(address.address)]
    assert sorted(ids) == list(range(1, store.last_change_id + 1)), "no gaps"


def test_an_order_has_one_live_attempt_until_that_ends(opened: Opened) -> None:
    store, _ = opened
    order = make_order()
    first, second = make_attempt(order.address), make_attempt(order.address, number=2)
    assert refused(store, (NoteOrder(order), AddAttempt(first))) == [None]
    assert refused(store, (Intend(order, second, "Again.", None, OrderState.EXECUTING),)) == [DuplicateAttempt]
    assert refused(store, (MoveAttempt(first.signature, AttemptState.FAILED), AddAttempt(second))) == [None]
    assert refused(store, (MoveAttempt(first.signature, AttemptState.SENT),)) == [JournalError], "an end stays"


@pytest.mark.parametrize("published_at", [1_700_000_098, -1, 2**62])
def test_where_a_posted_price_came_from_is_kept_with_the_attempt(opened: Opened, published_at: int) -> None:
    """In the same transaction as the intent, and for as long as its row."""
    store, queries = opened
    order = make_order()
    posts = make_attempt(
        order.address,
        trigger_price_1e6=94_200_000,
        trigger_slot=101,
        posted_from=make_order().address,
        posted_published_at=published_at,
    )
    assert refused(store, (Intend(order, posts, "Now.", 1.5, OrderState.EXECUTING),)) == [None]
    assert queries.attempts_of(order.address) == queries.open_attempts() == [posts]
    assert refused(store, (MoveAttempt(posts.signature, AttemptState.FAILED, fate=Fate.CRANK_REFUSED),)) == [None]
    ended = posts._replace(state=AttemptState.FAILED, fate=Fate.CRANK_REFUSED)
    assert queries.executions().items == (ended,)
    posts_none = make_attempt(order.address, number=2)
    assert refused(store, (AddAttempt(posts_none),)) == [None]
    assert queries.attempts_of(order.address) == [ended, posts_none]


@pytest.mark.parametrize("fate", [Fate.EXECUTED, Fate.NO_POSITION])
def test_an_execution_that_met_an_order_made_again_explains_its_end(opened: Opened, fate: Fate) -> None:
    """Its bytes name an address. Signed for the order before, it may fill the one that is there by then."""
    store, queries = opened
    position = make_order().address
    before = make_order(slot=100)
    attempt = make_attempt(before.address, position=position)
    again = before._replace(created_at=before.created_at + 9, slot=109)
    filled = again._replace(status=OnchainStatus.FILLED, slot=110)
    assert refused(store, (Intend(before, attempt, "Now.", 1.5, OrderState.EXECUTING),)) == [None]
    landed = MoveAttempt(attempt.signature, AttemptState.CONFIRMED, fate=fate)
    met = (
        NoteState(before.address, OrderState.FILLED, "By this keeper.", slot=110, position=position)
        if fate is Fate.EXECUTED
        else NoteState(before.address, OrderState.FAILED, "It has no position.", slot=110)
    )
    assert refused(store, (NoteOrder(again),)) == [None]
    assert refused(store, (landed,)) == [None]
    assert queries.explained([before.address]) == {}, "as far as is known, it filled the one before"
    assert refused(store, (NoteOrder(filled), met)) == [None]
    assert queries.explained([before.address]) == {before.address: fate}


def test_an_armed_attempt_is_the_orders_one_live_attempt_and_none_of_its_history(opened: Opened) -> None:
    store, queries = opened
    order = make_order()
    armed = make_attempt(order.address, state=AttemptState.ARMED, built_from="a reading")
    second = make_attempt(order.address)
    assert refused(store, (NoteOrder(order), AddAttempt(armed))) == [None]
    assert refused(store, (AddAttempt(second._replace(state=AttemptState.ARMED)),)) == [DuplicateAttempt]
    assert refused(store, (Intend(order, second, "Now.", None, OrderState.EXECUTING),)) == [DuplicateAttempt]
    assert queries.open_attempts() == [armed]
    row = queries.order(order.address)
    assert row is not None
    assert (row.attempts_made, row.version) == (0, 1), "nobody who follows the order hears of it"
    assert queries.attempts_of(order.address) == []
    assert queries.executions().items == ()
    assert queries.tried_since(0.0) == []


@pytest.mark.parametrize("together", [True, False])
def test_what_is_disarmed_leaves_the_journal_and_makes_room(opened: Opened, together: bool) -> None:
    """Also where it was armed by an earlier caller of the same group."""
    store, queries = opened
    order = make_order()
    armed, again = (make_attempt(order.address, state=AttemptState.ARMED) for _ in range(2))
    sent = make_attempt(order.address)
    callers: list[tuple[Op, ...]] = [
        (NoteOrder(order), AddAttempt(armed)),
        (Disarm(armed.signature), AddAttempt(again)),
        (Disarm(armed.signature),),
        (Disarm(again.signature), AddAttempt(again)),
        (Disarm(again.signature), Intend(order, sent, "Now.", None, OrderState.EXECUTING)),
    ]
    assert (refused(store, *callers) if together else [e for c in callers for e in refused(store, c)]) == [None] * 5
    assert queries.open_attempts() == queries.attempts_of(order.address) == [sent]
    assert queries.attempt(armed.signature) is queries.attempt(again.signature) is None


def test_what_was_sent_can_not_be_disarmed_and_what_was_disarmed_can_not_move(opened: Opened) -> None:
    store, queries = opened
    order, other = make_order(), make_order()
    armed, disarmed = (make_attempt(o.address, state=AttemptState.ARMED) for o in (order, other))
    assert refused(store, (NoteOrder(order), AddAttempt(armed)), (NoteOrder(other), AddAttempt(disarmed))) == [None] * 2
    launched = Launched(order, armed._replace(trigger_price_1e6=7, trigger_slot=8), "Sent.", 5.0, OrderState.EXECUTING)
    assert refused(store, (launched,), (Disarm(disarmed.signature),)) == [None, None]
    assert refused(store, (Disarm(armed.signature),)) == [DuplicateAttempt]
    found = refused(store, (MoveAttempt(disarmed.signature, AttemptState.SENT),), (Launched(other, disarmed, "Sent."),))
    assert found == [JournalError, JournalError]
    (attempt,) = queries.attempts_of(order.address)
    assert (attempt.state, attempt.trigger_price_1e6, attempt.trigger_slot) == (AttemptState.SIGNED, 7, 8)
    row = queries.order(order.address)
    assert row is not None
    assert (row.state, row.triggered_at, row.trigger_price_1e6, row.attempts_made) == (OrderState.EXECUTING, 5.0, 7, 1)


def test_what_is_known_of_an_armed_attempt_stays_when_its_send_is_told_later(opened: Opened) -> None:
    store, queries = opened
    order = make_order()
    armed = make_attempt(order.address, state=AttemptState.ARMED)
    assert refused(store, (NoteOrder(order), AddAttempt(armed))) == [None]
    assert refused(store, (MoveAttempt(armed.signature, AttemptState.SEEN, seen_slot=9),)) == [None]
    assert refused(store, (Launched(order, armed, "Sent.", 5.0, OrderState.EXECUTING),)) == [None]
    assert [(a.state, a.seen_slot) for a in queries.attempts_of(order.address)] == [(AttemptState.SEEN, 9)]


def test_an_intent_is_one_operation(opened: Opened) -> None:
    store, queries = opened
    order = make_order(slot=50)
    attempt = make_attempt(order.address, trigger_price_1e6=7, trigger_slot=8)
    assert refused(store, (NoteOrder(order),)) == [None]
    older = order._replace(slot=40)
    assert refused(store, (Intend(older, attempt, "Met at 7.", 9.5, OrderState.EXECUTING),)) == [None]
    row = queries.order(order.address)
    assert row is not None
    assert (row.state, row.reason, row.order.slot) == (OrderState.EXECUTING, "Met at 7.", 50)
    assert (row.triggered_at, row.trigger_price_1e6, row.trigger_slot, row.attempts_made) == (9.5, 7, 8, 1)
    assert queries.open_attempts() == [attempt]


def test_no_intent_by_older_facts_than_the_orders_end(opened: Opened) -> None:
    """A node that is behind says after a restart that it rests; then none is armed either."""
    store, queries = opened
    order = make_order(slot=50)
    assert refused(store, (NoteOrder(order),)) == [None]
    filled = order._replace(slot=60, status=OnchainStatus.FILLED)
    assert refused(store, (NoteOrder(filled, OrderState.FILLED, "It is filled."),)) == [None]
    intent = Intend(order, make_attempt(order.address), "Met.", None, OrderState.EXECUTING)
    armed = make_attempt(order.address, state=AttemptState.ARMED)
    to_arm = (NoteOrder(order, to_arm=True), AddAttempt(armed))
    assert refused(store, (intent,), to_arm) == [DuplicateAttempt] * 2
    assert queries.attempts_of(order.address) == queries.open_attempts() == []
    # A fork dropped that end: it rests again, by news from a later slot.
    anew = order._replace(slot=70)
    assert refused(store, (NoteOrder(anew, OrderState.OPEN, "It rests.", reopen=True),)) == [None]
    assert refused(store, (NoteOrder(anew, to_arm=True), AddAttempt(armed))) == [None]
    again = Intend(anew, make_attempt(order.address), "Met.", None, OrderState.EXECUTING)
    assert refused(store, (Disarm(armed.signature), again)) == [None]


def test_who_took_over_with_an_older_reading_says_that_an_order_rests_unless_it_ended(opened: Opened) -> None:
    store, queries = opened
    order = make_order(slot=60)
    older = order._replace(slot=50)
    rests = NoteOrder(older, OrderState.OPEN, "It rests.", reopen=True, stands=True)
    for state in (OrderState.TRIGGERED, OrderState.FAILED):
        assert refused(store, (NoteOrder(order, state, "By another keeper."),), (rests,)) == [None, None]
        row = queries.order(order.address)
        assert row is not None
        assert (row.state, row.reason, row.order.slot) == (OrderState.OPEN, "It rests.", 60)
    filled = order._replace(slot=70, status=OnchainStatus.FILLED)
    assert refused(store, (NoteOrder(filled, OrderState.FILLED, "It is filled."),), (rests,)) == [None, None]
    row = queries.order(order.address)
    assert row is not None
    assert row.state is OrderState.FILLED, "or it would be executed again"


def test_an_intent_that_comes_too_late_is_refused_alone(opened: Opened) -> None:
    store, queries = opened
    late, order = make_order(), make_order()
    now = time.time()
    found = refused(
        store,
        (Intend(late, make_attempt(late.address), "Met.", None, OrderState.EXECUTING, now - 0.1),),
        (Intend(order, make_attempt(order.address), "Met.", None, OrderState.EXECUTING, now + 60),),
    )
    assert found == [TooLate, None]
    assert queries.order(late.address) is None
    assert [attempt.order for attempt in queries.open_attempts()] == [order.address]


@pytest.mark.parametrize("way", ["note", "intent"])
def test_another_order_at_the_address_is_another_generation(opened: Opened, way: str) -> None:
    store, queries = opened
    order = make_order(slot=50)
    attempt = make_attempt(order.address)
    end = (
        MoveAttempt(attempt.signature, AttemptState.FAILED, fate=Fate.REFUSED),
        UseBudget(order.address, 3),
        NoteOrder(order._replace(slot=60, status=OnchainStatus.CANCELLED), OrderState.CANCELLED, "Cancelled."),
    )
    assert refused(store, (NoteOrder(order), AddAttempt(attempt)), end) == [None, None]
    anew = order._replace(slot=70, created_at=order.created_at + 1)
    op: Op = NoteOrder(anew)
    if way == "intent":
        op = Intend(anew, make_attempt(order.address), "Met.", 1.0, OrderState.EXECUTING)
    assert refused(store, (op,)) == [None]
    row = queries.order(order.address)
    assert row is not None
    assert (row.order, row.budget_used) == (anew, 0)
    assert (row.state, row.attempts_made) == ((OrderState.EXECUTING, 1) if way == "intent" else (OrderState.OPEN, 0))
    assert len(queries.attempts_of(order.address)) == (2 if way == "intent" else 1)


def test_an_end_is_told_once(opened: Opened) -> None:
    store, queries = opened
    order = make_order(slot=50, status=OnchainStatus.FILLED)
    assert refused(store, (NoteOrder(order, OrderState.FILLED, "Filled by this keeper.", at=1.0),)) == [None]
    before, changes = queries.order(order.address), store.last_change_id
    again = NoteOrder(order._replace(slot=60), OrderState.FILLED, "Another keeper filled it.", at=2.0)
    assert refused(store, (again,)) == [None]
    after = queries.order(order.address)
    assert before is not None
    assert after is not None
    assert (after.reason, after.updated_at, after.version) == (before.reason, 1.0, before.version)
    assert store.last_change_id == changes


def test_what_an_own_attempt_explains(opened: Opened) -> None:
    store, queries = opened
    orders = {fate: make_order(created_at=1_000) for fate in (Fate.EXECUTED, Fate.NO_POSITION, Fate.REFUSED)}
    for fate, order in orders.items():
        attempt = make_attempt(order.address, signed_at=1_010.0)
        state = AttemptState.FAILED if fate is Fate.REFUSED else AttemptState.CONFIRMED
        assert refused(store, (NoteOrder(order), AddAttempt(attempt), MoveAttempt(attempt.signature, state, fate=fate)))
    addresses: list[Pubkey] = [order.address for order in orders.values()]
    explained = {orders[fate].address: fate for fate in (Fate.EXECUTED, Fate.NO_POSITION)}
    assert queries.explained(addresses) == explained
    executed = orders[Fate.EXECUTED]
    refused(store, (NoteOrder(executed._replace(created_at=2_000, slot=executed.slot + 1)),))
    assert executed.address not in queries.explained(addresses), "that was another order"


def test_the_sends_of_an_attempt_add_up_by_way_and_go_with_it(opened: Opened) -> None:
    store, queries = opened
    order, other = make_order(), make_order()
    sent = make_attempt(order.address, tip_lamports=2**63 + 1, tip_account=make_order().address, signed_at=1.0)
    armed, unknown = make_attempt(other.address, state=AttemptState.ARMED), make_attempt(other.address)
    refused(store, (NoteOrder(order, at=1.0), NoteOrder(other), AddAttempt(sent), AddAttempt(armed)))
    assert queries.attempt(sent.signature) == sent
    first, second = (WayRow(sent.signature, way, 10.0, 1) for way in ("rpc", "fast"))
    news = first._replace(sent_at=11.0, sends=2, answer=Answer.REFUSED, detail="no", answered_at=11.5)
    ignored = [WayRow(attempt.signature, "rpc", 10.0, 1) for attempt in (armed, unknown)]
    assert refused(store, (NoteWays((first, *ignored)),), (NoteWays((second,)),)) == [None, None]
    assert queries.ways_of([sent.signature, armed.signature]) == {sent.signature: [second, first]}
    # Once more in one group, and with an answer that none that is missing takes back.
    assert refused(store, (NoteWays((news,)),), (NoteWays((first._replace(sent_at=12.0),)),)) == [None, None]
    told = news._replace(sent_at=10.0, sends=4)
    assert queries.ways_of([sent.signature]) == {sent.signature: [second, told]}
    accepted = news._replace(sends=0, answer=Answer.ACCEPTED, detail=None, answered_at=13.0)
    assert refused(store, (NoteWays((accepted,)),)) == [None]
    assert queries.ways_of([sent.signature])[sent.signature][1] == accepted._replace(sent_at=10.0, sends=4)
    end = MoveAttempt(sent.signature, AttemptState.FAILED, fate=Fate.REFUSED)
    refused(store, (end,), (NoteState(order.address, OrderState.FAILED, "It failed."),))
    while not store.prune(Retention(history_days=1), 1e9).done:
        pass
    assert queries.attempt(sent.signature) is None
    assert queries.ways_of([sent.signature]) == {}


def test_what_is_old_and_over_is_removed(opened: Opened) -> None:
    store, queries = opened
    old, resting = make_order(), make_order()
    refused(store, (NoteOrder(old, OrderState.CANCELLED, "Cancelled.", at=1.0), NoteOrder(resting, at=1.0)))
    pruned = store.prune(Retention(history_days=1), 1e9)
    assert (pruned.orders, pruned.done) == (1, False)
    assert store.prune(Retention(history_days=1), 1e9).done
    assert queries.order(old.address) is None
    assert queries.order(resting.address) is not None
    assert store.last_change_id == 2, "ids are never used twice"


def test_many_at_once_are_what_they_are_one_by_one(opened: Opened) -> None:
    store, queries = opened
    orders = [make_order(expires_at=n) for n in range(300)]
    assert refused(store, *[(NoteOrder(order, at=1.25),) for order in orders]) == [None] * 300
    moved = [(NoteState(order.address, OrderState.FAILED, "Number 7.", at=1.1 + n),) for n, order in enumerate(orders)]
    assert refused(store, *moved) == [None] * 300
    rows = queries.orders_at([order.address for order in orders])
    assert [rows[order.address].order for order in orders] == orders
    assert [rows[order.address].updated_at for order in orders] == [1.1 + n for n in range(300)], "to the last bit"


def test_what_was_prepared_and_came_to_nothing_is_forgotten_with_its_key_and_the_rest_is_not(opened: Opened) -> None:
    store, queries = opened
    rows = [make_prepared(f"p{n}", idempotency_key=f"k{n}") for n in range(3)]
    assert refused(store, *((AddPrepared(row),) for row in rows)) == [None] * 3
    moves = (MovePrepared("p1", PreparedStatus.SUBMITTED), MovePrepared("p2", PreparedStatus.EXPIRED))
    assert refused(store, moves) == [None]
    anew = make_prepared("anew", idempotency_key="k0")
    assert refused(store, (AddPrepared(anew),)) == [JournalConflict]
    drops = tuple(DropPrepared(row_id) for row_id in ("p0", "p1", "p2", "never there"))
    assert refused(store, (*drops, AddPrepared(anew))) == [None]
    assert [queries.prepared(row.id) is not None for row in rows] == [False, True, False]
    by_key = [queries.prepared_by_key(f"k{n}") for n in range(3)]
    assert [row and row.id for row in by_key] == ["anew", "p1", None]


def test_a_refused_callers_drop_is_undone(opened: Opened) -> None:
    store, queries = opened
    row = make_prepared("p", idempotency_key="k")
    assert refused(store, (AddPrepared(row),)) == [None]
    unknown = NoteState(make_order().address, OrderState.OPEN, "Of an order that nobody knows.")
    other = make_prepared("other", idempotency_key="k")
    assert refused(store, (DropPrepared("p"), unknown), (AddPrepared(other),)) == [JournalError, JournalConflict]
    assert queries.prepared("p") is not None


def test_a_days_count_comes_to_its_limit_whoever_counts(opened: Opened) -> None:
    """Two callers of one group, and one after the other: each sees what those before it have counted."""
    store, queries = opened

    def one_more(day: str = "2026-01-02", n: int = 1) -> tuple[Op, ...]:
        return (CountOfDay("made", day, n, 3 if n > 0 else None),)

    assert refused(store, one_more(), one_more()) == [None, None]
    assert queries.meta("made") == "2026-01-02 2"
    assert refused(store, one_more(), one_more(), one_more(n=-1), one_more()) == [None, LimitReached, None, None]
    assert queries.meta("made") == "2026-01-02 3"
    assert refused(store, one_more()) == [LimitReached]
    assert queries.meta("made") == "2026-01-02 3"
    assert refused(store, one_more("2026-01-03")) == [None], "another day"
    assert refused(store, one_more("2026-01-03", -2)) == [None]
    assert queries.meta("made") == "2026-01-03 0"
