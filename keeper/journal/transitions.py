"""Which order states may follow which. The journal keeps an order's end; it does not decide it.

A move that is not allowed is ignored, not an error: two rooms may report on one order in either order (the watch
sees it cancelled while the executor reports that it sends), and the journal settles it the same way each time.
"""

from __future__ import annotations

import re
from typing import Final

from keeper.domain.attempts import AttemptState
from keeper.domain.errors import JournalError
from keeper.domain.orders import OnchainStatus, OrderState

CLOSED_STATES: Final = frozenset(state for state in OrderState if state.terminal)
"""Nothing more happens to an order in these by itself."""

_BEFORE_CHAIN: Final = frozenset({OrderState.PREPARED, OrderState.SUBMITTED})
_ACTING: Final = frozenset({OrderState.TRIGGERED, OrderState.EXECUTING})

_NUMBERS: Final = re.compile(r"\d+(?:[.,]\d+)*")

_FIRST_STATE: Final = {
    OnchainStatus.PENDING: OrderState.OPEN,
    OnchainStatus.FILLED: OrderState.FILLED,
    OnchainStatus.CANCELLED: OrderState.CANCELLED,
    OnchainStatus.EXPIRED: OrderState.EXPIRED,
    OnchainStatus.PARTIALLY_FILLED: OrderState.OPEN,
    OnchainStatus.REJECTED: OrderState.REJECTED,
}


def first_state(status: OnchainStatus) -> OrderState:
    """The state of an order that nobody has named one for, by what its account says."""
    return _FIRST_STATE[status]


_ACCOUNT_KNOWS_MORE: Final = frozenset(
    {(OrderState.EXPIRED, OrderState.CANCELLED), (OrderState.EXPIRED, OrderState.FILLED)}
)


def _allowed(old: OrderState, new: OrderState) -> bool:
    if new is old:
        return True
    if old in CLOSED_STATES:
        return (old is OrderState.DROPPED and new in CLOSED_STATES) or (old, new) in _ACCOUNT_KNOWS_MORE
    if new in CLOSED_STATES:
        return True
    if old is OrderState.FAILED:
        return new is OrderState.CANCELLING
    if new in _BEFORE_CHAIN:
        return old is OrderState.PREPARED
    if old is OrderState.CANCELLING:
        return new not in _ACTING
    return True


ALLOWED: Final = frozenset((old, new) for old in OrderState for new in OrderState if _allowed(old, new))
"""The moves (from, to) that need no explicit reopening.

- A terminal state stays. Only `dropped` (the account is gone, or the transaction can't land) may still be
  replaced by another terminal one, since that one knows more; and `expired`, which the keeper concludes from the
  chain's clock, by what the account says.
- `failed` ends by a terminal state or by the user's cancel; to try again it has to be reopened, so that no
  price tick revives an order whose budget is used up.
- An order that is on chain does not go back to `prepared` or `submitted`.
- While the user's cancel is being landed the keeper does not act: first the cancel has to fail (`open`).
"""


def must_move(signature: str, state: AttemptState, to: AttemptState) -> None:
    """JournalError when an attempt that has ended would become something else."""
    if not state.live and to is not state:
        raise JournalError(f"The attempt {signature} has ended as {state.value} and can't become {to.value}.")


def reason_class(reason: str) -> str:
    """A reason without its numbers: 'Price 95.1 is above 95.' and 'Price 96 is above 95.' are the same."""
    return _NUMBERS.sub("#", reason)
