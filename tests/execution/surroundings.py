"""What users, other keepers, nodes, the oracle and time do around a keeper, as the rules of a state machine."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.attempts import AttemptKind
from keeper.domain.events import OrderGone
from keeper.domain.orders import OnchainStatus, Order, OrderType, fields_of
from keeper.execution import arming, armory, endings, lookout, router
from keeper.execution.drafting import Job
from keeper.execution.flights import Flight
from keeper.execution.lookout import Lookout
from keeper.execution.orders import Reason
from tests.execution.paper_chain import ADDRESSES, UNREADABLE, Account, Chain, Clock, Ledger, Life, Loop
from tests.triggers.order_making import make_order

KINDS = {
    OrderType.STOP_LOSS: {"stop_price_1e6": 90_000_000},
    OrderType.TAKE_PROFIT: {"stop_price_1e6": 110_000_000},
    OrderType.TRAILING_STOP: {"stop_price_1e6": 90_000_000, "trailing_distance_ppm": 50_000},
}
UNSURE = "read, and not told"
REACHED_BY_NONE = 94_000_000
ONE = st.sampled_from(ADDRESSES)
ANY = st.integers(0, 5)
OFTEN = st.sampled_from([True, True, True, False])
SELDOM = st.sampled_from([False, False, False, True])


class Surroundings(RuleBasedStateMachine):
    """A keeper on a chain of two addresses. `told` is the newest that it was told of each in this life."""

    share: frozenset[Pubkey] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.chain, self.loop = Clock(), Chain(), Loop()
        self.ledger = Ledger(self.clock)
        self.failures: Counter[tuple[Pubkey, int]] = Counter()
        self.of_attempt: dict[Signature, tuple[Job, Order]] = {}
        self.armed_for: dict[Signature, Order] = {}
        self._clocks = pytest.MonkeyPatch()
        for room in (lookout, router, endings, armory, arming):
            self._clocks.setattr(room, "time", self.clock)
        self.begin_life()
        self.slow = False

    def begin_life(self) -> None:
        self.told: dict[Pubkey, tuple[int, Account]] = {}
        self.price: tuple[int, float] | None = None
        self.chain_time_s = 0.0
        self.work()

    def work(self, lookout: Lookout | None = None) -> None:
        """Be about to work, with what the `lookout` of a keeper that stood by knows, or with nothing."""
        self.life = Life(self.chain, self.clock, self.ledger, self.read, lookout, self.share)
        self.life.hands.taken = self.taken
        self.life.arms.left = self.left

    def read(self, address: Pubkey, account: Account) -> None:
        """It was read at confirmed: what that is worth beside the news is the reader's to say."""
        if address in ADDRESSES:
            self.hear(address, UNSURE, self.chain.confirmed)

    def hear(self, address: Pubkey, account: Account, slot: int) -> None:
        if address not in self.told or slot > self.told[address][0]:
            self.told[address] = (slot, account)

    def tell(self, address: Pubkey, slot: int) -> None:
        self.hear(address, self.chain.read(address, slot), slot)
        self.loop.do(lambda: self.life.tell(address, slot))
        self.sign_at_once()

    def sign_at_once(self) -> None:
        while self.life.hands.queue and not self.slow:
            self.a_job_is_signed()

    def flights(self) -> list[Flight]:
        return list(self.life.flights.open.values())

    def cancels(self, address: Pubkey) -> frozenset[Signature]:
        return frozenset(
            attempt.signature
            for attempt in self.ledger.rows.added.values()
            if attempt.kind is AttemptKind.RELAY and attempt.order == address and attempt.state.in_flight
        )

    def taken(self, job: Job) -> None:
        address = job.order.address
        live = self.ledger.rows.live.get(str(address))
        assert live in (None, *map(str, self.life.arms.signatures(address))), "a second attempt at one order"
        assert all(other.order.address != address for other in self.life.hands.queue), "it was decided twice"
        assert not self.cancels(address), "an attempt was begun against its user's cancel"

    def left(self, job: Job, flight: Flight) -> None:
        assert not self.cancels(job.order.address), "sent against its user's cancel"
        self.of_attempt[flight.signature] = (job, job.order)

    # -- what users and other keepers do

    @initialize()
    def start(self) -> None:
        self.loop.start(self.life)
        self.loop.do(self.life.begin)
        self.loop.do(self.life.tell_time)
        self.a_price_comes(85_000_000)

    @rule(address=ONE, kind=st.sampled_from(list(KINDS)), expires=SELDOM, told=OFTEN, anew=st.booleans())
    def somebody_places_an_order(self, address: Pubkey, kind: OrderType, expires: bool, told: bool, anew: bool) -> None:
        """`anew`: the one that is pending there is cancelled and closed first, of which the keeper hears nothing."""
        known = self.chain.read(address)
        rests = isinstance(known, Order) and known.pending
        if isinstance(known, str) or (rests and not anew):
            return
        if known is not None:
            self.chain.write(address, None)
        self.time_passes(1.0)
        now = int(self.clock.time())
        number = ADDRESSES.index(address) + 1
        fields: dict[str, Any] = {"created_at": now, "expires_at": now + 20 if expires else 0}
        self.end(make_order(number, order_type=kind, **KINDS[kind], **fields), told=told)

    @rule(
        address=ONE, status=st.sampled_from([OnchainStatus.FILLED, OnchainStatus.CANCELLED]), told=OFTEN, closed=SELDOM
    )
    def an_order_is_filled_or_cancelled(self, address: Pubkey, status: OnchainStatus, told: bool, closed: bool) -> None:
        order = self.chain.read(address)
        if not isinstance(order, Order) or not order.pending:
            return
        self.end(order._replace(status=status), told=told)
        if closed:
            self.its_account_is_closed(address, told)

    def end(self, order: Order, *, told: bool) -> None:
        slot = self.chain.write(order.address, order)
        if told:
            self.tell(order.address, slot)

    @rule(address=ONE, told=OFTEN)
    def its_account_is_closed(self, address: Pubkey, told: bool) -> None:
        order = self.chain.read(address)
        if isinstance(order, str) or (order is not None and not order.pending):
            slot = self.chain.write(address, None)
            if told:
                self.tell(address, slot)

    @rule(address=ONE, told=OFTEN, rare=SELDOM, to=st.sampled_from([OnchainStatus.PENDING, OnchainStatus.FILLED]))
    def its_account_becomes_unreadable_or_reads_well_again(
        self, address: Pubkey, told: bool, rare: bool, to: OnchainStatus
    ) -> None:
        account = self.chain.read(address)
        if isinstance(account, Order) and account.pending and rare:
            self.hidden = {**getattr(self, "hidden", {}), address: account}
            slot = self.chain.write(address, UNREADABLE)
        elif isinstance(account, str):
            slot = self.chain.write(address, self.hidden[address]._replace(status=to))
        else:
            return
        if told:
            self.tell(address, slot)

    @rule(address=ONE)
    def its_user_has_the_keeper_cancel_it(self, address: Pubkey) -> None:
        order = self.life.book.get(address)
        if order is not None and not self.cancels(address):
            self.loop.do(lambda: self.life.relay_cancel(order))

    @rule(address=ONE, operator=st.booleans())
    def what_a_failed_order_waits_for_comes(self, address: Pubkey, operator: bool) -> None:
        record = self.life.orders.get(address)
        if record is None or address not in self.life.book:
            return
        failed = record.reasons.keys() & {Reason.ACCOUNT, Reason.FAILED}
        if operator and failed and failed == record.reasons.keys():
            self.loop.do(lambda: self.life.operator.retry(address))
            assert not self.life.orders.has(address, Reason.FAILED)
        elif Reason.ACCOUNT in failed:
            self.life.paid_in.freed.append((address, record.generation))
            self.loop.do(self.life.paid_in.ask.set)
        assert not self.life.orders.has(address, Reason.ACCOUNT) or len(record.reasons) > 1

    # -- what the keeper is told

    @rule(address=ONE, ago=st.integers(0, 6))
    def news_comes_late_or_twice(self, address: Pubkey, ago: int) -> None:
        self.tell(address, max(100, self.chain.slot - ago))

    @rule(ago=st.sampled_from([0, 0, 0, 2, 5]), whole=OFTEN, some=st.sets(ONE))
    def a_list_comes(self, ago: int, whole: bool, some: set[Pubkey]) -> None:
        slot = max(100, self.chain.slot - ago)
        for address in ADDRESSES:
            account = self.chain.read(address, slot)
            if not whole and address not in some:
                continue
            if isinstance(account, Order) and account.pending:
                if self.life.lookout.unchanged(address, fields_of(account), slot):
                    self.hear(address, account, slot)
                else:
                    self.tell(address, slot)
            elif isinstance(account, str):
                self.tell(address, slot)
        if whole:
            self.tell_of_the_gone(slot)

    def tell_of_the_gone(self, slot: int) -> None:
        lacked = [a for a in ADDRESSES if not isinstance(it := self.chain.read(a, slot), str)]
        lacked = [a for a in lacked if not (isinstance(it := self.chain.read(a, slot), Order) and it.pending)]
        for address in set(self.life.lookout.not_seen_since(slot, 0)[0]).intersection(lacked):
            gone = OrderGone(address, slot)
            self.loop.do(lambda gone=gone: self.life.lookout.on_event(gone))  # type: ignore[misc]
        for address in lacked:
            self.hear(address, None, slot)

    @rule(price_1e6=st.sampled_from([85_000_000, 115_000_000, 85_000_000, 115_000_000, REACHED_BY_NONE, 100_000_000]))
    def a_price_comes(self, price_1e6: int) -> None:
        self.chain.slot += 1
        self.price = (price_1e6, int(self.clock.time()))
        self.loop.do(lambda: self.life.tell_price(price_1e6))
        self.sign_at_once()

    @rule(seconds=st.sampled_from([1.0, 3.0, 12.0, 45.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.s += seconds
        self.chain.slot += 1
        if seconds > 5:
            self.chain.confirm()
        self.chain_time_s = self.clock.time()
        self.life.orders.wake.set()  # the timer of the next pause's end
        self.loop.do(self.life.tell_time)
        self.sign_at_once()

    @rule(rooted=st.booleans(), read=st.booleans())
    def the_chain_votes(self, rooted: bool, read: bool) -> None:
        (self.chain.root if rooted else self.chain.confirm)()
        if read:
            self.the_endings_are_read()

    @rule(deep=SELDOM, told=OFTEN)
    def a_fork_drops_what_was_not_voted_on(self, deep: bool, told: bool) -> None:
        before = self.chain.slot
        self.chain.fork(deep=deep)
        for address in ADDRESSES:
            if told and self.chain.read(address, before) != self.chain.read(address):
                self.tell(address, self.chain.slot)

    def the_endings_are_read(self) -> None:
        self.loop.do(self.life.endings.ask.set)

    # -- the executor's pace

    @rule(slow=st.booleans())
    def its_executor_is_slow_or_not(self, slow: bool) -> None:
        self.slow = slow
        self.sign_at_once()

    @rule()
    def what_is_near_is_armed(self) -> None:
        self.loop.do(self.life.arms.arming.look)
        self.note_what_is_armed()

    @rule()
    def what_is_near_is_armed_where_that_changed(self) -> None:
        arms = self.life.arms
        self.loop.do(lambda: arms.arming.look(arms.armory.stirred()))
        self.note_what_is_armed()

    def note_what_is_armed(self) -> None:
        """It may have been sent when the keeper is killed, and land in its next life."""
        for _, armed in self.life.arms.armory:
            if armed.order is not None:
                self.armed_for[armed.attempt.signature] = armed.order

    @precondition(lambda self: self.life.hands.queue)
    @rule()
    def a_job_is_signed(self) -> None:
        job = self.life.hands.queue[0]
        self.loop.do(self.life.sign)
        for flight in self.flights():
            if flight.generation == job.generation and flight.signature not in self.of_attempt:
                assert not self.cancels(job.order.address), "signed against its user's cancel"
                self.of_attempt[flight.signature] = (job, job.order)
