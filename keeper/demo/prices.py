"""The walk of the prices: seeded, with drifts that turn, and bounded. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from keeper.domain.orders import PRICE_SCALE

_DRIFT: Final = 0.0035
"""Share of the price by which a leg moves it at each update."""
_NOISE: Final = 0.0015
_WIDEST: Final = 0.08
"""The walk turns around at this distance from its start, so that far triggers are never reached."""
_LEG_TICKS: Final = (10, 22)


@dataclass(frozen=True, slots=True)
class Listing:
    """A market to create: its assets and its first price, x 1e6. `first_leg` is the direction that it starts in."""

    base: str
    quote: str
    price_1e6: int
    first_leg: int

    @property
    def symbol(self) -> str:
        """As people write it."""
        return f"{self.base}/{self.quote}"


LISTINGS: Final[Sequence[Listing]] = (
    Listing("SOL", "USDC", 150 * PRICE_SCALE, +1),
    Listing("BTC", "USDC", 65_000 * PRICE_SCALE, -1),
    Listing("ETH", "USDC", 3_200 * PRICE_SCALE, +1),
    # The one whose feed dies.
    Listing("JUP", "USDC", 850_000, -1),
)


def walk(listing: Listing, rng: random.Random) -> Iterator[int]:
    """The prices, x 1e6, that follow the listing's first, without end. A step is at most about 1 %, far from the
    keeper's circuit breaker; legs go up and down in turn, so that trailing stops are pulled along and then reached.
    """
    share, direction, left = 1.0, listing.first_leg, rng.randint(*_LEG_TICKS)
    while True:
        if left == 0 or (share - 1.0) * direction >= _WIDEST:
            direction, left = -direction, rng.randint(*_LEG_TICKS)
        left -= 1
        noise = max(-3 * _NOISE, min(3 * _NOISE, rng.gauss(0.0, _NOISE)))
        share *= 1.0 + direction * _DRIFT + noise
        yield max(1, round(listing.price_1e6 * share))
