"""The order's record of a keeper that works on one of two markets, where orders of both come to the same addresses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from solders.pubkey import Pubkey

from keeper.domain.events import OrderGone, OrderSeen
from keeper.domain.orders import OnchainStatus, Order, OrderState, OrderType, fields_of
from keeper.execution.drafting import Job
from keeper.execution.orders import Reason
from tests.execution.paper_chain import ADDRESSES
from tests.execution.surroundings import KINDS, OFTEN, ONE, REACHED_BY_NONE, SELDOM
from tests.execution.test_order_record import BOUNDED, OrderRecords, holding_at_the_end
from tests.triggers.order_making import BTC, SOL, make_order

A, B = ADDRESSES
MET = 85_000_000


class SharedRecords(OrderRecords):
    """What holds of a keeper's records holds of those of one with a share: here of SOL's orders."""

    share = frozenset({SOL})

    @rule(address=ONE, kind=st.sampled_from(list(KINDS)), expires=SELDOM, told=OFTEN)
    def somebody_places_one_in_another_market(
        self, address: Pubkey, kind: OrderType, expires: bool, told: bool
    ) -> None:
        """What is pending there is cancelled and closed first, of which the keeper hears nothing."""
        if isinstance(known := self.chain.read(address), str):
            return
        if known is not None:
            self.chain.write(address, None)
        self.time_passes(1.0)
        now = int(self.clock.time())
        fields: dict[str, Any] = {"created_at": now, "expires_at": now + 20 if expires else 0, "market": BTC}
        number = ADDRESSES.index(address) + 1
        self.end(make_order(number, order_type=kind, **KINDS[kind], **fields), told=told)

    @rule(price_1e6=st.sampled_from([MET, 115_000_000]))
    def a_price_of_another_market_comes(self, price_1e6: int) -> None:
        self.chain.slot += 1
        self.loop.do(lambda: self.life.tell_price(price_1e6, BTC))
        self.sign_at_once()

    @rule(address=ONE)
    def its_user_has_the_keeper_cancel_it(self, address: Pubkey) -> None:
        """One of another market is cancelled by another keeper."""
        order = self.life.book.get(address)
        if order is not None and order.market in self.share:
            super().its_user_has_the_keeper_cancel_it(address)

    def in_the_air_is_its_own(self) -> bool:
        """Else the journal has another market's order at the address by now: whose keeper that is follows it, from
        when that one's next time of work begins.
        """
        rows = [self.ledger.row(address) for flight in self.flights() for address in flight.orders]
        return all(row is None or row.order.market in self.share for row in rows)

    @precondition(in_the_air_is_its_own)
    @rule(ago=st.sampled_from([0, 0, 3]), lacks=st.sets(ONE, max_size=1))
    def the_keeper_is_killed_and_started(self, ago: int, lacks: set[Pubkey], *, polls: bool = False) -> None:
        super().the_keeper_is_killed_and_started(ago, lacks, polls=polls)

    @precondition(in_the_air_is_its_own)
    @rule(filled=st.none() | ONE, placed=st.none() | ONE, told=OFTEN, polls=st.booleans())
    def another_keeper_works_for_a_while(
        self, filled: Pubkey | None, placed: Pubkey | None, told: bool, polls: bool
    ) -> None:
        super().another_keeper_works_for_a_while(filled, placed, told, polls)

    def taken(self, job: Job) -> None:
        assert job.order.market in self.share, "another keeper's order was acted on"
        super().taken(job)


SharedRecords.TestCase.settings = BOUNDED
TestSharedRecords = SharedRecords.TestCase


# -- steps that the machine takes in this order only now and then


@pytest.fixture
def keeper() -> Iterator[SharedRecords]:
    """A keeper that has heard prices that meet every stop."""
    machine = SharedRecords()
    machine.start()
    machine.a_price_of_another_market_comes(MET)
    for _ in holding_at_the_end(machine):
        yield machine


def state(keeper: SharedRecords, address: Pubkey) -> OrderState | None:
    """The order's state in the journal."""
    row = keeper.ledger.row(address)
    return None if row is None else row.state


