"""A price that jumps pauses its market until it has settled."""

from __future__ import annotations

import pytest

from keeper.triggers.prices import Breaker, BreakerRules
from tests.triggers.order_making import SOL, make_price

RULES = BreakerRules(trip_ppm=50_000, settle_ppm=20_000, settle_updates=3)


def walk(breaker: Breaker, prices: list[int], start_slot: int = 1) -> list[bool]:
    """Offer the prices one slot and one second apart; whether each left the market paused."""
    return [
        breaker.offer(make_price(price, slot=start_slot + n, updated_at_s=start_slot + n))
        for n, price in enumerate(prices)
    ]


@pytest.mark.parametrize(("price", "paused"), [(10_500, False), (10_501, True), (9_500, False), (9_499, True)])
def test_it_trips_above_the_limit_in_either_direction(price: int, paused: bool) -> None:
    assert walk(Breaker(RULES), [10_000, price]) == [False, paused]


def test_it_opens_after_enough_calm_updates_wherever_the_price_then_is() -> None:
    breaker = Breaker(RULES)
    assert walk(breaker, [10_000, 8_000, 8_100, 8_050, 8_000]) == [False, True, True, True, False]
    assert breaker.reason(SOL) is None
    assert breaker.trips == 1


def test_a_move_that_is_not_calm_starts_the_count_again() -> None:
    prices = [10_000, 8_000, 8_100, 8_050, 8_211, 8_212, 8_213, 8_214]
    assert walk(Breaker(RULES), prices) == [False, True, True, True, True, True, True, False]


def test_a_move_of_exactly_the_settling_share_is_not_calm() -> None:
    assert walk(Breaker(BreakerRules(settle_updates=1)), [10_000, 8_000, 8_160, 8_161])[1:] == [True, True, False]


def test_a_jump_while_paused_is_no_second_trip() -> None:
    breaker = Breaker(RULES)
    walk(breaker, [10_000, 8_000, 6_000])
    assert breaker.trips == 1
    reason = breaker.reason(SOL)
    assert reason is not None
    assert "25.0 %" in reason
    assert "3 calm updates" in reason


def test_a_second_jump_starts_the_count_again() -> None:
    prices = [10_000, 8_000, 8_001, 8_002, 6_000, 6_001, 6_002, 6_003]
    assert walk(Breaker(RULES), prices) == [False, True, True, True, True, True, True, False]


def test_the_same_update_seen_again_settles_nothing() -> None:
    breaker = Breaker(RULES)
    walk(breaker, [10_000, 8_000])
    assert all(breaker.offer(make_price(8_000, slot=slot, updated_at_s=2)) for slot in range(10, 30))
    assert breaker.offer(make_price(8_000, slot=30, updated_at_s=3)), "an update that moves nothing is calm"
    assert breaker.offer(make_price(8_000, slot=31, updated_at_s=4))
    assert not breaker.offer(make_price(8_000, slot=32, updated_at_s=5))


def test_rules_that_could_never_open_are_refused() -> None:
    with pytest.raises(ValueError, match="settle_ppm"):
        BreakerRules(trip_ppm=10_000, settle_ppm=20_000)
    with pytest.raises(ValueError, match="settle_updates"):
        BreakerRules(settle_updates=0)
