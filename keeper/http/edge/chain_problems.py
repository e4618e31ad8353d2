"""What the chain and the journal refuse, as problems."""

from __future__ import annotations

import re
from typing import Final

from keeper.domain.errors import ChainError, ForeignCursor, JournalError, RateLimited, Rejected
from keeper.http.edge.problems import KINDS, Problem
from keeper.venue.program_errors import ProgramFailure

_FUNDS: Final = frozenset(
    {
        "AccountNotFound",
        "InsufficientFundsForFee",
        "InsufficientFundsForRent",
        "InsufficientFunds",
        "ResultWithNegativeLamports",
    }
)
_SENTENCES: Final = {
    "insufficient_funds": "The wallet has too few lamports for the fee and the order account's rent.",
    "order_exists": "The order's address is taken: an order with this id was placed before.",
    "order_not_pending": "The order is not pending any more.",
    "price_stale": "The oracle's price is too old for the program.",
}


def problem_of_failure(failure: ProgramFailure) -> Problem:
    """A failed simulation, named: the code is the program error's name where it is one of ours."""
    code = _code(failure)
    sentence = _SENTENCES.get(code) or f"The chain would refuse the transaction: {failure.name}."
    more = {
        "error": {
            "name": failure.name,
            "program": None if failure.program is None else str(failure.program),
            "detail": failure.detail or None,
        }
    }
    return Problem(code, sentence, more=more)


def _code(failure: ProgramFailure) -> str:
    if failure.name in _FUNDS:
        return "insufficient_funds"
    if failure.name == "AccountAlreadyInUse":
        return "order_exists"
    word = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", failure.name).lower()
    return word if word in KINDS and KINDS[word].status in (409, 422) else "simulation_failed"


def problem_of_error(error: ChainError | JournalError) -> Problem:
    """What went wrong with the chain or the journal, as a problem that its caller can act on."""
    match error:
        case RateLimited():
            wait_s = max(1, round(error.retry_after_s or 1))
            return Problem("chain_unavailable", "The chain's node asked for a pause.", retry_after_s=wait_s)
        case Rejected():
            # The keeper built the request, so a node that refuses it points at the keeper's side, not the caller's.
            return Problem("chain_unavailable", "The chain's node refused the request.", retry_after_s=5)
        case ChainError():
            return Problem("chain_unavailable", "The chain can't be reached right now.", retry_after_s=1)
        case ForeignCursor():
            return Problem("invalid_cursor", "The cursor is not one of this API's.")
    return Problem("journal_unavailable", "The keeper can't use its journal right now.", retry_after_s=5)
