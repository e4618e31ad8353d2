"""What an attempt's failure means and what is done about it: the error table and the retry policy.

This is the place to change the retry policy. The table is by the error's NAME and the failing PROGRAM: two
programs share numbers. The names are the IDL's, Anchor's, the system program's and the runtime's.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from solders.pubkey import Pubkey

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
    Fate.EXPIRED_ORDER: Policy(Next.STOP, costs_budget=False),
    Fate.CANNOT_PAY: Policy(Next.ACCOUNT_CHANGE, costs_budget=True),
    Fate.TRANSIENT: Policy(Next.BACK_OFF, costs_budget=True),
    Fate.REFUSED: Policy(Next.OPERATOR, costs_budget=True),
    Fate.MISCONFIGURED: Policy(Next.OPERATOR, costs_budget=True),
    Fate.NO_POSITION: Policy(Next.OPERATOR, costs_budget=True),
    Fate.DRY_RUN: Policy(Next.NEXT_PRICE, costs_budget=False),
}

# Errors of the program that the keeper serves, by IDL name, and Anchor's own on its accounts.
_OURS: Final[Mapping[str, Fate]] = {
    "OrderNotPending": Fate.LOST_RACE,
    "ConditionNotMet": Fate.PRICE_MOVED_BACK,
    "PriceStale": Fate.PRICE_STALE,
    "MarketInactive": Fate.MARKET_PAUSED,
    "OrderExpired": Fate.EXPIRED_ORDER,
    "InsufficientCollateral": Fate.CANNOT_PAY,
    "MaxPositionsReached": Fate.CANNOT_PAY,
    # The user never made a margin account. (An order that is gone looks the same: the order is read again
    # after every failure, and one that is gone was a lost race.)
    "AccountNotInitialized": Fate.CANNOT_PAY,
    "UnauthorizedKeeper": Fate.MISCONFIGURED,
    "InstructionMissing": Fate.MISCONFIGURED,
    "InstructionFallbackNotFound": Fate.MISCONFIGURED,
    "InstructionDidNotDeserialize": Fate.MISCONFIGURED,
    "AccountNotEnoughKeys": Fate.MISCONFIGURED,
    "AccountNotSigner": Fate.MISCONFIGURED,
    "AccountNotMutable": Fate.MISCONFIGURED,
    "ConstraintMut": Fate.MISCONFIGURED,
    "ConstraintHasOne": Fate.MISCONFIGURED,
    "ConstraintSeeds": Fate.MISCONFIGURED,
    "ConstraintSigner": Fate.MISCONFIGURED,
    "AccountDiscriminatorMismatch": Fate.MISCONFIGURED,
    "AccountOwnedByWrongProgram": Fate.MISCONFIGURED,
    "InvalidProgramId": Fate.MISCONFIGURED,
    "DeclaredProgramIdMismatch": Fate.MISCONFIGURED,
}

# The runtime's words, whichever program was running.
_RUNTIME: Final[Mapping[str, Fate]] = {
    "ComputationalBudgetExceeded": Fate.TRANSIENT,
    "ProgramFailedToComplete": Fate.TRANSIENT,
    "AccountInUse": Fate.TRANSIENT,
    "BlockhashNotFound": Fate.TRANSIENT,
    # The keeper's own word for an attempt that can no longer land.
    "BlockhashExpired": Fate.TRANSIENT,
    "ClusterMaintenance": Fate.TRANSIENT,
    "WouldExceedMaxBlockCostLimit": Fate.TRANSIENT,
    "WouldExceedMaxAccountCostLimit": Fate.TRANSIENT,
    # The keeper itself is out of lamports: the balance watch stops sending; the order did nothing wrong.
    "InsufficientFundsForFee": Fate.TRANSIENT,
    "InsufficientFundsForRent": Fate.TRANSIENT,
    "AccountNotFound": Fate.TRANSIENT,
    # The system program, when the executor can't pay the rent of the position that the fill creates.
    "ResultWithNegativeLamports": Fate.TRANSIENT,
    "InvalidProgramForExecution": Fate.MISCONFIGURED,
    "ProgramAccountNotFound": Fate.MISCONFIGURED,
    "UnsupportedProgramId": Fate.MISCONFIGURED,
    "IncorrectProgramId": Fate.MISCONFIGURED,
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


def fate_of(error_name: str, program: Pubkey | None, ours: Pubkey) -> Fate:
    """The fate of an attempt that failed with this error in this program. Unknown errors are REFUSED: they are
    not tried again blindly, and an operator sees their name.
    """
    if program == ours and error_name in _OURS:
        return _OURS[error_name]
    return _RUNTIME.get(error_name, Fate.REFUSED)
