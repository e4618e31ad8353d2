"""Older never overwrites newer, and staleness goes by the chain's clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from keeper.domain.events import ChainTime
from keeper.domain.prices import Price
from keeper.triggers.prices import ChainClock, PriceCache
from tests.triggers.order_making import BTC, REPEATABLE, SOL, make_price


def test_an_older_slot_never_overwrites_a_newer_one() -> None:
    cache = PriceCache()
    assert cache.offer(make_price(100, slot=10, updated_at_s=1_000))
    assert not cache.offer(make_price(90, slot=9, updated_at_s=2_000))
    assert cache.read(SOL) == make_price(100, slot=10, updated_at_s=1_000)


def test_in_one_slot_the_later_update_wins() -> None:
    cache = PriceCache()
    cache.offer(make_price(100, slot=10, updated_at_s=1_000))
    assert cache.offer(make_price(101, slot=10, updated_at_s=1_001))
    assert not cache.offer(make_price(99, slot=10, updated_at_s=1_000))
    assert cache.offer(make_price(102, slot=10, updated_at_s=1_001)), "the last to arrive of one second"
    assert not cache.offer(make_price(102, slot=10, updated_at_s=1_001)), "the same again is no news"


def test_a_price_that_was_never_set_is_no_price() -> None:
    cache = PriceCache()
    assert not cache.offer(make_price(0))
    assert cache.read(SOL) is None


def test_freshness_ends_after_the_greatest_age() -> None:
    cache = PriceCache()
    cache.offer(make_price(100, updated_at_s=1_000))
    assert cache.fresh(SOL, 1_060.0, 60) is not None
    assert cache.fresh(SOL, 1_060.1, 60) is None
    assert cache.fresh(BTC, 1_000, 60) is None
    assert cache.fresh(SOL, 999, 0) is not None, "one from the future is not old"


def test_reads_and_offers_are_counted() -> None:
    cache = PriceCache()
    cache.offer(make_price(100))
    for _ in range(3):
        cache.read(SOL)
    cache.fresh(SOL, 1_000, 60)
    assert (cache.reads, cache.offers, len(cache)) == (4, 1, 1)


PRICES = st.builds(make_price, st.integers(0, 5), st.integers(0, 5), st.integers(0, 3))


@REPEATABLE
@given(st.lists(PRICES, max_size=20))
def test_whatever_the_order_of_arrival_the_newest_stays(prices: list[Price]) -> None:
    cache = PriceCache()
    for price in prices:
        before = cache.read(SOL)
        taken = cache.offer(price)
        assert taken == (cache.read(SOL) is not before)
    real = [(price.slot, price.updated_at_s) for price in prices if price.price_1e6]
    kept = cache.read(SOL)
    assert (None if kept is None else (kept.slot, kept.updated_at_s)) == max(real, default=None)


def test_the_clock_goes_on_between_sightings() -> None:
    clock = ChainClock()
    assert clock.now(5.0) is None
    assert clock.slot is None
    assert clock.observe(ChainTime(100, 1_000.0), 5.0)
    assert clock.now(5.0) == 1_000.0
    assert clock.now(65.0) == 1_060.0
    assert clock.slot == 100


def test_an_older_sighting_of_the_clock_is_ignored() -> None:
    clock = ChainClock()
    clock.observe(ChainTime(100, 1_000.0), 5.0)
    assert not clock.observe(ChainTime(99, 2_000.0), 6.0)
    assert clock.now(6.0) == 1_001.0


def test_a_sighting_behind_the_estimate_stops_the_clock_until_it_catches_up() -> None:
    clock = ChainClock()
    clock.observe(ChainTime(100, 1_000.0), 0.0)
    assert clock.now(10.0) == 1_010.0
    clock.observe(ChainTime(101, 1_004.0), 10.0)
    assert clock.now(12.0) == 1_010.0
    assert clock.now(17.0) == 1_011.0


SIGHTINGS = st.tuples(st.integers(0, 30), st.integers(0, 100), st.integers(0, 20), st.booleans())


@REPEATABLE
@given(st.lists(SIGHTINGS, max_size=30))
def test_the_clock_never_goes_back(steps: list[tuple[int, int, int, bool]]) -> None:
    clock, monotonic_s, last = ChainClock(), 0.0, -1.0
    for slot, unix_time_s, passed_s, look in steps:
        monotonic_s += passed_s
        clock.observe(ChainTime(slot, float(unix_time_s)), monotonic_s)
        if look:
            now = clock.now(monotonic_s)
            assert now is not None
            assert now >= last
            last = now
