"""The circuit breaker: a price that jumps is not acted on until it has settled.

An oracle that is wrong for one update would otherwise fire every stop between the old price and the wrong one,
and no fill can be taken back. The price of it is a delay in a real crash, so the pause is short: it ends as soon
as the price has moved little for a few updates in a row, wherever it then stands.

Settling is counted in updates, not in seconds: a feed that falls silent after a jump has shown nothing about the
price, and a pause that ended by a timer would act on the very number that is in doubt.
"""

from __future__ import annotations

from dataclasses import dataclass

from solders.pubkey import Pubkey

from keeper.domain.orders import PPM
from keeper.domain.prices import Price


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a market is paused, and when it opens again.

    A move of more than `trip_ppm` (parts per million of the price before it) between two updates pauses the
    market; `settle_updates` updates in a row that each move it by less than `settle_ppm` open it.
    """

    trip_ppm: int = 50_000
    settle_ppm: int = 20_000
    settle_updates: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.settle_ppm <= self.trip_ppm:
            raise ValueError("settle_ppm must be above 0 and at most trip_ppm, or a market could never open")
        if self.settle_updates < 1:
            raise ValueError("settle_updates must be at least 1")


@dataclass(slots=True)
class _Watch:
    last: Price
    jump: str | None = None
    calm: int = 0


class Breaker:
    """Which markets are paused because their price jumped."""

    __slots__ = ("_rules", "_watches", "trips")

    def __init__(self, rules: BreakerRules) -> None:
        self._rules = rules
        self._watches: dict[Pubkey, _Watch] = {}
        self.trips = 0

    def __repr__(self) -> str:
        paused = sum(watch.jump is not None for watch in self._watches.values())
        return f"Breaker(markets={len(self._watches)}, paused={paused}, trips={self.trips})"

    def offer(self, price: Price) -> bool:
        """Look at a market's newest price; True if the market is paused from now on.

        Seeing the same oracle update again, in a newer slot, is no update: it shows nothing about the price.
        """
        watch = self._watches.get(price.market)
        if watch is None:
            self._watches[price.market] = _Watch(price)
            return False
        last = watch.last
        if price.price_1e6 == last.price_1e6 and price.updated_at_s == last.updated_at_s:
            return watch.jump is not None
        watch.last = price
        # Compared without dividing, so that exactly 5 % is not more than 5 %.
        moved = abs(price.price_1e6 - last.price_1e6) * PPM
        if moved > self._rules.trip_ppm * last.price_1e6:
            if watch.jump is None:
                self.trips += 1
            watch.jump = f"the price jumped by {moved / last.price_1e6 / 10_000:.1f} % in one update"
            watch.calm = 0
        elif watch.jump is not None:
            watch.calm = watch.calm + 1 if moved < self._rules.settle_ppm * last.price_1e6 else 0
            if watch.calm >= self._rules.settle_updates:
                watch.jump, watch.calm = None, 0
        return watch.jump is not None

    def reason(self, market: Pubkey) -> str | None:
        """Why the market is paused, for people; None when it isn't."""
        watch = self._watches.get(market)
        if watch is None or watch.jump is None:
            return None
        left = self._rules.settle_updates - watch.calm
        return f"{watch.jump}, and {left} calm update{'s' if left != 1 else ''} must follow"

    def reset(self, market: Pubkey) -> None:
        """Open the market because an operator says that the price is right."""
        watch = self._watches.get(market)
        if watch is not None:
            watch.jump, watch.calm = None, 0
