"""Settings of posting prices: where the operator holds the authority of a market."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import Field

from keeper.config.fields import Section
from keeper.config.sources import PriceSettings

_TWO_SIGNATURES_LAMPORTS: Final = 10_000


class CrankSettings(Section):
    """Posting a feed's price to its market in the transaction that executes (docs/crank.md)."""

    markets: tuple[str, ...] = Field(
        (),
        description="markets whose price the keeper may post, each as its [[prices.feeds]] table names it; empty: "
        "none. Whoever posts a market's price is its oracle: read docs/crank.md first",
    )
    key_file: Path | None = Field(
        None, description="keypair file of these markets' authority, which signs beside the keeper's own key"
    )
    allow_fee_key: bool = Field(False, description="let that be the keeper's own key, which pays the fees")
    max_feed_age_s: float = Field(
        15.0, gt=0, le=300, description="a feed's price that was published more seconds ago is not posted"
    )
    max_confidence_ppm: int = Field(
        5_000,
        ge=1,
        le=1_000_000,
        description="a feed of these markets whose confidence is more millionths of its price says nothing",
    )
    max_deviation_ppm: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="in the place of prices.max_deviation: up to so many millionths of the market's own price the "
        "feed's is posted, and while they are further apart nothing of the market is decided",
    )
    min_step_ppm: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="in the place of a price that is still fresh, only one that differs from it by so many millionths "
        "is posted",
    )

    def problem(
        self, prices: PriceSettings, max_price_age_s: float, breaker_trip: float | None, cap_lamports: int
    ) -> str | None:
        """Why these settings do not go with the others; None when they do."""
        if not self.markets:
            return "crank.key_file is set, and crank.markets names no market" if self.key_file is not None else None
        if self.key_file is None:
            return "crank.markets names markets, and crank.key_file has no key of their authority"
        fed = {feed.market for feed in prices.feeds}
        if unfed := [market for market in self.markets if market not in fed]:
            return f"crank.markets names {', '.join(unfed)}, of which there is no feed by that name in prices.feeds"
        if self.max_feed_age_s > max_price_age_s:
            return (
                f"crank.max_feed_age_s ({self.max_feed_age_s:g}) must be at most trigger.max_price_age_s "
                f"({max_price_age_s:g}): an older price decides nothing"
            )
        if breaker_trip is not None and self.max_deviation_ppm > round(breaker_trip * 1e6):
            return (
                f"crank.max_deviation_ppm ({self.max_deviation_ppm}) must be at most trigger.breaker_trip "
                f"({breaker_trip:g}), or what the keeper posts would pause its market: lower it, or raise the other"
            )
        if cap_lamports < _TWO_SIGNATURES_LAMPORTS:
            least = _TWO_SIGNATURES_LAMPORTS
            return f"fees.cap_lamports ({cap_lamports}) must be at least {least}, for the two signatures of a post"
        return None
