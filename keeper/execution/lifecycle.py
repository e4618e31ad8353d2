"""The attempt's state machine: which states follow which, and nothing else. Drawn in docs/attempts.md.

`signed` is committed to the journal before the first byte leaves. From then on
the signature may land at any time, so every state that is not an end leads to every landing state: a node that
said nothing, or lied, is corrected by what the chain says later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from keeper.domain.attempts import Attempt, AttemptState
from keeper.journal.ops import MoveAttempt

S = AttemptState

MOVES: Final[Mapping[AttemptState, frozenset[AttemptState]]] = {
    # Armed before a restart, it may have been sent: then only the chain says what became of it.
    S.ARMED: frozenset({S.SIGNED, S.SEEN, S.CONFIRMED, S.FINALIZED, S.FAILED, S.EXPIRED}),
    S.SIGNED: frozenset({S.SENT, S.UNKNOWN, S.SEEN, S.CONFIRMED, S.FINALIZED, S.FAILED, S.EXPIRED}),
    S.SENT: frozenset({S.UNKNOWN, S.SEEN, S.CONFIRMED, S.FINALIZED, S.FAILED, S.EXPIRED}),
    S.UNKNOWN: frozenset({S.SENT, S.SEEN, S.CONFIRMED, S.FINALIZED, S.FAILED, S.EXPIRED}),
    # A fork may drop what was processed; the same bytes are then on their way again.
    S.SEEN: frozenset({S.SENT, S.CONFIRMED, S.FINALIZED, S.FAILED, S.EXPIRED}),
    # Confirmed has never been rolled back on a live cluster; the move back is there because "never" is no proof.
    S.CONFIRMED: frozenset({S.SENT, S.FINALIZED, S.FAILED}),
    S.FINALIZED: frozenset(),
    S.FAILED: frozenset(),
    S.EXPIRED: frozenset(),
    S.DRY_RUN: frozenset(),
}


class IllegalMove(AssertionError):
    """A bug: an attempt was to move where it can't."""


def move(attempt: Attempt, state: AttemptState, **facts: Any) -> tuple[Attempt, MoveAttempt]:
    """The attempt in its next state and the journal's operation for it.

    Repeating the present state adds facts. IllegalMove when the machine has no such move.
    """
    if state is not attempt.state and state not in MOVES[attempt.state]:
        raise IllegalMove(f"an attempt can't go from {attempt.state} to {state}")
    return attempt._replace(state=state, **facts), MoveAttempt(attempt.signature, state, **facts)
