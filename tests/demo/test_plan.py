"""The walk and the plan: seeded, bounded, and with every kind of order in them."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.demo.plan import FLICKER_DEPTH, TYPES, plan
from keeper.demo.prices import LISTINGS, Listing, walk
from keeper.demo.rules import met, trailed_stop
from keeper.domain.orders import OrderType, Side
from keeper.triggers.conditions import fires_of, ratcheted_stop


@given(seed=st.integers(0, 10_000), listing=st.sampled_from(LISTINGS))
def test_a_walk_is_repeatable_and_its_steps_are_small(seed: int, listing: Listing) -> None:
    prices = list(islice(walk(listing, random.Random(seed)), 64))
    assert prices == list(islice(walk(listing, random.Random(seed)), 64))
    for before, after in zip([listing.price_1e6, *prices], prices, strict=False):
        assert abs(after - before) / before < 0.012
    assert all(0.75 < price / listing.price_1e6 < 1.25 for price in prices)


@given(orders=st.integers(30, 2_000), poor=st.integers(0, 50), seed=st.integers(0, 1_000))
def test_a_plan_has_as_many_orders_as_asked_for(orders: int, poor: int, seed: int) -> None:
    made = plan(orders, poor, random.Random(seed))
    assert made.payable == orders
    assert len(made.poor) == poor
    assert min(len(made.dead), len(made.flicker), len(made.cancelled)) >= 1


def test_every_kind_is_placed_in_every_market() -> None:
    made = plan(240, 0, random.Random(7))
    kinds = Counter((wish.market.symbol, wish.order_type, wish.side) for wish in (*made.early, *made.late))
    assert set(kinds) == {(listing.symbol, kind, side) for listing in LISTINGS for kind in TYPES for side in Side}


@given(seed=st.integers(0, 1_000))
def test_what_is_to_be_met_at_once_is_and_the_rest_is_not(seed: int) -> None:
    made = plan(120, 5, random.Random(seed))
    for wish in (*made.poor, *made.dead):
        price = wish.market.price_1e6
        assert met(wish.order_type, wish.side, wish.trigger_1e6(price), price)
    for wish in (*made.early, *made.cancelled, *made.flicker):
        price = wish.market.price_1e6
        assert not met(wish.order_type, wish.side, wish.trigger_1e6(price), price)
    for wish in made.flicker:
        price = wish.market.price_1e6
        assert met(wish.order_type, wish.side, wish.trigger_1e6(price), round(price * (1 - FLICKER_DEPTH)))
    for wish in made.early:
        assert 1 <= wish.size_1e6(wish.market.price_1e6) <= 1_000_000_000


@pytest.mark.parametrize("order_type", TYPES)
@pytest.mark.parametrize("side", list(Side))
def test_the_demos_rules_and_the_keepers_agree(order_type: OrderType, side: Side) -> None:
    """Written twice, so that one can check the other; a difference is a bug in one of them."""
    fires = fires_of(order_type, side, frozenset(TYPES))
    assert fires is not None
    for price in (99, 100, 101):
        assert met(order_type, side, 100, price) == fires.met(price, 100)


@given(price=st.integers(1, 10**12), distance=st.integers(1, 10**6), side=st.sampled_from(Side))
def test_a_stop_trails_as_the_keeper_trails_it(price: int, distance: int, side: Side) -> None:
    worst = 0 if side is Side.LONG else 2**64
    derived = ratcheted_stop(price, distance, side)
    assert trailed_stop(side, worst, distance, price) == derived
    assert trailed_stop(side, derived, distance, price) == derived
