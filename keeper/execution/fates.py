"""What is done about an attempt's fate: the retry policy. This is the place to change it.

Which errors have which fate is the venue's to say (`keeper.venue.fates`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from keeper.domain.attempts import Fate


class Next(enum.Enum):
    """What happens to the order after the attempt."""

    STOP = "stop"
    """Nothing more: the order is read again and its end recorded."""
    NEXT_PRICE = "next_price"
    """It rests, and only a newer price than the failed attempt's can trigger it again."""
    BACK_OFF = "back_off"
    """It is tried again after a growing pause, within its budget."""
    ACCOUNT_CHANGE = "account_change"
    """It waits until its user's margin account changes."""
    OPERATOR = "operator"
    """It is a failure: an operator looks, and retries it by command."""


@dataclass(frozen=True, slots=True)
class Policy:
    """`costs_budget`: whether the attempt counts against the order's retry budget."""

    next: Next
    costs_budget: bool


POLICIES: Final[Mapping[Fate, Policy]] = {
    Fate.EXECUTED: Policy(Next.STOP, costs_budget=False),
    Fate.RATCHETED: Policy(Next.NEXT_PRICE, costs_budget=False),
    Fate.RELAYED: Policy(Next.STOP, costs_budget=False),
    Fate.LOST_RACE: Policy(Next.STOP, costs_budget=False),
    Fate.PRICE_MOVED_BACK: Policy(Next.NEXT_PRICE, costs_budget=False),
    Fate.PRICE_STALE: Policy(Next.NEXT_PRICE, costs_budget=False),
    Fate.MARKET_PAUSED: Policy(Next.NEXT_PRICE, costs_budget=False),
    Fate.CRANK_REFUSED: Policy(Next.BACK_OFF, costs_budget=False),
    Fate.EXPIRED_ORDER: Policy(Next.STOP, costs_budget=False),
    Fate.CANNOT_PAY: Policy(Next.ACCOUNT_CHANGE, costs_budget=True),
    Fate.TRANSIENT: Policy(Next.BACK_OFF, costs_budget=True),
    Fate.REFUSED: Policy(Next.OPERATOR, costs_budget=True),
    Fate.MISCONFIGURED: Policy(Next.OPERATOR, costs_budget=True),
    Fate.DRAINS_KEY: Policy(Next.OPERATOR, costs_budget=True),
    Fate.NO_POSITION: Policy(Next.OPERATOR, costs_budget=True),
    Fate.DRY_RUN: Policy(Next.NEXT_PRICE, costs_budget=False),
}

# Errors that say nothing about the order, so its budget is not charged for them: some minutes of a bad network must
# not turn every order that they met into a failure. The hourly ceiling bounds them all the same.
FREE_OF_CHARGE: Final = frozenset(
    {
        "AccountNotFound",
        "BlockhashExpired",
        "ClusterMaintenance",
        "InsufficientFundsForFee",
        "InsufficientFundsForRent",
        "ResultWithNegativeLamports",
    }
)
