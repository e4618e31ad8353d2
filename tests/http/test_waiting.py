"""Rows that wait for their signature: remembered, bounded, and nobody's orders."""

from __future__ import annotations

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.http.orders.waiting import Waiting
from keeper.journal.records import PreparedKind, PreparedRow, PreparedStatus
from tests.http.http_world import World, signed

pytestmark = pytest.mark.anyio


USER = Pubkey.default()


def _row(row_id: str, user: Pubkey = USER) -> PreparedRow:
    return PreparedRow(
        id=row_id,
        kind=PreparedKind.PLACE,
        order=USER,
        user=user,
        market=USER,
        message=b"",
        blockhash="",
        last_valid_block_height=0,
        created_at=0.0,
        arguments={},
    )


def _keep(waiting: Waiting, row_id: str, client: str, user: Pubkey = USER) -> str | None:
    goes = waiting.make_room(user, client)
    waiting.add(_row(row_id, user), client)
    return goes


def test_a_row_is_known_until_it_is_dropped() -> None:
    waiting = Waiting()
    assert _keep(waiting, "a", "me") is None
    assert waiting.get("a") == _row("a")
    waiting.drop("a")
    waiting.drop("never there")
    assert waiting.get("a") is None
    assert repr(waiting) == "Waiting(0 of 4096)"


def test_a_client_who_has_many_displaces_his_own_oldest() -> None:
    waiting = Waiting(of_a_client=2)
    _keep(waiting, "mine", "me")
    assert [_keep(waiting, f"his {n}", "him", Pubkey.new_unique()) for n in range(4)] == [None, None, "his 0", "his 1"]
    assert waiting.get("mine") is not None
    assert waiting.get("his 0") is None


def test_who_prepares_much_for_a_wallet_displaces_himself_and_not_its_owner() -> None:
    waiting = Waiting(for_a_user=4)
    _keep(waiting, "mine", "me")
    assert [_keep(waiting, f"his {n}", "him") for n in range(5)] == [None, None, None, "his 0", "his 1"]
    assert _keep(waiting, "mine too", "me") == "his 2"
    assert waiting.get("mine") is not None


def test_all_together_are_bounded_and_who_has_most_makes_room() -> None:
    waiting = Waiting(most=5)
    _keep(waiting, "mine", "me", Pubkey.new_unique())
    gone = [_keep(waiting, f"his {n}", "him", Pubkey.new_unique()) for n in range(100)]
    assert gone == [None] * 4 + [f"his {n}" for n in range(96)]
    assert waiting.get("mine") is not None
    assert repr(waiting) == "Waiting(5 of 5)"


async def test_after_its_submission_the_journal_says_what_became_of_it(world: World, wallet: Keypair) -> None:
    prepared = await world.prepare(wallet)
    wire = signed(prepared, wallet)
    first = await world.execute(prepared["id"], wire)
    row = await world.journal.prepared(prepared["id"])
    assert row is not None
    assert row.status is PreparedStatus.SUBMITTED
    again = await world.execute(prepared["id"], wire)
    assert (again.status_code, again.content) == (first.status_code, first.content) == (202, first.content)
