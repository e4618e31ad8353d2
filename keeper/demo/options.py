"""What the demo is asked for, and the numbers that make its story fit into half a minute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TICK_S: Final = 0.25
"""Between two updates of a walking price, in seconds at speed 1."""

WALK_TICKS: Final = 64
"""How long the prices walk, in updates of each market."""

HEARTBEAT_S: Final = 1.0
"""Between two updates of a price that stands still, in seconds: it must not look stale."""

MAX_PRICE_AGE_S: Final = 4
"""The keeper's `trigger.max_price_age_s` here: small, so that a dead feed shows within seconds."""

SLOT_MS: Final = 400
"""The chain's pace: a mainnet slot."""

PATIENCE_S: Final = 30.0
"""How long the keeper may take to finish what it has begun, before the audit calls it lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """How many orders, which walk, how fast.

    `orders` are expected to be payable; `poor` are further ones of users without collateral, whose expected end is a
    refused fill. `speed` divides the pauses of the walk. `hold` keeps the chain and the keeper up until Ctrl-C. Of more
    than one of `keepers`, on one PostgreSQL journal, the working one is killed on the way.
    """

    orders: int = 240
    seed: int = 7
    speed: float = 1.0
    poor: int = 0
    hold: bool = False
    keepers: int = 1
    as_json: bool = False
