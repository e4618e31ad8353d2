"""Armed attempts in the order's record: what may leave, what must not, and what a restart knows of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from solders.signature import Signature

from keeper.domain.attempts import AttemptKind, AttemptState
from keeper.domain.orders import OnchainStatus, Order, OrderType
from keeper.execution.flights import Flight
from keeper.execution.orders import Reason
from keeper.journal import Op
from tests.execution.paper_arming import SLOTS_OF_LIFE
from tests.execution.paper_chain import ADDRESSES
from tests.execution.surroundings import REACHED_BY_NONE
from tests.execution.test_order_record import OrderRecords, holding_at_the_end, reasons

A, B = ADDRESSES
REACHED, NOT_REACHED = 85_000_000, 100_000_000


@pytest.fixture
def keeper() -> Iterator[OrderRecords]:
    """A keeper with a stop at A that is armed, and that no price has met."""
    machine = OrderRecords()
    machine.start()
    machine.a_price_comes(NOT_REACHED)
    machine.somebody_places_an_order(A, OrderType.STOP_LOSS, False, True, False)
    machine.what_is_near_is_armed()
    assert armed(machine)
    yield from holding_at_the_end(machine)


def armed(keeper: OrderRecords) -> list[Signature]:
    """What the journal holds as armed, and the armory with it."""
    held = [a.signature for a in keeper.ledger.rows.added.values() if a.state is AttemptState.ARMED]
    assert {str(signature) for signature in held} <= {str(s) for a in ADDRESSES for s in keeper.life.arms.signatures(a)}
    return held


def flight(keeper: OrderRecords) -> Flight:
    (only,) = keeper.flights()
    return only


def can_land_no_more(keeper: OrderRecords) -> None:
    """What is in the air is dead, is asked for, and what follows from that is signed."""
    keeper.a_transaction_is_asked_for(0, True)
    keeper.sign_at_once()


def slots_pass(keeper: OrderRecords, n: int) -> None:
    keeper.chain.slot += n


def test_what_is_armed_is_what_is_sent(keeper: OrderRecords) -> None:
    (signature,) = armed(keeper)
    keeper.a_price_comes(REACHED)
    assert flight(keeper).signature == signature
    assert (reasons(keeper), armed(keeper)) == ({Reason.ATTEMPT}, [])
    keeper.a_transaction_lands(0, None, True, True, False)


def test_it_is_renewed_while_its_blockhash_lives_and_the_old_one_leaves_the_journal(keeper: OrderRecords) -> None:
    (first,) = armed(keeper)
    keeper.what_is_near_is_armed()
    assert armed(keeper) == [first], "nothing is signed without need"
    slots_pass(keeper, 5)
    keeper.what_is_near_is_armed()
    (second,) = armed(keeper)
    assert second != first
    keeper.a_price_comes(REACHED)
    assert flight(keeper).signature == second


def test_one_that_is_too_old_is_not_sent(keeper: OrderRecords) -> None:
    (signature,) = armed(keeper)
    slots_pass(keeper, SLOTS_OF_LIFE - 1)
    keeper.a_price_comes(REACHED)
    assert flight(keeper).signature != signature
    assert armed(keeper) == [], "it makes room in the same transaction"


def test_one_that_was_disarmed_is_not_sent(keeper: OrderRecords) -> None:
    (signature,) = armed(keeper)
    keeper.its_user_has_the_keeper_cancel_it(A)
    keeper.a_price_comes(REACHED)
    assert [f.signature for f in keeper.flights()] != [signature]
    keeper.what_is_near_is_armed()
    assert armed(keeper) == []
    can_land_no_more(keeper)
    assert flight(keeper).signature != signature


def test_a_price_that_comes_while_the_journal_writes_finds_nothing_to_send(
    keeper: OrderRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the old one, which is about to go, nor the new one, which is not committed yet."""
    (old,) = armed(keeper)
    slots_pass(keeper, 5)
    keeper.its_executor_is_slow_or_not(True)
    written, commit = asyncio.Event(), keeper.ledger.commit

    async def slow_commit(*ops: Op) -> None:
        await written.wait()
        await commit(*ops)

    monkeypatch.setattr(keeper.ledger, "commit", slow_commit)
    rounds: list[asyncio.Future[None]] = []
    keeper.loop.do(lambda: rounds.append(asyncio.ensure_future(keeper.life.arms.arming.look())))
    keeper.a_price_comes(REACHED)
    assert keeper.flights() == []
    keeper.loop.do(written.set)
    assert all(each.done() for each in rounds)
    assert len(armed(keeper)) == 1
    assert armed(keeper) != [old]
    keeper.its_executor_is_slow_or_not(False)
    assert flight(keeper).signature != old
    assert armed(keeper) == [], "what was withdrawn for it goes with its intent"


