"""A market and its feed: the fresher decides, if the two agree; and a feed that is too old says nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.pubkey import Pubkey

from keeper.domain.prices import Price
from keeper.triggers.feeds import Feeds

MARKET = Pubkey.new_unique()
NOW = 1_800_000_000


def price(price_1e6: int, age_s: int, slot: int = 1) -> Price:
    return Price(MARKET, price_1e6, slot, NOW - age_s)


@pytest.mark.parametrize(
    ("own", "feed", "decides"),
    [
        (price(100_000_000, 5), None, 100_000_000),
        (price(100_000_000, 5), price(100_500_000, 4), 100_500_000),
        (price(100_000_000, 5), price(99_000_000, 4), 99_000_000),
        (price(100_000_000, 5), price(100_500_000, 5), 100_000_000),
        (price(100_000_000, 5), price(100_500_000, 6), 100_000_000),
        (price(100_000_000, 5), price(101_000_001, 4), None),
        (price(100_000_000, 5), price(98_999_999, 9), None),
        (price(100_000_000, 5), price(50_000_000, 61), 100_000_000),
    ],
    ids=[
        "no feed",
        "fresher",
        "exactly at the limit",
        "of the same second",
        "older",
        "above",
        "below",
        "too old to say",
    ],
)
def test_which_price_decides(own: Price, feed: Price | None, decides: int | None) -> None:
    feeds = Feeds(10_000, 60.0)
    if feed is not None:
        assert feeds.offer(feed)
    found = feeds.fresher(own, NOW)
    assert (None if found is None else found.price_1e6) == decides
    assert (feeds.dispute(own, NOW) is not None) == (decides is None)


def test_older_never_overwrites_newer() -> None:
    feeds = Feeds(10_000, 60.0)
    assert feeds.offer(price(100, 5, slot=9))
    assert not feeds.offer(price(200, 6, slot=10))
    assert not feeds.offer(price(200, 5, slot=9))
    assert feeds.offer(price(300, 4, slot=8))


@given(
    st.lists(st.tuples(st.integers(1, 2**63), st.integers(-20, 200), st.booleans()), max_size=30),
    st.integers(1, 1_000_000),
)
def test_what_decides_agrees_with_the_market_and_is_fresh(told: list[tuple[int, int, bool]], limit_ppm: int) -> None:
    feeds, own = Feeds(limit_ppm, 60.0), None
    for price_1e6, age_s, of_feed in told:
        if of_feed:
            feeds.offer(price(price_1e6, age_s))
        elif age_s <= 60:
            own = price(price_1e6, age_s)
        if own is None:
            continue
        found = feeds.fresher(own, NOW)
        if found is None:
            continue
        assert abs(found.price_1e6 - own.price_1e6) * 1_000_000 <= limit_ppm * own.price_1e6
        assert found.updated_at_s >= own.updated_at_s
        assert found.age_s(NOW) <= 60


def test_a_feed_with_a_fault_says_nothing_until_it_gives_a_price_again() -> None:
    feeds, own = Feeds(10_000, 60.0), price(100_000_000, 5)
    assert not feeds.forget(MARKET)
    feeds.offer(price(100_500_000, 4))
    assert feeds.forget(MARKET)
    assert feeds.fresher(own, NOW) is own
    feeds.offer(price(100_600_000, 3))
    assert feeds.fresher(own, NOW) != own
