"""The program's table of conditions, and the arithmetic of trailing stops."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.domain.orders import PPM, REVISION_0_1, REVISION_0_2, OrderType, Side
from keeper.domain.prices import Fires
from keeper.triggers.conditions import Trigger, is_met, ratcheted_stop, threshold, trigger_of
from tests.triggers.order_making import REPEATABLE, make_order

BELOW, ABOVE = Fires.AT_OR_BELOW, Fires.AT_OR_ABOVE
TABLE = [
    (OrderType.STOP_LOSS, Side.LONG, BELOW, 90),
    (OrderType.STOP_LOSS, Side.SHORT, ABOVE, 90),
    (OrderType.TAKE_PROFIT, Side.LONG, ABOVE, 90),
    (OrderType.TAKE_PROFIT, Side.SHORT, BELOW, 90),
    (OrderType.STOP_LIMIT, Side.LONG, BELOW, 90),
    (OrderType.STOP_LIMIT, Side.SHORT, ABOVE, 90),
    (OrderType.LIMIT, Side.LONG, BELOW, 100),
    (OrderType.LIMIT, Side.SHORT, ABOVE, 100),
    (OrderType.TRAILING_STOP, Side.LONG, BELOW, 90),
    (OrderType.TRAILING_STOP, Side.SHORT, ABOVE, 90),
]

PRICES = st.one_of(st.integers(1, 1_000), st.integers(1, 2**40), st.integers(1, 2**63))
DISTANCES = st.one_of(st.integers(1, 1_000_000), st.sampled_from([1, 999_999, 1_000_000]))
STEPS = st.sampled_from([0, 1, 1_000, 50_000])


@pytest.mark.parametrize(("order_type", "side", "fires", "trigger"), TABLE)
def test_each_type_fires_on_its_side_and_at_equality(
    order_type: OrderType, side: Side, fires: Fires, trigger: int
) -> None:
    order = make_order(order_type=order_type, side=side, price_1e6=100, stop_price_1e6=90)
    assert trigger_of(order) == Trigger(trigger, fires)
    assert is_met(order, trigger)
    assert is_met(order, trigger - 1) is (fires is BELOW)
    assert is_met(order, trigger + 1) is (fires is ABOVE)


@pytest.mark.parametrize("order_type", sorted(set(OrderType) - REVISION_0_2))
@pytest.mark.parametrize("side", Side)
def test_a_type_that_no_revision_executes_has_no_trigger(order_type: OrderType, side: Side) -> None:
    order = make_order(order_type=order_type, side=side)
    assert trigger_of(order) is None
    assert not any(is_met(order, price) for price in (1, 90_000_000, 2**60))


@pytest.mark.parametrize("order_type", [OrderType.LIMIT, OrderType.TRAILING_STOP])
def test_the_deployed_revision_does_not_execute_what_the_atomic_one_adds(order_type: OrderType) -> None:
    order = make_order(order_type=order_type)
    assert trigger_of(order, REVISION_0_1) is None
    assert not is_met(order, 1, REVISION_0_1)


@pytest.mark.parametrize(
    ("price", "distance", "side", "stop"),
    [
        (100_000_000, 50_000, Side.LONG, 95_000_000),
        (100_000_000, 50_000, Side.SHORT, 105_000_000),
        # The distance is rounded up: away from the price, against an early trigger.
        (3, 1, Side.LONG, 2),
        (3, 1, Side.SHORT, 4),
        (1_000_001, 1, Side.LONG, 999_999),
        (7, 1_000_000, Side.LONG, 0),
    ],
)
def test_a_stop_trails_as_the_program_computes_it(price: int, distance: int, side: Side, stop: int) -> None:
    assert ratcheted_stop(price, distance, side) == stop


@REPEATABLE
@given(stop=st.integers(0, 2**63), distance=DISTANCES, step_ppm=STEPS, price=PRICES, side=st.sampled_from(Side))
def test_a_ratchet_is_due_exactly_when_it_gains_a_step(
    stop: int, distance: int, step_ppm: int, price: int, side: Side
) -> None:
    order = make_order(
        order_type=OrderType.TRAILING_STOP, side=side, stop_price_1e6=stop, trailing_distance_ppm=distance
    )
    moves = threshold(stop, distance, side, step_ppm)
    prices = {price}
    if moves is not None:  # where an error by one would be
        prices |= {moves.price_1e6 + d for d in (-1, 0, 1) if moves.price_1e6 + d > 0}
    for p in prices:
        new_stop = ratcheted_stop(p, distance, side)
        gained = new_stop - stop if side is Side.LONG else stop - new_stop
        due = moves is not None and moves.fires.met(p, moves.price_1e6)
        assert due == (gained >= 1 and gained * PPM >= stop * step_ppm)
        assert not (due and is_met(order, p)), "an order is moved or executed, never both"