def test_another_order_at_the_address_is_not_filled_by_it(keeper: OrderRecords) -> None:
    (signature,) = armed(keeper)
    keeper.somebody_places_an_order(A, OrderType.STOP_LOSS, False, True, True)
    keeper.a_price_comes(REACHED)
    assert flight(keeper).signature != signature
    assert armed(keeper) == []


def test_a_stop_that_was_moved_is_not_filled_by_it(keeper: OrderRecords) -> None:
    keeper.a_price_comes(REACHED_BY_NONE)  # and no reason to move the stop either
    keeper.somebody_places_an_order(B, OrderType.TRAILING_STOP, False, True, False)
    keeper.what_is_near_is_armed()
    of_b = keeper.life.arms.signatures(B)
    assert len(of_b) == 1
    order = keeper.chain.read(B)
    assert isinstance(order, Order)
    keeper.end(order._replace(stop_price_1e6=92_000_000), told=True)
    keeper.a_price_comes(91_000_000)
    assert flight(keeper).signature not in of_b


def test_an_order_that_ended_is_disarmed(keeper: OrderRecords) -> None:
    keeper.an_order_is_filled_or_cancelled(A, OnchainStatus.FILLED, True, False)
    keeper.what_is_near_is_armed()
    assert armed(keeper) == []


def test_where_one_left_or_became_free_others_are_armed_without_a_round_of_all(keeper: OrderRecords) -> None:
    keeper.what_is_near_is_armed_where_that_changed()
    keeper.somebody_places_an_order(B, OrderType.TAKE_PROFIT, False, True, False)
    keeper.what_is_near_is_armed_where_that_changed()
    assert keeper.life.arms.signatures(B) == (), "that is for the next round of all"
    keeper.a_price_comes(REACHED)
    keeper.what_is_near_is_armed_where_that_changed()
    assert len(keeper.life.arms.signatures(B)) == 1, "A's left"


def test_a_stop_that_was_moved_is_armed_as_soon_as_it_is_free(keeper: OrderRecords) -> None:
    keeper.a_price_comes(REACHED_BY_NONE)  # and no reason to move the stop either
    keeper.somebody_places_an_order(B, OrderType.TRAILING_STOP, False, True, False)
    keeper.a_price_comes(NOT_REACHED)
    moved = [i for i, each in enumerate(keeper.flights()) if each.attempt.kind is AttemptKind.RATCHET]
    assert len(moved) == 1
    keeper.what_is_near_is_armed_where_that_changed()
    assert keeper.life.arms.signatures(B) == (), "its stop is being moved"
    keeper.a_transaction_lands(moved[0], None, True, True, False)
    keeper.what_is_near_is_armed_where_that_changed()
    assert len(keeper.life.arms.signatures(B)) == 1


def test_what_failed_is_not_armed_again(keeper: OrderRecords) -> None:
    keeper.a_price_comes(REACHED)
    keeper.a_price_comes(NOT_REACHED)
    keeper.a_transaction_lands(0, "ConditionNotMet", True, True, False)
    keeper.what_is_near_is_armed()
    assert armed(keeper) == []


