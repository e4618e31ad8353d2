"""Crank or not: what the decision posts, held against the rules as docs/crank.md tells them."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from solders.pubkey import Pubkey

from keeper.domain.actions import ExecuteOrder
from keeper.domain.events import ChainTime
from keeper.domain.prices import Crank, Price
from keeper.triggers.cranks import CrankRules, Refusal, Refused
from keeper.triggers.decision import Decision, Rules
from tests.triggers.order_making import BTC, REPEATABLE, SOL, key, make_order, market_seen

NOW = 10_000
FEED = key(77)
STALE_S, FEED_AGE_S, DEVIATION_PPM, STEP_PPM = 60, 15, 100_000, 5_000
RULES = Rules(
    breaker=None,
    max_deviation_ppm=10_000,
    crank=CrankRules(((bytes(SOL), bytes(FEED)),), DEVIATION_PPM, FEED_AGE_S, STEP_PPM),
)

Told = tuple[int, int] | None
"""A price in hundredths, and how many seconds old it is."""

prices = st.one_of(
    st.none(),
    st.tuples(
        st.one_of(
            st.sampled_from([9_000, 9_500, 9_501, 9_999, 10_000, 10_050, 11_000, 11_001]), st.integers(8_500, 11_500)
        ),
        st.one_of(st.sampled_from([0, 1, 14, 15, 16, 59, 60, 61, 300]), st.integers(-5, 400)),
    ),
)


def decided(own: Told, feed: Told, stop: int, market: Pubkey = SOL) -> tuple[ExecuteOrder | None, Decision]:
    """What is decided of a long's stop, asked in both ways, which have to agree."""
    decision = Decision(RULES)
    decision.on_time(ChainTime(1, NOW))
    if own is not None:
        decision.on_market(market_seen(own[0] * 10_000, 5, updated_at_s=NOW - own[1], address=market))
    if feed is not None:
        decision.on_feed(market, Price(market, feed[0] * 10_000, 6, NOW - feed[1]))
    order = make_order(stop_price_1e6=stop * 10_000, market=market)
    decision.book.upsert(order)
    reviewed = decision.review(market, NOW, 3)
    looked = decision.look_at(order, NOW, 3)
    assert reviewed == ([] if looked is None else [looked])
    assert looked is None or isinstance(looked, ExecuteOrder)
    return looked, decision


def wanted(own: Told, feed: Told, stop: int) -> tuple[int, bool] | None:
    """By which price a long's stop is executed, and whether that is posted."""
    fresh = own is not None and own[1] <= STALE_S
    alone = (own[0], False) if fresh and own is not None and own[0] <= stop else None
    if own is None or feed is None:
        return alone
    step = abs(feed[0] - own[0]) * 1_000_000
    if step > DEVIATION_PPM * own[0]:
        return None if feed[1] <= STALE_S else alone
    newer = feed[1] < own[1] and feed[1] <= FEED_AGE_S
    if not newer or (fresh and step < STEP_PPM * own[0]):
        return alone
    return (feed[0], alone is None) if feed[0] <= stop else None


@settings(REPEATABLE, max_examples=500)
@example((9_400, 5), (9_300, 1), 9_500)  # both meet it: nothing is posted
@example((9_600, 5), (9_300, 1), 9_500)
@example((9_300, 5), (9_600, 1), 9_500)  # the fresher one does not
@given(prices, prices, st.integers(8_500, 11_500))
def test_a_price_is_posted_where_the_rules_say_so_and_nowhere_else(own: Told, feed: Told, stop: int) -> None:
    action, _ = decided(own, feed, stop)
    expected = wanted(own, feed, stop)
    assert (None if action is None else (action.price.price_1e6 // 10_000, action.crank is not None)) == expected
    if action is not None and action.crank is not None:
        assert action.crank == Crank(FEED, action.price), "it posts the very price that decided"
        assert own is not None
        assert action.price.updated_at_s > NOW - own[1]


@REPEATABLE
@given(prices, prices, st.integers(8_500, 11_500))
def test_to_a_market_that_is_not_named_nothing_is_ever_posted(own: Told, feed: Told, stop: int) -> None:
    action, decision = decided(own, feed, stop, market=BTC)
    assert action is None or action.crank is None
    assert decision.crank(BTC, NOW) is None


def test_each_refusal_has_its_name_and_is_told() -> None:
    def refused(own: Told, feed: Told) -> tuple[Refused, str]:
        _, decision = decided(own, feed, 9_500)
        found = decision.crank(SOL, NOW)
        assert isinstance(found, Refusal)
        return found.reason, decision.why(make_order(stop_price_1e6=95_000_000), None, NOW)

    old = (10_000, 100)
    assert refused(old, None)[0] is Refused.FEED
    assert "its feed's is not posted: its feed gives no price that passes every check." in refused(old, None)[1]
    assert refused(None, (9_400, 1))[0] is Refused.UNPRICED
    assert refused(old, (9_400, 16))[0] is Refused.AGE
    assert "its feed's price is 16 s old, and the limit is 15 s" in refused(old, (9_400, 16))[1]
    assert refused((10_000, 5), (9_400, 5))[0] is Refused.OLDER
    assert refused(old, (8_999, 1))[0] is Refused.DEVIATION
    assert "are 10.01 % apart, and the limit is 10 %" in refused(old, (8_999, 1))[1]
    assert refused((9_501, 5), (9_500, 1))[0] is Refused.STEP


def test_what_is_about_to_be_posted_is_what_people_are_told() -> None:
    action, decision = decided((10_000, 100), (9_400, 1), 9_500)
    assert action is not None
    assert decision.why(action.order, None, NOW).endswith("and the price is 94: it is about to be executed.")
