"""Whether an order may be acted on: an order that is made again at its address, a user's cancel in the air, and what
is left of orders that are gone.
"""

from __future__ import annotations

import base64
from pathlib import Path

import httpx
import pytest
from solders.pubkey import Pubkey

from keeper.domain.orders import OnchainStatus, OrderState
from tests.behaviours.stand import USDC, Stand
from tests.http.http_world import signed
from tests.support import Trader

pytestmark = pytest.mark.anyio

ONE_TRY = {"retry_budget": 1}


async def relay_cancel(stand: Stand, trader: Trader, order: Pubkey) -> None:
    """The trader cancels by the keeper's API, which accepts it: the signed cancel is on its way."""
    assert stand.ready is not None
    async with httpx.AsyncClient(base_url=stand.ready.http_url) as http:
        prepared = (await http.post(f"/v1/orders/{order}/cancel")).raise_for_status().json()
        wire = base64.b64encode(signed(prepared, trader.key)).decode()
        answer = await http.post("/v1/orders/execute", json={"id": prepared["id"], "signed_transaction": wire})
        assert answer.status_code == 202


def make_again(stand: Stand, trader: Trader, order: Pubkey, market: Pubkey) -> None:
    """The trader closes an ended order and places one with the same id: it is at the same address."""
    ended = stand.world.order(order)
    assert ended is not None
    stand.world.close(trader, order)
    stand.bank.advance_clock(2)  # an order is known from the one before it by the second of its making
    assert stand.order(trader, market, order_id=ended.order_id) == order


async def filled_once(stand: Stand, order: Pubkey) -> None:
    """The keeper fills it, by one execution, and says so."""
    row = await stand.reach(order, OrderState.FILLED)
    assert row.reason == "Filled by this keeper, with its position."
    filled, position = stand.world.order(order), stand.world.position(order)
    assert filled is not None
    assert filled.status is OnchainStatus.FILLED
    assert position is not None
    assert position.size_1e6 == filled.size_1e6
    assert stand.landed(order) == 1


# -- an order that is made again at its address


async def test_an_order_that_was_cancelled_by_the_api_and_made_again_is_executed(tmp_path: Path) -> None:
    async with Stand.open(tmp_path, rpc={"snapshot_every_s": 0.5}) as stand:
        market, trader = stand.world.market(), stand.world.trader()
        order = stand.order(trader, market)
        async with stand.keeper():
            await stand.known(order)
            await relay_cancel(stand, trader, order)
            await stand.reach(order, OrderState.CANCELLED)
            make_again(stand, trader, order, market)
            await stand.reach(order, OrderState.OPEN)
            stand.world.set_price(market, 94 * USDC)
            await filled_once(stand, order)
            assert (await stand.get("/readyz")).status_code == 200


@pytest.mark.parametrize("budget", [1, 5])
async def test_an_order_that_failed_and_was_made_again_by_a_user_who_can_pay_is_executed(
    tmp_path: Path, budget: int
) -> None:
    """With a budget of one it failed for good, else it waited for its user's account; both ended with that order."""
    async with Stand.open(tmp_path, execution={"retry_budget": budget}, rpc={"snapshot_every_s": 0.5}) as stand:
        market, trader = stand.world.market(), stand.world.trader(collateral_1e6=0)
        order = stand.order(trader, market)
        async with stand.keeper():
            await stand.known(order)
            stand.world.set_price(market, 94 * USDC)
            row = await stand.reach(order, OrderState.FAILED)
            assert "InsufficientCollateral" in row.reason
            stand.world.set_price(market, 100 * USDC)
            stand.world.cancel(trader, order)
            await stand.reach(order, OrderState.CANCELLED)
            stand.world.deposit(trader, 1_000_000 * USDC)
            make_again(stand, trader, order, market)
            await stand.reach(order, OrderState.OPEN)
            stand.world.set_price(market, 94 * USDC)
            await filled_once(stand, order)


async def test_an_order_that_failed_for_good_and_was_made_again_has_its_whole_budget(tmp_path: Path) -> None:
    async with Stand.open(tmp_path, execution=ONE_TRY, rpc={"snapshot_every_s": 0.5}) as stand:
        market, trader = stand.world.market(), stand.world.trader(collateral_1e6=0)
        order = stand.order(trader, market)
        async with stand.keeper():
            await stand.known(order)
            stand.world.set_price(market, 94 * USDC)
            row = await stand.reach(order, OrderState.FAILED)
            assert "retry budget is used up" in row.reason
            assert row.budget_used == 1
            stand.world.set_price(market, 100 * USDC)
            stand.world.cancel(trader, order)
            await stand.reach(order, OrderState.CANCELLED)
            make_again(stand, trader, order, market)
            row = await stand.reach(order, OrderState.OPEN)
            assert row.budget_used == 0
            assert len(stand.attempts(order)) == 1
            stand.world.set_price(market, 94 * USDC)
            row = await stand.reach(order, OrderState.FAILED)
            assert "retry budget is used up" in row.reason
            assert row.budget_used == 1
            assert [one.number for one in stand.attempts(order)] == [1, 1], "it is another order"


@pytest.mark.parametrize("before", ["failed", "cancelled by the API"])
async def test_an_order_that_is_made_again_while_the_keeper_is_down_is_executed(tmp_path: Path, before: str) -> None:
    async with Stand.open(tmp_path, execution=ONE_TRY) as stand:
        market = stand.world.market()
        trader = stand.world.trader(collateral_1e6=0 if before == "failed" else 1_000_000 * USDC)
        order = stand.order(trader, market)
        async with stand.keeper():
            await stand.known(order)
            if before == "failed":
                stand.world.set_price(market, 94 * USDC)
                await stand.reach(order, OrderState.FAILED)
                stand.world.set_price(market, 100 * USDC)
            else:
                await relay_cancel(stand, trader, order)
                await stand.reach(order, OrderState.CANCELLED)
        if before == "failed":
            stand.world.cancel(trader, order)
            stand.world.deposit(trader, 1_000_000 * USDC)
        make_again(stand, trader, order, market)
        async with stand.keeper():
            row = await stand.reach(order, OrderState.OPEN)
            assert row.budget_used == 0
            stand.world.set_price(market, 94 * USDC)
            await filled_once(stand, order)