def test_nothing_is_armed_or_sent_while_the_gate_is_closed(keeper: OrderRecords) -> None:
    keeper.life.gate.close("a test", "a test says so")
    keeper.its_executor_is_slow_or_not(True)
    keeper.a_price_comes(REACHED)
    assert keeper.life.hands.queue, "it was decided"
    assert not keeper.flights(), "and did not leave"
    keeper.what_is_near_is_armed()
    assert armed(keeper) == []
    keeper.life.gate.lift("a test")
    keeper.its_executor_is_slow_or_not(False)
    assert flight(keeper).attempt.state is AttemptState.SIGNED


# -- after a restart


def restarted(keeper: OrderRecords) -> Signature:
    """The keeper was killed; what was armed may have been sent."""
    (signature,) = armed(keeper)
    keeper.the_keeper_is_killed_and_started(0, set())
    keeper.a_price_comes(NOT_REACHED)
    assert armed(keeper) == [signature]
    return signature


def test_after_a_restart_the_same_bytes_are_sent(keeper: OrderRecords) -> None:
    signature = restarted(keeper)
    keeper.what_is_near_is_armed()
    assert armed(keeper) == [signature], "it is not renewed: it may have been sent"
    keeper.a_price_comes(REACHED)
    assert flight(keeper).signature == signature
    assert flight(keeper).attempt.state is AttemptState.SIGNED
    keeper.a_transaction_lands(0, None, True, True, False)


def test_after_a_restart_nothing_else_is_sent_until_it_can_land_no_more(keeper: OrderRecords) -> None:
    signature = restarted(keeper)
    slots_pass(keeper, SLOTS_OF_LIFE)
    keeper.a_price_comes(REACHED)
    assert flight(keeper).attempt.state is AttemptState.ARMED, "it is too old to land, and may have been sent"
    assert reasons(keeper) == {Reason.ATTEMPT}
    can_land_no_more(keeper)
    assert flight(keeper).signature != signature
    assert armed(keeper) == []


def test_after_a_restart_the_same_bytes_are_sent_as_long_as_they_may_land(keeper: OrderRecords) -> None:
    """One that is signed in this life makes room for another long before that."""
    signature = restarted(keeper)
    slots_pass(keeper, SLOTS_OF_LIFE - 3)
    keeper.a_price_comes(REACHED)
    assert flight(keeper).signature == signature
    assert flight(keeper).attempt.state is AttemptState.SIGNED
    keeper.a_transaction_lands(0, None, True, True, False)


def test_after_a_restart_the_next_order_at_the_address_waits_too(keeper: OrderRecords) -> None:
    signature = restarted(keeper)
    keeper.somebody_places_an_order(A, OrderType.STOP_LOSS, False, True, True)
    keeper.a_price_comes(REACHED)
    assert flight(keeper).signature == signature
    assert flight(keeper).attempt.state is AttemptState.ARMED
    can_land_no_more(keeper)
    assert flight(keeper).signature != signature


def test_after_a_restart_nothing_is_kept_of_one_whose_order_had_ended(keeper: OrderRecords) -> None:
    keeper.an_order_is_filled_or_cancelled(A, OnchainStatus.CANCELLED, True, False)
    keeper.the_chain_votes(True, True)
    restarted(keeper)
    can_land_no_more(keeper)
    assert (keeper.flights(), armed(keeper), keeper.life.orders.addresses()) == ([], [], [])


def test_after_a_restart_one_that_had_landed_is_found(keeper: OrderRecords) -> None:
    restarted(keeper)
    keeper.a_transaction_lands(0, None, True, True, False)
    keeper.a_price_comes(REACHED)
    assert flight(keeper).attempt.state is AttemptState.CONFIRMED
    assert armed(keeper) == []


def test_after_a_restart_one_that_was_never_sent_costs_its_order_nothing(keeper: OrderRecords) -> None:
    restarted(keeper)
    keeper.a_transaction_is_asked_for(0, True)
    assert (keeper.flights(), armed(keeper)) == ([], [])
    record = keeper.life.orders.get(A)
    assert record is None or not (record.tries.failed or record.reasons)
    keeper.what_is_near_is_armed()
    assert len(armed(keeper)) == 1
