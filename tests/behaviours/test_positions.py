"""Behaviour 6: a fill is a success with the position that the order asked for, and an alarm with any other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from solders.account import Account
from solders.pubkey import Pubkey

from keeper.domain.attempts import Fate
from keeper.domain.errors import MalformedAccount
from keeper.domain.orders import OrderState
from keeper.venue.venue import decode_position
from tests.behaviours.stand import USDC, Stand, stays
from tests.support import Trader, until

pytestmark = pytest.mark.anyio


def with_another(field: str, account: Account) -> Account:
    """A position account as it is, but for one field."""
    known = decode_position(Pubkey.default(), account.data, 0)
    for i in range(8, len(account.data)):
        data = bytearray(account.data)
        data[i] ^= 1
        try:
            read = decode_position(Pubkey.default(), bytes(data), 0)
        except MalformedAccount:
            continue
        if read != known and replace(read, **{field: getattr(known, field)}) == known:
            return Account(account.lamports, bytes(data), account.owner)
    raise AssertionError(f"no byte of a position is its {field}")


@pytest.mark.parametrize("wrong", ["none", "user", "market", "side", "size_1e6"])
async def test_6_a_fill_without_its_position_is_an_alarm(
    stand: Stand, trader: Trader, market: Pubkey, wrong: str
) -> None:
    """Without any, or with one that is another user's, on another market, of another side or size."""
    async with stand.keeper() as keeper:
        order = stand.order(trader, market)
        await stand.known(order)
        with stand.held():
            stand.bank.advance()
            stand.world.set_price(market, 94 * USDC)
            await until(lambda: stand.world.position(order))
            filled = stand.world.order(order)
            assert filled is not None
            position = keeper.program.position_of(filled, keeper.keeper)
            assert position is not None
            account = stand.bank.account(position)
            assert account is not None
            stand.bank.set_account(position, None if wrong == "none" else with_another(wrong, account))
        row = await stand.reach(order, OrderState.FAILED)
        assert "position is not there" in row.reason
        assert stand.attempts(order)[-1].fate is Fate.NO_POSITION
        metrics = (await stand.get("/metrics")).text
        assert "keeper_fills_without_position_total 1.0" in metrics
        await stays(lambda: len(stand.attempts(order)) == 1, stand)