def placed(keeper: SharedRecords, address: Pubkey, **fields: Any) -> Order:
    """An order is placed there, unheard of."""
    order = make_order(ADDRESSES.index(address) + 1, created_at=int(keeper.clock.time()), **fields)
    return order._replace(slot=keeper.chain.write(address, order))


def test_so_many_expired_orders_of_others_do_not_keep_an_own_one_from_being_told(keeper: SharedRecords) -> None:
    """The decision tells one expiry at a sighting of the clock, the longest past first."""
    keeper.a_price_comes(REACHED_BY_NONE)
    now = int(keeper.clock.time())
    for address, market, expires_at in ((B, BTC, now + 5), (A, SOL, now + 10)):
        keeper.end(make_order(ADDRESSES.index(address) + 1, market=market, expires_at=expires_at), told=True)
    for _ in range(2):
        keeper.time_passes(12.0)
    assert (state(keeper, A), state(keeper, B)) == (OrderState.EXPIRED, None)
    keeper.share = frozenset({BTC})
    keeper.another_keeper_works_for_a_while(None, None, told=True, polls=False)
    for _ in range(2):
        keeper.time_passes(12.0)
    assert state(keeper, B) is OrderState.EXPIRED


def test_nothing_is_kept_of_anothers_expired_order_that_is_closed(keeper: SharedRecords) -> None:
    keeper.somebody_places_one_in_another_market(B, OrderType.STOP_LOSS, True, True)
    keeper.time_passes(45.0)
    assert keeper.life.orders.has(B, Reason.EXPIRED)
    keeper.its_account_is_closed(B, True)
    keeper.an_order_is_filled_or_cancelled(B, OnchainStatus.CANCELLED, True, True)
    assert keeper.life.orders.get(B) is None
    assert state(keeper, B) is None


@pytest.mark.parametrize("told", [True, False])
def test_an_attempt_in_the_air_outlives_its_order_and_frees_no_order_of_another_market(
    keeper: SharedRecords, told: bool
) -> None:
    """What is there now was told, or is read when the attempt has ended."""
    keeper.somebody_places_an_order(A, OrderType.STOP_LOSS, False, True, False)
    keeper.somebody_places_one_in_another_market(A, OrderType.STOP_LOSS, False, told)
    assert keeper.life.orders.has(A, Reason.ATTEMPT)
    keeper.a_transaction_is_asked_for(0, True)
    assert keeper.flights() == []
    assert keeper.life.orders.free(A)
    known, row = keeper.life.book.get(A), keeper.ledger.row(A)
    assert known is not None
    assert row is not None
    assert (known.market, row.order.market) == (BTC, SOL), "it is another keeper's to note"
    keeper.somebody_places_an_order(A, OrderType.STOP_LOSS, False, True, True)
    assert keeper.life.orders.has(A, Reason.ATTEMPT)


def test_what_is_held_back_while_a_list_comes_is_divided_by_what_the_list_says(keeper: SharedRecords) -> None:
    keeper.a_price_comes(REACHED_BY_NONE)
    own, others = placed(keeper, A), placed(keeper, B, market=BTC)
    lookout, slot = keeper.life.lookout, keeper.chain.slot

    async def list_comes() -> None:
        load = lookout.begin_load()
        assert load is not None
        load.add([(bytes(B), fields_of(others))], slot)
        lookout.on_event(OrderSeen(own))
        lookout.on_event(OrderGone(B, slot + 1))
        assert (own.address in lookout.decision.book, keeper.ledger.row(A)) == (False, None)
        await lookout.end_load(load)

    keeper.hear(A, own, own.slot)
    keeper.loop.do(list_comes)
    assert (state(keeper, A), state(keeper, B)) == (OrderState.OPEN, None)
    assert keeper.life.orders.addresses() == []
    assert len(lookout.decision.book) == 1
