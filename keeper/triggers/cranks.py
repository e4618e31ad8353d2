"""Which feed's price is posted to its market by the transaction that executes, and why another is not.

Only where the keeper holds the market's authority. It is about whether a feed's price may become the market's: never
one that is older than the market's own, nor further from it than markets and feeds may be apart (`Feeds`), nor too old
by the chain's clock. What a feed has to be to have a price at all is judged before (`keeper.venue.prices`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from solders.pubkey import Pubkey

from keeper.domain.prices import Crank, Price
from keeper.triggers.feeds import Feeds

_PPM: Final = 1_000_000


class Refused(enum.StrEnum):
    """Why a feed's price is not posted. The values are the metric's labels."""

    FEED = "feed"
    UNPRICED = "unpriced"
    AGE = "age"
    OLDER = "older"
    DEVIATION = "deviation"
    STEP = "step"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a market's feed is not posted to it now; `sentence` is for people."""

    reason: Refused
    sentence: str


@dataclass(frozen=True, slots=True)
class CrankRules:
    """`feeds`: of each market whose price may be posted, its address and its feed's account, as their 32 bytes. Only a
    price of at most `max_age_s` is posted, and in the place of one that is still fresh only one that differs from it by
    `min_step_ppm` or more. `max_deviation_ppm`: so far these markets and their feeds may be apart.
    """

    feeds: tuple[tuple[bytes, bytes], ...]
    max_deviation_ppm: int
    max_age_s: float
    min_step_ppm: int = 0


class Cranks:
    """Judges what `feeds` say, and keeps nothing itself."""

    def __init__(self, rules: CrankRules, feeds: Feeds) -> None:
        self._rules = rules
        self._feeds = feeds
        self._accounts = {Pubkey(market): Pubkey(feed) for market, feed in rules.feeds}

    def __repr__(self) -> str:
        return f"Cranks({len(self._accounts)} markets)"

    def __contains__(self, market: Pubkey) -> bool:
        return market in self._accounts

    @property
    def markets(self) -> list[Pubkey]:
        """The markets whose price may be posted."""
        return list(self._accounts)

    def judge(self, market: Pubkey, own: Price | None, now_s: float, *, fresh: bool) -> Crank | Refusal:
        """What would be posted to one of the markets now. `own` is its price as it was read last, and `fresh` whether
        that may still decide.
        """
        feed = self._feeds.latest(market)
        if feed is None:
            return Refusal(Refused.FEED, "its feed gives no price that passes every check")
        if own is None:
            return Refusal(Refused.UNPRICED, "the market never had a price to hold it against")
        age_s, limit_s = now_s - feed.updated_at_s, self._rules.max_age_s
        if age_s > limit_s:
            return Refusal(Refused.AGE, f"its feed's price is {age_s:.0f} s old, and the limit is {limit_s:g} s")
        if feed.updated_at_s <= own.updated_at_s:
            return Refusal(Refused.OLDER, "its feed's price is no newer than the market's own")
        if self._feeds.apart(own, feed):
            return Refusal(Refused.DEVIATION, self._feeds.distance(own, feed))
        step = abs(feed.price_1e6 - own.price_1e6) * _PPM
        if fresh and step < self._rules.min_step_ppm * own.price_1e6:
            return Refusal(Refused.STEP, "its feed's price is too small a step from the market's own")
        return Crank(self._accounts[market], feed)
