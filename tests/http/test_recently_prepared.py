"""Rows that wait for their signature are remembered, the newest of them."""

from __future__ import annotations

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.http.orders.relaying import RecentlyPrepared
from keeper.journal.records import PreparedKind, PreparedRow, PreparedStatus
from tests.http.http_world import World, signed

pytestmark = pytest.mark.anyio


def _row(row_id: str) -> PreparedRow:
    key = Pubkey.default()
    return PreparedRow(
        id=row_id,
        kind=PreparedKind.PLACE,
        order=key,
        user=key,
        market=key,
        message=b"",
        blockhash="",
        last_valid_block_height=0,
        created_at=0.0,
        arguments={},
    )


def test_the_oldest_is_forgotten_first() -> None:
    recent = RecentlyPrepared(most=2)
    for row_id in ("a", "b", "c"):
        recent.add(_row(row_id))
    assert recent.get("a") is None
    assert recent.get("c") == _row("c")
    recent.drop("c")
    recent.drop("never there")
    assert recent.get("c") is None
    assert repr(recent) == "RecentlyPrepared(1 of 2)"


async def test_after_its_submission_the_journal_says_what_became_of_it(world: World, wallet: Keypair) -> None:
    prepared = await world.prepare(wallet)
    wire = signed(prepared, wallet)
    first = await world.execute(prepared["id"], wire)
    row = await world.journal.prepared(prepared["id"])
    assert row is not None
    assert row.status is PreparedStatus.SUBMITTED
    again = await world.execute(prepared["id"], wire)
    assert (again.status_code, again.content) == (first.status_code, first.content) == (202, first.content)
