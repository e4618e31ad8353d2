"""Facts in, actions out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from solders.pubkey import Pubkey

from keeper.domain.actions import Action, ExecuteOrder, RatchetStop, RecordExpired
from keeper.domain.events import ChainTime, OrderGone, OrderSeen
from keeper.domain.orders import REVISION_0_1, OnchainStatus, Order, OrderType, Side
from keeper.triggers.conditions import is_met
from keeper.triggers.decision import Rules
from keeper.triggers.prices import BreakerRules
from keeper.triggers.watchlist import Watched
from tests.triggers.desk import Desk
from tests.triggers.order_making import BTC, REPEATABLE, SOL, key, make_order, market_seen

NOW_S = 1_000.0
HIGH, LOW = 100_000_000, 85_000_000
"""Prices above and below the stop of 90 that `make_order` gives."""


def decision(**rules: Any) -> Desk:
    return Desk(Rules(**({"breaker": None} | rules)))


def place(desk: Desk, number: int = 1, **fields: Any) -> list[Action]:
    return desk.on_order(OrderSeen(make_order(number, **fields)), NOW_S, 55)


def release(desk: Desk, number: int = 1, after_price_slot: int | None = None) -> list[Action]:
    return desk.release(key(number), after_price_slot=after_price_slot, now_s=NOW_S, at_ns=66)


def executed(actions: list[Action]) -> list[Pubkey]:
    return [action.order.address for action in actions if isinstance(action, ExecuteOrder)]


def test_a_price_executes_what_it_triggers_and_nothing_else() -> None:
    desk = decision()
    place(desk, 1)
    place(desk, 2, stop_price_1e6=80_000_000)
    place(desk, 3, market=BTC)
    assert desk.on_market(market_seen(HIGH, 11), NOW_S) == []
    (action,) = desk.on_market(market_seen(LOW, 12), NOW_S)
    assert isinstance(action, ExecuteOrder)
    assert (action.order.address, action.price.slot, action.triggered_at_ns) == (key(1), 12, 77)


def test_an_order_that_arrives_already_met_is_executed_at_once() -> None:
    desk = decision()
    desk.on_market(market_seen(LOW, 11), NOW_S)
    (action,) = place(desk)
    assert isinstance(action, ExecuteOrder)
    assert (action.price.price_1e6, action.triggered_at_ns) == (LOW, 55)


def test_an_order_is_executed_once_until_it_is_released() -> None:
    desk = decision()
    place(desk)
    assert executed(desk.on_market(market_seen(LOW, 11), NOW_S)) == [key(1)]
    assert desk.on_market(market_seen(LOW - 1, 12), NOW_S) == []
    assert place(desk, slot=13, stop_price_1e6=95_000_000) == []
    assert executed(release(desk)) == [key(1)]
    assert desk.on_market(market_seen(LOW - 2, 14), NOW_S) == []


def test_an_older_price_decides_nothing() -> None:
    desk = decision()
    place(desk)
    desk.on_market(market_seen(HIGH, 12), NOW_S)
    assert desk.on_market(market_seen(LOW, 11), NOW_S) == []


def test_a_later_update_in_the_same_slot_decides() -> None:
    desk = decision()
    place(desk)
    desk.on_market(market_seen(HIGH, 11, updated_at_s=999), NOW_S)
    assert executed(desk.on_market(market_seen(LOW, 11, updated_at_s=1_000), NOW_S)) == [key(1)]


def test_a_stale_price_decides_nothing() -> None:
    desk = decision(max_price_age_s=60)
    place(desk)
    assert desk.on_market(market_seen(LOW, 11, updated_at_s=939), NOW_S) == []
    assert place(desk, 2) == []
    assert "61 s old" in desk.why(key(1), NOW_S)
    assert len(desk.on_market(market_seen(LOW, 12, updated_at_s=940), NOW_S)) == 2


def test_a_refusal_waits_for_a_price_from_a_later_slot() -> None:
    desk = decision()
    place(desk)
    desk.on_market(market_seen(LOW, 11), NOW_S)
    assert release(desk, after_price_slot=15) == [], "the chain's own price in slot 15 did not do"
    assert "later price" in desk.why(key(1), NOW_S)
    assert desk.on_market(market_seen(LOW, 14), NOW_S) == []
    assert desk.on_market(market_seen(LOW, 15), NOW_S) == []
    assert executed(desk.on_market(market_seen(LOW, 16), NOW_S)) == [key(1)]


def test_a_release_is_evaluated_at_once_when_a_later_price_is_known() -> None:
    desk = decision()
    place(desk)
    desk.on_market(market_seen(LOW, 11), NOW_S)
    desk.on_market(market_seen(LOW, 16), NOW_S)
    assert executed(release(desk, after_price_slot=15)) == [key(1)]


def test_an_order_that_waits_for_a_price_waits_for_the_latest_refusal() -> None:
    desk = decision()
    place(desk)
    desk.on_market(market_seen(LOW, 11), NOW_S)
    release(desk, after_price_slot=20)
    desk.block(key(1))  # the user's cancel is being landed, and is then refused
    release(desk, after_price_slot=30)
    assert desk.on_market(market_seen(LOW, 25), NOW_S) == []
    assert executed(desk.on_market(market_seen(LOW, 31), NOW_S)) == [key(1)]


def test_the_price_of_the_slot_that_refused_does_not_count() -> None:
    desk = decision()
    place(desk)
    desk.on_market(market_seen(LOW, 15), NOW_S)
    assert release(desk, after_price_slot=15) == []
    assert executed(desk.on_market(market_seen(LOW, 16), NOW_S)) == [key(1)]


def test_each_waiting_order_waits_for_its_own_slot() -> None:
    desk = decision()
    for number, after_price_slot in enumerate([20, 22, 21], start=1):
        place(desk, number)
        desk.block(key(number))
        release(desk, number, after_price_slot)
    woken = [executed(desk.on_market(market_seen(LOW, slot), NOW_S)) for slot in (20, 21, 22, 23)]
    assert woken == [[], [key(1)], [key(3)], [key(2)]]


def test_a_waiting_order_that_changes_still_waits() -> None:
    desk = decision()
    place(desk)
    desk.on_market(market_seen(LOW, 11), NOW_S)
    release(desk, after_price_slot=20)
    assert place(desk, slot=19, filled_size_1e6=1) == []
    assert executed(desk.on_market(market_seen(LOW, 21), NOW_S)) == [key(1)]


def test_a_waiting_order_still_expires() -> None:
    desk = decision()
    place(desk, expires_at=1_005)
    desk.on_market(market_seen(LOW, 11), NOW_S)
    release(desk, after_price_slot=20)
    assert [type(action) for action in desk.on_time(ChainTime(12, 1_006.0))] == [RecordExpired]
    assert desk.on_market(market_seen(LOW, 21), NOW_S) == []


def test_an_attempt_found_in_the_journal_is_known_before_its_order() -> None:
    desk = decision()
    desk.on_market(market_seen(LOW, 11), NOW_S)
    desk.block(key(1))
    assert place(desk) == []
    assert executed(release(desk)) == [key(1)]


def test_a_fill_that_a_fork_dropped_rests_again_only_when_its_attempt_ended() -> None:
    desk = decision()
    place(desk, slot=10)
    desk.on_market(market_seen(LOW, 11), NOW_S)
    place(desk, slot=12, status=OnchainStatus.FILLED)
    assert place(desk, slot=13) == [], "its signature may still land"
    assert executed(release(desk)) == [key(1)]


def test_what_is_forgotten_comes_back_only_by_newer_news() -> None:
    desk = decision()
    place(desk, slot=10)
    desk.on_market(market_seen(LOW, 11), NOW_S)
    desk.forget(key(1), 20)
    assert place(desk, slot=20) == []
    assert desk.book.get(key(1)) is None
    assert release(desk) == []
    assert executed(place(desk, slot=21)) == [key(1)]


def test_what_is_forgotten_does_not_rest_again_because_of_pending_news_of_that_slot() -> None:
    desk = decision()
    place(desk, slot=20)
    desk.on_market(market_seen(LOW, 21), NOW_S)
    desk.forget(key(1), 20)
    assert desk.on_market(market_seen(LOW, 22), NOW_S) == []


def test_a_closed_account_is_dropped() -> None:
    desk = decision()
    place(desk, slot=10)
    assert desk.on_gone(OrderGone(key(1), 11)) == []
    assert desk.on_market(market_seen(LOW, 12), NOW_S) == []
    assert desk.why(key(1), NOW_S) == ""


# -- brakes


def test_an_inactive_market_holds_itself() -> None:
    desk = decision()
    place(desk)
    assert desk.on_market(market_seen(LOW, 11, is_active=False), NOW_S) == []
    assert "inactive" in desk.why(key(1), NOW_S)
    assert executed(desk.on_market(market_seen(LOW, 12), NOW_S)) == [key(1)]


def test_older_news_does_not_reactivate_a_market() -> None:
    desk = decision()
    place(desk)
    desk.on_market(market_seen(HIGH, 12, is_active=False), NOW_S)
    desk.on_market(market_seen(LOW, 11), NOW_S)
    assert desk.held(SOL) == "the market is inactive"


def test_a_jump_pauses_the_market_until_it_settles() -> None:
    desk = decision(breaker=BreakerRules(settle_updates=2))
    place(desk)
    desk.on_market(market_seen(HIGH, 11, updated_at_s=991), NOW_S)
    assert desk.on_market(market_seen(LOW, 12, updated_at_s=992), NOW_S) == []
    assert "jumped by 15.0 %" in desk.why(key(1), NOW_S)
    assert desk.on_market(market_seen(LOW, 13, updated_at_s=993), NOW_S) == []
    assert executed(desk.on_market(market_seen(LOW, 14, updated_at_s=994), NOW_S)) == [key(1)]


def test_a_jump_back_executes_nothing() -> None:
    desk = decision(breaker=BreakerRules(settle_updates=2))
    place(desk)
    for slot, price in enumerate([HIGH, LOW, HIGH, HIGH, HIGH, HIGH], start=11):
        assert desk.on_market(market_seen(price, slot, updated_at_s=980 + slot), NOW_S) == []
    assert desk.held(SOL) is None


# -- trailing stops


def trailing(**fields: Any) -> dict[str, Any]:
    return {"order_type": OrderType.TRAILING_STOP, "trailing_distance_ppm": 100_000} | fields


def test_a_trailing_stop_is_moved_by_whole_steps_and_executed_in_the_end() -> None:
    desk = decision(trailing_step_ppm=10_000)
    place(desk, **trailing(stop_price_1e6=90_000_000, slot=10))
    assert desk.on_market(market_seen(HIGH, 11), NOW_S) == []
    assert desk.on_market(market_seen(100_999_999, 12), NOW_S) == []
    (action,) = desk.on_market(market_seen(101_000_000, 13), NOW_S)
    assert isinstance(action, RatchetStop)
    assert action.new_stop_1e6 == 90_900_000
    assert desk.on_market(market_seen(110_000_000, 14), NOW_S) == [], "one live attempt"
    place(desk, **trailing(stop_price_1e6=90_900_000, slot=15))
    (action,) = release(desk)
    assert isinstance(action, RatchetStop)
    assert action.new_stop_1e6 == 99_000_000
    place(desk, **trailing(stop_price_1e6=99_000_000, slot=16))
    assert release(desk) == []
    assert executed(desk.on_market(market_seen(99_000_000, 17), NOW_S)) == [key(1)]


def test_a_trailing_stop_that_falls_while_it_is_moved_is_executed_on_its_release() -> None:
    desk = decision()
    place(desk, **trailing(slot=10))
    (action,) = desk.on_market(market_seen(110_000_000, 11), NOW_S)
    assert isinstance(action, RatchetStop)
    place(desk, **trailing(stop_price_1e6=99_000_000, slot=12))
    assert desk.on_market(market_seen(98_000_000, 13), NOW_S) == []
    assert executed(release(desk)) == [key(1)]


def test_a_revision_without_trailing_stops_moves_none() -> None:
    desk = decision(executable=REVISION_0_1)
    place(desk, **trailing())
    assert desk.on_market(market_seen(200_000_000, 11), NOW_S) == []
    assert release(desk) == []
    assert "does not execute orders of type trailing_stop" in desk.why(key(1), NOW_S)


# -- expiry


def test_an_order_expires_after_its_last_second_by_the_chains_clock() -> None:
    desk = decision()
    place(desk, expires_at=1_005)
    assert desk.on_time(ChainTime(11, 1_005.9)) == []
    (action,) = desk.on_time(ChainTime(12, 1_006.0))
    assert isinstance(action, RecordExpired)
    assert desk.on_time(ChainTime(13, 1_007.0)) == [], "recorded once"
    assert place(desk, expires_at=1_005, slot=14) == [], "its account still says pending"
    assert desk.on_market(market_seen(LOW, 15), NOW_S) == []
    assert "expired at 1005" in desk.why(key(1), NOW_S)
    assert desk.book.counts() == {}


def test_an_order_that_arrives_expired_is_recorded_not_executed() -> None:
    desk = decision()
    desk.on_time(ChainTime(11, 1_006.0))
    desk.on_market(market_seen(LOW, 11), NOW_S)
    assert [type(action) for action in place(desk, expires_at=1_005)] == [RecordExpired]


def test_an_order_that_expired_during_an_attempt_is_recorded_on_its_release() -> None:
    desk = decision()
    place(desk, expires_at=1_005)
    desk.on_market(market_seen(LOW, 11), NOW_S)
    assert desk.on_time(ChainTime(12, 1_006.0)) == []
    assert [type(action) for action in release(desk)] == [RecordExpired]


def test_news_of_an_order_under_attempt_does_not_record_it_as_expired() -> None:
    desk = decision()
    place(desk, expires_at=1_005)
    desk.on_market(market_seen(LOW, 11), NOW_S)
    desk.on_time(ChainTime(12, 1_006.0))
    assert place(desk, expires_at=1_005, slot=13, filled_size_1e6=1) == []
    assert desk.book.watched(key(1)) is Watched.NOTHING


# -- reasons


@pytest.mark.parametrize(
    ("price", "sentence"),
    [
        (None, "The order fires at or below 90, but its market has no price yet."),
        (95_500_000, "The order fires at or below 90; the price is 95.5, 5.5 (5.76 %) away."),
    ],
)
def test_why_an_order_rests(price: int | None, sentence: str) -> None:
    desk = decision()
    place(desk)
    if price is not None:
        desk.on_market(market_seen(price, 11), NOW_S)
    assert desk.why(key(1), NOW_S) == sentence


def test_why_a_triggered_order_is_not_executed_twice() -> None:
    desk = decision()
    place(desk)
    desk.on_market(market_seen(LOW, 11), NOW_S)
    assert desk.why(key(1), NOW_S) == "An attempt at this order is under way."


def test_a_load_acts_on_nothing_until_it_is_reviewed() -> None:
    desk = decision()
    desk.on_market(market_seen(LOW, 11), NOW_S)
    assert desk.load([make_order(1), make_order(2)]) == 2
    assert set(executed(desk.review(SOL, NOW_S, 99))) == {key(1), key(2)}


# -- bursts


def test_a_burst_comes_in_bounded_answers_each_order_once() -> None:
    desk = decision(max_actions=10)
    for number in range(1, 26):
        place(desk, number)
    answers = [desk.on_market(market_seen(LOW, 11), NOW_S)]
    while desk.unfinished:
        answers.append(desk.carry_on(NOW_S))
    assert [len(answer) for answer in answers] == [10, 10, 5]
    assert len(set(executed([action for answer in answers for action in answer]))) == 25
    assert {action.triggered_at_ns for action in answers[-1]} == {77}  # type: ignore[union-attr]


def test_a_burst_stops_when_the_price_moves_back() -> None:
    desk = decision(max_actions=10)
    for number in range(1, 26):
        place(desk, number)
    desk.on_market(market_seen(LOW, 11), NOW_S)
    assert desk.on_market(market_seen(HIGH, 12), NOW_S) == []
    assert not desk.unfinished
    assert desk.carry_on(NOW_S) == []


def test_orders_that_wait_wake_in_bounded_answers_too() -> None:
    desk = decision(max_actions=10)
    for number in range(1, 26):
        place(desk, number)
        desk.block(key(number))
        release(desk, number, after_price_slot=20)
    answers = [desk.on_market(market_seen(LOW, 21), NOW_S)]
    while desk.unfinished:
        answers.append(desk.carry_on(NOW_S))
    assert len(executed([action for answer in answers for action in answer])) == 25
    assert max(map(len, answers)) == 10


def test_expiries_beyond_the_bound_are_left_to_the_next_sighting() -> None:
    desk = decision(max_actions=10)
    for number in range(1, 26):
        place(desk, number, expires_at=1_005)
    assert [len(desk.on_time(ChainTime(slot, 1_006.0))) for slot in (12, 13, 14, 15)] == [10, 10, 5, 0]


class History(RuleBasedStateMachine):
    """Random news, with an executor that ends attempts in any way at any time.

    Whatever happens: no order has two live attempts, what is executed is met by the price it was decided by, and
    a fresh price leaves no armed order that it meets.
    """

    def __init__(self) -> None:
        super().__init__()
        self.desk = decision(trailing_step_ppm=10_000, max_price_age_s=60)
        self.live: dict[Pubkey, Action] = {}
        self.refused_at: dict[Pubkey, int] = {}
        self.slot = 10

    def take(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, RecordExpired):
                continue
            address = action.order.address
            assert address not in self.live, "two live attempts"
            assert action.price.slot > self.refused_at.get(address, -1), "a storm"
            if isinstance(action, ExecuteOrder):
                assert is_met(action.order, action.price.price_1e6)
            self.live[address] = action
        price = self.desk.prices.fresh(SOL, NOW_S, 60)
        if price is not None:
            assert self.desk.book.crossed(SOL, price.price_1e6) == []
            assert self.desk.book.ratchets(SOL, price.price_1e6) == []

    @rule(
        number=st.integers(1, 5),
        stop=st.integers(1, 40),
        age=st.integers(-2, 1),
        status=st.sampled_from([OnchainStatus.PENDING] * 4 + [OnchainStatus.CANCELLED]),
    )
    def order(self, number: int, stop: int, age: int, status: OnchainStatus) -> None:
        self.slot += 1
        order_type = OrderType.STOP_LOSS if number <= 2 else OrderType.TRAILING_STOP
        order = make_order(
            number, stop_price_1e6=stop, order_type=order_type, slot=self.slot + age, status=status,
            side=Side(number % 2), trailing_distance_ppm=100_000,
        )  # fmt: skip
        actions = self.desk.on_order(OrderSeen(order), NOW_S, 1)
        if self.desk.book.get(order.address) is None:
            self.refused_at.pop(order.address, None)  # if it comes back it is another life
        self.take(actions)

    @rule(price=st.integers(1, 50), age=st.integers(-3, 1), updated_at_s=st.sampled_from([900, 990, 999]))
    def price(self, price: int, age: int, updated_at_s: int) -> None:
        self.slot += 1
        seen = market_seen(price, self.slot + age, updated_at_s=updated_at_s)
        self.take(self.desk.on_market(seen, NOW_S))

    @rule(data=st.data(), ahead=st.one_of(st.none(), st.integers(-2, 3)))
    def attempt_ends(self, data: st.DataObject, ahead: int | None) -> None:
        if self.live:
            address = data.draw(st.sampled_from(sorted(self.live, key=bytes)))
            del self.live[address]
            after = None if ahead is None else self.slot + ahead
            there = self.desk.book.get(address) is not None  # what is made there later is another order
            self.refused_at[address] = after if there and after is not None else -1
            self.take(self.desk.release(address, after_price_slot=after, now_s=NOW_S, at_ns=1))

    @rule(data=st.data())
    def order_is_finished(self, data: st.DataObject) -> None:
        if self.live:
            address = data.draw(st.sampled_from(sorted(self.live, key=bytes)))
            del self.live[address]
            self.slot += 1
            self.desk.forget(address, self.slot)
            self.refused_at.pop(address, None)

    @rule(number=st.integers(1, 5))
    def account_closes(self, number: int) -> None:
        self.slot += 1
        if self.desk.book.get(key(number)) is not None:
            self.take(self.desk.on_gone(OrderGone(key(number), self.slot + 1)))
            self.refused_at.pop(key(number), None)

    def teardown(self) -> None:
        for address in self.live:
            assert self.desk.book.watched(address) is Watched.NOTHING


TestHistory = History.TestCase
TestHistory.settings = settings(REPEATABLE, max_examples=60, stateful_step_count=40)


def test_an_order_keeps_its_identity_in_the_action() -> None:
    desk = decision()
    order: Order = make_order(1)._replace(leverage=7)
    desk.on_order(OrderSeen(order), NOW_S, 1)
    (action,) = desk.on_market(market_seen(LOW, 11), NOW_S)
    assert action.order == order
