"""Prices of oracles' own accounts beside those in the markets' accounts: the fresher decides, if the two agree.

The program judges a fill by the price in its market's account. So without a fresh one there nothing is decided,
whatever a feed says, unless the keeper itself posts the feed's (`keeper.triggers.cranks`); and a feed that is fresher
is what that price is about to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from solders.pubkey import Pubkey

from keeper.domain.prices import Price

_PPM: Final = 1_000_000


class Feeds:
    """The newest feed price of each market that has one. Two prices agree if they differ by at most `max_deviation_ppm`
    of the market's, or by what `deviations_ppm` has for the market. A feed's price that is older than `max_age_s` says
    nothing, for or against.
    """

    def __init__(
        self, max_deviation_ppm: int, max_age_s: float, deviations_ppm: Mapping[Pubkey, int] = MappingProxyType({})
    ) -> None:
        self._max_deviation_ppm = max_deviation_ppm
        self._max_age_s = max_age_s
        self._deviations_ppm = deviations_ppm
        self._latest: dict[Pubkey, Price] = {}

    def __repr__(self) -> str:
        return f"Feeds({len(self._latest)})"

    def offer(self, price: Price) -> bool:
        """Take a price in; False when a newer one is known, by the oracle's time and then by the slot."""
        known = self._latest.get(price.market)
        if known is not None and (price.updated_at_s, price.slot) <= (known.updated_at_s, known.slot):
            return False
        self._latest[price.market] = price
        return True

    def forget(self, market: Pubkey) -> bool:
        """The market's feed is not to be relied on until it gives a price again; False when it gave none."""
        return self._latest.pop(market, None) is not None

    def latest(self, market: Pubkey) -> Price | None:
        """What the market's feed said last, however old; None without a price of it that passes every check."""
        return self._latest.get(market)

    def fresher(self, own: Price, now_s: float) -> Price | None:
        """Which decides, the market's own fresh price or its feed's: the fresher; None while they disagree."""
        feed = self._fresh(own.market, now_s)
        if feed is None:
            return own
        if self.apart(own, feed):
            return None
        return feed if feed.updated_at_s > own.updated_at_s else own

    def dispute(self, own: Price | None, now_s: float) -> str | None:
        """What the two disagree on, for people; None while they do not."""
        feed = None if own is None else self._fresh(own.market, now_s)
        if own is None or feed is None or not self.apart(own, feed):
            return None
        return self.distance(own, feed)

    def apart(self, own: Price, feed: Price) -> bool:
        """Whether the two disagree."""
        return abs(feed.price_1e6 - own.price_1e6) * _PPM > self._limit_ppm(own.market) * own.price_1e6

    def distance(self, own: Price, feed: Price) -> str:
        """How far they are apart, for people."""
        apart = abs(feed.price_1e6 - own.price_1e6) * 100 / own.price_1e6
        limit = self._limit_ppm(own.market) / 10_000
        return f"its feed and its own price are {apart:.2f} % apart, and the limit is {limit:g} %"

    def _fresh(self, market: Pubkey, now_s: float) -> Price | None:
        feed = self._latest.get(market)
        return feed if feed is not None and now_s - feed.updated_at_s <= self._max_age_s else None

    def _limit_ppm(self, market: Pubkey) -> int:
        return self._deviations_ppm.get(market, self._max_deviation_ppm)
