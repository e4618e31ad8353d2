"""Order states: what may follow what, and when a change is one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keeper.domain.errors import DuplicateAttempt, JournalError
from keeper.domain.orders import OnchainStatus, OrderState
from keeper.journal import Journal, NoteOrder, NoteState
from keeper.journal.applying import apply
from keeper.journal.ops import Intend
from keeper.journal.queue import merge, mergeable
from keeper.journal.touched import Rows
from keeper.journal.transitions import ALLOWED, reason_class
from tests.journal.journal_making import key, make_attempt, make_order

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("old", list(OrderState))
@pytest.mark.parametrize("new", list(OrderState))
def test_an_end_is_an_end(old: OrderState, new: OrderState) -> None:
    if old.terminal and not new.terminal:
        assert (old, new) not in ALLOWED
    if old.terminal and new.terminal and old not in (OrderState.DROPPED, OrderState.EXPIRED):
        assert ((old, new) in ALLOWED) is (old is new)
    if not old.terminal and new.terminal:
        assert (old, new) in ALLOWED


async def test_what_the_account_says_stands_against_what_the_clock_says(place: Path | str) -> None:
    """An old list showed it pending after its user had cancelled it, and by then it was past its expiry."""
    order = make_order(slot=100)
    cancelled = order._replace(slot=120, status=OnchainStatus.CANCELLED)
    async with Journal.open(place) as journal:
        await journal.commit(NoteOrder(order, OrderState.EXPIRED, "It is past its expiry."))
        await journal.commit(NoteOrder(cancelled, OrderState.CANCELLED, "Its user cancelled it."))
        await journal.commit(NoteState(order.address, OrderState.DROPPED, "Its account is gone."))
        row = await journal.order(order.address)
        assert row is not None
        assert (row.state, row.reason) == (OrderState.CANCELLED, "Its user cancelled it.")


def test_failed_is_not_revived_by_a_tick_and_a_cancel_blocks() -> None:
    assert (OrderState.FAILED, OrderState.TRIGGERED) not in ALLOWED
    assert (OrderState.FAILED, OrderState.OPEN) not in ALLOWED
    assert (OrderState.FAILED, OrderState.CANCELLING) in ALLOWED
    assert (OrderState.FAILED, OrderState.FILLED) in ALLOWED
    assert (OrderState.CANCELLING, OrderState.EXECUTING) not in ALLOWED
    assert (OrderState.CANCELLING, OrderState.OPEN) in ALLOWED
    assert (OrderState.PREPARED, OrderState.SUBMITTED) in ALLOWED
    assert (OrderState.OPEN, OrderState.SUBMITTED) not in ALLOWED


async def test_a_fork_or_an_operator_reopens(place: Path | str) -> None:
    order = make_order()
    async with Journal.open(place) as journal:
        await journal.commit(NoteOrder(order), NoteState(order.address, OrderState.FILLED, "Filled."))
        await journal.commit(NoteState(order.address, OrderState.OPEN, "It rests."))
        row = await journal.order(order.address)
        assert row is not None
        assert row.state is OrderState.FILLED
        await journal.commit(NoteState(order.address, OrderState.OPEN, "A fork dropped it.", reopen=True))
        row = await journal.order(order.address)
        assert row is not None
        assert (row.state, row.reason) == (OrderState.OPEN, "A fork dropped it.")
        page = await journal.orders(user=order.user, states=[s for s in OrderState if not s.terminal])
        assert [item.address for item in page.items] == [order.address], "its index entry came back too"


async def test_older_facts_never_overwrite_newer_ones(place: Path | str) -> None:
    order = make_order(slot=200)
    older = order._replace(slot=150, stop_price_1e6=1)
    async with Journal.open(place) as journal:
        await journal.commit(NoteOrder(order))
        await journal.commit(NoteOrder(older, OrderState.CANCELLED, "An old sighting."))
        row = await journal.order(order.address)
        assert row is not None
        assert (row.order, row.state, row.version) == (order, OrderState.OPEN, 1)
        same_facts = order._replace(slot=300)
        await journal.commit(NoteOrder(same_facts))
        await journal.commit(NoteOrder(older._replace(slot=299)))
        row = await journal.order(order.address)
        assert row is not None
        assert row.order == same_facts
        assert row.version == 1, "a later sighting of the same is no visible change"


async def test_of_two_readings_of_one_slot_the_one_in_which_it_had_ended_is_the_later(place: Path | str) -> None:
    """A list from before a fill, told after a restart, had a stop moved of an order that was filled."""
    order = make_order(slot=200)
    filled = order._replace(status=OnchainStatus.FILLED)
    again = order._replace(created_at=order.created_at + 1)
    async with Journal.open(place) as journal:
        await journal.commit(NoteOrder(filled, OrderState.FILLED, "Filled."))
        await journal.commit(NoteOrder(order, OrderState.OPEN, "It rests.", reopen=True))
        row = await journal.order(order.address)
        assert row is not None
        assert (row.order, row.state) == (filled, OrderState.FILLED)
        with pytest.raises(DuplicateAttempt):
            await journal.commit(Intend(order, make_attempt(order.address), "", None, None))
        await journal.commit(NoteOrder(again, OrderState.OPEN, "It rests."))
        row = await journal.order(order.address)
        assert row is not None
        assert (row.order, row.state) == (again, OrderState.OPEN), "it was cancelled and made again in that slot"


async def test_a_state_that_was_not_concluded_from_its_facts_stands_where_these_are_old(place: Path | str) -> None:
    """After a restart behind a node that lags, the order in memory is older than the row for a while."""
    order = make_order(slot=200)
    older = order._replace(slot=150)
    another = older._replace(created_at=order.created_at - 1)
    async with Journal.open(place) as journal:
        await journal.commit(NoteOrder(order, OrderState.FAILED, "Its user could not pay."))
        await journal.commit(NoteOrder(another, OrderState.OPEN, "Paid in.", reopen=True, stands=True))
        row = await journal.order(order.address)
        assert row is not None
        assert row.state is OrderState.FAILED, "that is about the order that was at its address before"
        await journal.commit(NoteOrder(older, OrderState.OPEN, "Paid in.", reopen=True, stands=True))
        row = await journal.order(order.address)
        assert row is not None
        assert (row.order, row.state, row.reason) == (order, OrderState.OPEN, "Paid in.")


async def test_a_change_is_recorded_when_state_or_reason_really_changed(place: Path | str) -> None:
    order = make_order()
    async with Journal.open(place) as journal:
        await journal.commit(NoteOrder(order, OrderState.OPEN, "Waits for 95.5; the price is 97.1."))
        await journal.commit(NoteState(order.address, OrderState.OPEN, "Waits for 95.5; the price is 96.05."))
        await journal.commit(NoteState(order.address, OrderState.OPEN, "Its market is paused."))
        await journal.commit(NoteState(order.address, OrderState.OPEN, "Its market is paused."))
        await journal.commit(NoteOrder(order._replace(status=OnchainStatus.CANCELLED, slot=101), OrderState.CANCELLED))
        changes = await journal.changes_of(order.address)
        assert [(c.state.value, c.reason) for c in changes] == [
            ("open", "Waits for 95.5; the price is 97.1."),
            ("open", "Its market is paused."),
            ("cancelled", "Its account reads cancelled."),
        ]
        row = await journal.order(order.address)
        assert row is not None
        assert row.version == 4
        with pytest.raises(JournalError, match="needs a reason"):
            await journal.commit(
                NoteState(order.address, OrderState.CANCELLED, ""),
                NoteState(order.address, OrderState.OPEN, "", reopen=True),
            )


def test_reason_class() -> None:
    assert reason_class("Price 95.1 is above 95.") == reason_class("Price 1,096 is above 95.")
    assert reason_class("Paused.") != reason_class("Stale.")


async def test_what_triggered_it_and_its_position(place: Path | str) -> None:
    order = make_order()
    position = key()
    async with Journal.open(place) as journal:
        await journal.commit(NoteOrder(order, client_order_id="mine"))
        await journal.commit(
            NoteState(
                order.address,
                OrderState.TRIGGERED,
                "The price crossed.",
                triggered_at=1_700_000_000.987654,
                trigger_price_1e6=2**64 - 1,
                trigger_slot=2**63,
            ),
            NoteState(order.address, OrderState.FILLED, "Filled.", position=position),
        )
        row = await journal.order(order.address)
        assert row is not None
        assert (row.triggered_at, row.trigger_price_1e6, row.trigger_slot, row.position) == (
            1_700_000_000.987654,
            2**64 - 1,
            2**63,
            position,
        )
        assert (row.client_order_id, row.reason) == ("mine", "Filled.")


ADDRESS, USER = key(), key()
STATES = st.sampled_from([None, OrderState.OPEN, OrderState.TRIGGERED, OrderState.FILLED, OrderState.FAILED])
NOTES = st.lists(
    st.one_of(
        st.builds(
            lambda slot, made_at, state, reopen, stands: NoteOrder(
                make_order(address=ADDRESS, user=USER, slot=slot, stop_price_1e6=slot, created_at=made_at),
                state,
                "Noted.",
                reopen=reopen,
                stands=stands,
                at=1.0,
            ),
            st.integers(1, 5),
            st.sampled_from([7, 7, 8]),
            STATES,
            st.booleans(),
            st.booleans(),
        ),
        st.builds(
            lambda state, price: NoteState(ADDRESS, state, "Said.", trigger_price_1e6=price, at=1.0),
            STATES.filter(lambda state: state is not None),
            st.none() | st.integers(0, 9),
        ),
    ),
    min_size=2,
    max_size=2,
)


@given(NOTES, st.integers(0, 6), st.sampled_from([7, 7, 8]))
def test_merged_notes_leave_the_order_as_the_two_would(
    notes: list[NoteOrder | NoteState], slot: int, made_at: int
) -> None:
    assume(mergeable(*notes))
    apart, merged = Rows(), Rows()
    for rows in (apart, merged):
        apply(rows, [NoteOrder(make_order(address=ADDRESS, user=USER, slot=slot, created_at=made_at), at=1.0)], 1.0)
    apply(apart, notes, 1.0)
    apply(merged, [merge(*notes)], 1.0)
    one, two = apart.orders[str(ADDRESS)], merged.orders[str(ADDRESS)]
    assert one is not None
    assert two is not None
    assert (
        one.identity(),
        one.state,
        one.onchain_status,
        one.stop_price,
        one.filled_size,
        one.slot,
        one.trigger_price,
    ) == (
        two.identity(),
        two.state,
        two.onchain_status,
        two.stop_price,
        two.filled_size,
        two.slot,
        two.trigger_price,
    )
