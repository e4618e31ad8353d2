"""A price, a number that is worth nothing without its slot and its time, and the levels that orders wait for."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from solders.pubkey import Pubkey


@dataclass(frozen=True, slots=True)
class Price:
    """A market's oracle price as one slot showed it.

    `price_1e6` is quote units x 1e6. `slot` orders two sightings (promise 4: older never overwrites newer).
    `updated_at_s` is the oracle's own time, unix seconds by the chain's clock (`last_oracle_update`): age is
    measured from it, not from when the news arrived.
    """

    market: Pubkey
    price_1e6: int
    slot: int
    updated_at_s: int

    def age_s(self, chain_time_s: float) -> float:
        """Seconds between the oracle's update and the chain's clock; never negative."""
        return max(0.0, chain_time_s - self.updated_at_s)


@dataclass(frozen=True, slots=True)
class Crank:
    """A price that the transaction which executes posts to its market first; `feed` is the account it was read from.

    Its time is the feed's own: when its oracle published it.
    """

    feed: Pubkey
    price: Price


class Fires(enum.IntEnum):
    """On which side of its trigger an order fires."""

    AT_OR_BELOW = 0
    AT_OR_ABOVE = 1

    def met(self, price_1e6: int, trigger_1e6: int) -> bool:
        """Whether this price fires a trigger at `trigger_1e6`."""
        return price_1e6 <= trigger_1e6 if self is _AT_OR_BELOW else price_1e6 >= trigger_1e6


# Reaching an enum's member through its class costs several times as much as a name, and this is asked for every update.
_AT_OR_BELOW: Final = Fires.AT_OR_BELOW


@dataclass(frozen=True, slots=True)
class Level:
    """The orders of one market that share a trigger and are watched for it."""

    fires: Fires
    trigger_1e6: int
    orders: int
    size_1e6: int
