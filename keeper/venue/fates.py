"""What an error means for the attempt that met it: the error table.

By the error's NAME and the failing PROGRAM: two programs share numbers. The names are the IDL's, Anchor's, the system
program's and the runtime's. What is done about each fate is `keeper.execution.fates`'s to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from solders.pubkey import Pubkey

from keeper.domain.attempts import Fate

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
    # And for what a simulation says would cost the key too much.
    "KeyDrained": Fate.DRAINS_KEY,
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


def fate_of(error_name: str, program: Pubkey | None, ours: Pubkey) -> Fate:
    """The fate of an attempt that failed with this error in this program. Unknown errors are REFUSED: they are
    not tried again blindly, and an operator sees their name.
    """
    if program == ours and error_name in _OURS:
        return _OURS[error_name]
    return _RUNTIME.get(error_name, Fate.REFUSED)


def crank_fate_of(error_name: str) -> Fate:
    """The same of an error in our program's instruction that posts a price: whatever the program has against that, it
    says nothing of the order.
    """
    return _RUNTIME.get(error_name, Fate.CRANK_REFUSED)
