"""The attempt's state machine."""

from __future__ import annotations

import itertools

import pytest
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.attempts import LIVE_STATES, Attempt, AttemptKind, AttemptState, Fate
from keeper.execution.lifecycle import MOVES, IllegalMove, move


def attempt(state: AttemptState) -> Attempt:
    return Attempt(
        signature=Signature.default(),
        kind=AttemptKind.EXECUTE,
        order=Pubkey.default(),
        wire=b"\x01",
        blockhash="h",
        last_valid_block_height=1,
        state=state,
        number=1,
        signed_at=0.0,
    )


def test_every_state_is_in_the_machine() -> None:
    assert set(MOVES) == set(AttemptState)


def test_the_ends_are_the_states_that_are_not_live() -> None:
    ends = {state for state, following in MOVES.items() if not following}
    assert set(AttemptState) - LIVE_STATES == ends


def test_every_live_state_can_reach_every_end_of_a_sent_attempt() -> None:
    """Nothing is stuck: from any state that could still land there is a way to finalized, failed and expired."""

    def reachable(state: AttemptState) -> set[AttemptState]:
        seen: set[AttemptState] = set()
        todo = [state]
        while todo:
            for following in MOVES[todo.pop()] - seen:
                seen.add(following)
                todo.append(following)
        return seen

    for state in LIVE_STATES:
        assert {AttemptState.FINALIZED, AttemptState.FAILED, AttemptState.EXPIRED} <= reachable(state)


@pytest.mark.parametrize(("old", "new"), list(itertools.product(AttemptState, AttemptState)))
def test_moves(old: AttemptState, new: AttemptState) -> None:
    if new is old or new in MOVES[old]:
        moved, op = move(attempt(old), new, seen_slot=7)
        assert moved.state is new
        assert moved.seen_slot == 7
        assert (op.signature, op.state, op.seen_slot) == (moved.signature, new, 7)
    else:
        with pytest.raises(IllegalMove):
            move(attempt(old), new)


def test_10_what_was_processed_can_be_on_its_way_again() -> None:
    moved, _ = move(attempt(AttemptState.SEEN), AttemptState.SENT)
    assert moved.state is AttemptState.SENT


def test_nothing_expires_that_was_confirmed() -> None:
    assert AttemptState.EXPIRED not in MOVES[AttemptState.CONFIRMED]


def test_facts_are_kept_in_the_attempt_and_in_the_operation() -> None:
    moved, op = move(attempt(AttemptState.SENT), AttemptState.FAILED, fate=Fate.CANNOT_PAY, error_name="X")
    assert (moved.fate, moved.error_name) == (op.fate, op.error_name) == (Fate.CANNOT_PAY, "X")
