"""Behaviour 6: a fill is a success with the position that the order asked for, and an alarm with any other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize(("endpoints", "times"), [(1, 1), (2, 1_000)], ids=["once", "one of two nodes"])
@pytest.mark.parametrize("what", ["position", "order"])
async def test_6_an_account_that_one_answer_denies_is_there(
    tmp_path: Path, endpoints: int, times: int, what: str
) -> None:
    """One null was an alarm for a fill whose position was there, or closed for good an order that was."""
    async with Stand.open(tmp_path, endpoints=endpoints) as stand, stand.keeper() as keeper:
        trader, market = stand.world.trader(), stand.world.market()
        order = stand.order(trader, market)
        await stand.known(order)
        resting = stand.world.order(order)
        assert resting is not None
        account = order if what == "order" else keeper.program.position_of(resting, keeper.keeper)
        denied = 0

        def deny(call: dict[str, Any], reply: dict[str, Any]) -> None:
            nonlocal denied
            asked = call["params"][0] if call["method"] == "getMultipleAccounts" else []
            if str(account) in asked and "result" in reply and denied < times:
                reply["result"]["value"][asked.index(str(account))] = None
                denied += 1

        stand.nodes[0].edit = deny
        if what == "order":
            stand.world.cancel(trader, order)
        else:
            stand.world.set_price(market, 94 * USDC)
        await stand.reach(order, OrderState.CANCELLED if what == "order" else OrderState.FILLED)
        assert denied
