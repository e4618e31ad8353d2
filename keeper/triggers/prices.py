"""What a price is worth: the newest of each market, its age by the chain's clock, and whether it jumped (promise 4).

Nothing here looks at a clock: the chain's time and this machine's monotonic time are passed in.
"""

from __future__ import annotations

from dataclasses import dataclass

from solders.pubkey import Pubkey

from keeper.domain.events import ChainTime
from keeper.domain.orders import PPM
from keeper.domain.prices import Price


class PriceCache:
    """The newest price of each market.

    `reads` counts the questions asked of it and `offers` the prices brought to it: the two figures that show
    how rarely the oracle is asked for how often a price is used.
    """

    __slots__ = ("_latest", "offers", "reads")

    def __init__(self) -> None:
        self._latest: dict[Pubkey, Price] = {}
        self.reads = 0
        self.offers = 0

    def __repr__(self) -> str:
        return f"PriceCache(markets={len(self._latest)}, reads={self.reads}, offers={self.offers})"

    def __len__(self) -> int:
        return len(self._latest)

    def offer(self, price: Price) -> bool:
        """Take a price in if it is news; True if it is the one that `read` gives from now on.

        The newer slot wins. In one slot the later oracle update wins, and of two that claim the same second the
        one that arrives last, because the program's clock can't tell them apart either. A price of 0 is no
        price: the market's oracle was never set.
        """
        self.offers += 1
        if price.price_1e6 <= 0:
            return False
        known = self._latest.get(price.market)
        if known is not None and (
            price.slot < known.slot
            or (price.slot == known.slot and price.updated_at_s < known.updated_at_s)
            or price == known
        ):
            return False
        self._latest[price.market] = price
        return True

    def read(self, market: Pubkey) -> Price | None:
        """The market's newest price, however old; None if it never had one."""
        self.reads += 1
        return self._latest.get(market)

    def fresh(self, market: Pubkey, chain_time_s: float, max_age_s: float) -> Price | None:
        """The market's newest price if it is at most `max_age_s` old by the chain's clock, else None."""
        self.reads += 1
        price = self._latest.get(market)
        return price if price is not None and chain_time_s - price.updated_at_s <= max_age_s else None


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
class _Market:
    last: Price
    jump: str | None = None
    calm: int = 0


class Breaker:
    """Which markets are paused because their price jumped.

    An oracle that is wrong for one update would otherwise fire every stop between the old price and the wrong one, and
    no fill can be taken back. The cost of it is a delay in a real crash, so the pause is short: it ends as soon as the
    price has moved little for a few updates in a row, wherever it then stands.

    Settling is counted in updates, not in seconds: a feed that falls silent after a jump has shown nothing about the
    price, and a pause that ended by a timer would act on the very number that is in doubt.
    """

    __slots__ = ("_markets", "_rules", "trips")

    def __init__(self, rules: BreakerRules) -> None:
        self._rules = rules
        self._markets: dict[Pubkey, _Market] = {}
        self.trips = 0

    def __repr__(self) -> str:
        paused = sum(watch.jump is not None for watch in self._markets.values())
        return f"Breaker(markets={len(self._markets)}, paused={paused}, trips={self.trips})"

    def offer(self, price: Price) -> bool:
        """Look at a market's newest price; True if the market is paused from now on.

        Seeing the same oracle update again, in a newer slot, is no update: it shows nothing about the price.
        """
        watch = self._markets.get(price.market)
        if watch is None:
            self._markets[price.market] = _Market(price)
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
        watch = self._markets.get(market)
        if watch is None or watch.jump is None:
            return None
        left = self._rules.settle_updates - watch.calm
        return f"{watch.jump}, and {left} calm update{'s' if left != 1 else ''} must follow"


class ChainClock:
    """The chain's clock between two sightings of it: the last one plus the time that passed here since.

    It never goes back. If no sighting comes it goes on at this machine's pace, so that with a silent node every
    price grows old, which is the safe side; if a sighting is behind the estimate, it stands until that catches
    up. Judging by the machine's own wall clock instead would make a skewed machine trust stale prices.
    """

    __slots__ = ("_at_monotonic_s", "_floor_s", "_slot", "_unix_time_s")

    def __init__(self) -> None:
        self._slot = -1
        self._unix_time_s = 0.0
        self._at_monotonic_s = 0.0
        self._floor_s = 0.0

    def __repr__(self) -> str:
        return f"ChainClock(slot={self.slot}, unix_time_s={self._unix_time_s})"

    @property
    def slot(self) -> int | None:
        """The slot of the newest sighting; None before the first."""
        return self._slot if self._slot >= 0 else None

    def observe(self, time: ChainTime, monotonic_s: float) -> bool:
        """Take a sighting in, made at `monotonic_s`; False if it is not newer than the known one."""
        if time.slot <= self._slot:
            return False
        if self._slot >= 0:
            self.now(monotonic_s)  # what could have been said until now is not taken back
        self._slot = time.slot
        self._unix_time_s = float(time.unix_time_s)
        self._at_monotonic_s = monotonic_s
        return True

    def now(self, monotonic_s: float) -> float | None:
        """The chain's clock at `monotonic_s`, unix seconds; None before the first sighting."""
        if self._slot < 0:
            return None
        passed_s = max(0.0, monotonic_s - self._at_monotonic_s)
        self._floor_s = max(self._floor_s, self._unix_time_s + passed_s)
        return self._floor_s

    def now_or(self, monotonic_s: float, wall_s: float) -> float:
        """The chain's clock at `monotonic_s`; `wall_s`, this machine's, before the first sighting."""
        now_s = self.now(monotonic_s)
        return wall_s if now_s is None else now_s
