"""What the chain and the journal refuse, as problems."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Final

from keeper.errors import ChainError, JournalError, RateLimited, Rejected
from keeper.http.edge.problems import KINDS, Problem
from keeper.venue.program_errors import ProgramFailure

_FIELDS: Final = {
    "invalid_size": "size",
    "position_too_large": "size",
    "invalid_leverage": "leverage",
    "market_inactive": "market",
    "invalid_price": "limit_price",
    "price_too_high": "limit_price",
    "price_too_low": "limit_price",
    "invalid_stop_price": "trigger_price",
    "invalid_trailing_distance": "trailing_distance",
    "order_expired": "expires_at",
    "order_expiration_too_long": "expires_at",
}
"""The program's errors that are about one field of the order, by the problem's code."""

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
    return Problem(code, sentence, field=_FIELDS.get(code), more=more)


def _code(failure: ProgramFailure) -> str:
    if failure.name in _FUNDS:
        return "insufficient_funds"
    if failure.name == "AccountAlreadyInUse":
        return "order_exists"
    word = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", failure.name).lower()
    return word if word in KINDS and KINDS[word].status in (409, 422) else "simulation_failed"


@contextlib.contextmanager
def translated(cursor: str | None = None) -> Iterator[None]:
    """Errors of the chain and of the journal, raised inside, as the problems that a caller can act on. `cursor` is what
    the caller asked a page with.
    """
    try:
        yield
    except RateLimited as e:
        wait = max(1, round(e.retry_after_s or 1))
        raise Problem("chain_unavailable", "The chain's node asked for a pause.", retry_after_s=wait) from e
    except Rejected as e:
        # The keeper built the request, so a node that refuses it points at the keeper's side, not the caller's.
        raise Problem("chain_unavailable", "The chain's node refused the request.", retry_after_s=5) from e
    except ChainError as e:
        raise Problem("chain_unavailable", "The chain can't be reached right now.", retry_after_s=1) from e
    except JournalError as e:
        if cursor is not None and type(e) is JournalError:
            raise Problem("invalid_cursor", "The cursor is not one of this API's.", field="cursor") from e
        raise Problem("journal_unavailable", "The keeper can't use its journal right now.", retry_after_s=5) from e
