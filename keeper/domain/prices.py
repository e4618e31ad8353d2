"""A price: a number that is worth nothing without its slot and its time."""

from __future__ import annotations

from dataclasses import dataclass

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
