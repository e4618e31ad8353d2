"""One transaction of a user's that is about several orders: an amend, which cancels one and places another, and cancels
of all. Both ends are told rightly, whatever becomes of it, and no order gets anything of another's record.
"""

from __future__ import annotations

import base64
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from solders.pubkey import Pubkey

from keeper.domain.attempts import AttemptKind, AttemptState
from keeper.domain.orders import OnchainStatus, OrderState
from tests.behaviours.stand import USDC, Stand, stays
from tests.behaviours.test_orders import filled_once
from tests.http.http_world import signed
from tests.support import BOUND_S, Trader, until

pytestmark = pytest.mark.anyio


async def relayed(stand: Stand, trader: Trader, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """What the API prepared there, signed and relayed by the trader."""
    assert stand.ready is not None
    # Without blocks, or what is signed would grow too old on a busy machine.
    with stand.held():
        async with httpx.AsyncClient(base_url=stand.ready.http_url) as http:
            found = (await http.post(path, json=body)).raise_for_status().json()
            for prepared in (all_of_them := found.get("transactions", [found])):
                wire = base64.b64encode(signed(prepared, trader.key)).decode()
                answer = await http.post("/v1/orders/execute", json={"id": prepared["id"], "signed_transaction": wire})
                assert answer.status_code == 202, answer.text
    return list(all_of_them)


async def amended(stand: Stand, trader: Trader, order: Pubkey, **changes: Any) -> Pubkey:
    """The order that is to take this one's place, the transaction being on its way."""
    (prepared,) = await relayed(stand, trader, f"/v1/orders/{order}/amend", changes)
    return Pubkey.from_string(prepared["order"])


def executions(stand: Stand, order: Pubkey) -> int:
    return sum(one.kind is AttemptKind.EXECUTE for one in stand.attempts(order))


async def test_an_order_that_took_anothers_place_is_executed_and_the_other_is_not(tmp_path: Path) -> None:
    async with Stand.open(tmp_path) as stand:
        market, trader = stand.world.market(), stand.world.trader()
        old = stand.order(trader, market, 95)
        async with stand.keeper():
            await stand.known(old)
            new = await amended(stand, trader, old, trigger_price="90", size="2")
            await stand.reach(old, OrderState.CANCELLED)
            told = [change.reason for change in stand.journal.changes_of(old)]
            assert f"Its user's signed amend transaction is being landed. The order {new} is to take its place." in told
            await stand.reach(new, OrderState.OPEN)
            (relay,) = stand.attempts(new)
            assert relay.kind is AttemptKind.RELAY
            stand.world.set_price(market, 94 * USDC)
            await stays(lambda: stand.state(new) is OrderState.OPEN and not executions(stand, old), stand)
            stand.world.set_price(market, 90 * USDC)
            await filled_once(stand, new)
            filled = stand.world.order(new)
            assert filled is not None
            assert filled.size_1e6 == 2 * USDC
            assert executions(stand, old) == 0
            assert stand.state(old) is OrderState.CANCELLED


@pytest.mark.parametrize("restart", [False, True], ids=["watched", "restarted"])
async def test_nothing_is_executed_while_its_place_is_being_taken(tmp_path: Path, restart: bool) -> None:
    async with Stand.open(tmp_path) as stand:
        market, trader = stand.world.market(), stand.world.trader()
        old = stand.order(trader, market, 95)

        async def lands() -> None:
            await stays(lambda: executions(stand, old) == 0, stand)
            stand.bank.release_transactions()
            await stand.reach(new, OrderState.OPEN)
            await stand.reach(old, OrderState.CANCELLED)

        with ExitStack() as blocks:  # held, so that it can land still after a slow start
            async with stand.keeper():
                await stand.known(old)
                stand.bank.hold_transactions()
                new = await amended(stand, trader, old, trigger_price="90")
                assert (stand.state(old), stand.state(new)) == (OrderState.CANCELLING, OrderState.SUBMITTED)
                stand.world.set_price(market, 94 * USDC)
                if restart:
                    blocks.enter_context(stand.held())
                else:
                    await lands()
            if restart:
                async with stand.keeper():
                    blocks.close()
                    await lands()
        assert executions(stand, old) == executions(stand, new) == 0


async def test_an_amend_that_the_program_refuses_leaves_each_order_as_it_is(tmp_path: Path) -> None:
    """The user's wallet cancels the old one while the amend is in the air: it has nothing to take the place of."""
    async with Stand.open(tmp_path) as stand:
        market, trader = stand.world.market(), stand.world.trader()
        old = stand.order(trader, market, 95)
        async with stand.keeper():
            await stand.known(old)
            stand.bank.hold_transactions()
            new = await amended(stand, trader, old, trigger_price="90")
            stand.world.cancel(trader, old)
            stand.bank.release_transactions()
            row = await stand.reach(new, OrderState.REJECTED)
            assert row.reason == "The program refused its user's transaction with OrderNotPending."
            await stand.reach(old, OrderState.CANCELLED)
            assert stand.world.order(new) is None


async def test_an_amend_that_can_no_longer_land_gives_the_old_order_back(tmp_path: Path) -> None:
    async with Stand.open(tmp_path) as stand:
        market, trader = stand.world.market(), stand.world.trader()
        old = stand.order(trader, market, 95)
        async with stand.keeper():
            await stand.known(old)
            stand.bank.lose_transactions(1_000_000)
            new = await amended(stand, trader, old, trigger_price="90")
            stand.world.set_price(market, 94 * USDC)
            await stays(lambda: executions(stand, old) == 0, stand)
            stand.outlive_blockhashes()
            stand.bank.lose_transactions(0)
            await filled_once(stand, old)
            await stand.reach(new, OrderState.DROPPED)
            assert [one.state for one in stand.attempts(new)] == [AttemptState.EXPIRED]


async def test_the_new_order_begins_with_a_whole_budget_though_the_old_one_had_none_left(tmp_path: Path) -> None:
    async with Stand.open(tmp_path, execution={"retry_budget": 1}) as stand:
        market, trader = stand.world.market(), stand.world.trader(collateral_1e6=0)
        old = stand.order(trader, market, 95)
        async with stand.keeper():
            await stand.known(old)
            stand.world.set_price(market, 94 * USDC)
            await stand.reach(old, OrderState.FAILED)
            stand.world.set_price(market, 100 * USDC)
            new = await amended(stand, trader, old, trigger_price="96")
            row = await stand.reach(new, OrderState.OPEN)
            assert (row.budget_used, executions(stand, new)) == (0, 0)
            stand.world.deposit(trader, 1_000 * USDC)
            stand.world.set_price(market, 94 * USDC)
            await filled_once(stand, new)
            assert executions(stand, old) == 1
            await stand.reach(old, OrderState.CANCELLED)


@pytest.mark.parametrize("restart", [False, True], ids=["watched", "restarted"])
async def test_all_that_are_cancelled_together_wait_together_and_are_given_back_together(
    tmp_path: Path, restart: bool
) -> None:
    async with Stand.open(tmp_path) as stand:
        market, trader = stand.world.market(), stand.world.trader()
        orders = [stand.order(trader, market, 95) for _ in range(3)]
        async with stand.keeper():
            await stand.known(*orders)
            stand.bank.lose_transactions(1_000_000)
            (prepared,) = await relayed(stand, trader, "/v1/orders/cancel-all", {"user": str(trader.address)})
            assert set(prepared["cancels"]) == {str(order) for order in orders}
            assert {stand.state(order) for order in orders} == {OrderState.CANCELLING}
            stand.world.set_price(market, 94 * USDC)
            await stays(lambda: not any(executions(stand, order) for order in orders), stand)
            if not restart:
                stand.outlive_blockhashes()
                stand.bank.lose_transactions(0)
                for order in orders:
                    await filled_once(stand, order)
        if restart:
            async with stand.keeper():
                await stays(lambda: not any(executions(stand, order) for order in orders), stand)
                stand.outlive_blockhashes()
                stand.bank.lose_transactions(0)
                for order in orders:
                    await filled_once(stand, order)


async def test_all_that_are_cancelled_together_are_told_together(tmp_path: Path) -> None:
    async with Stand.open(tmp_path) as stand:
        market, trader = stand.world.market(), stand.world.trader()
        orders = [stand.order(trader, market, 95) for _ in range(3)]
        async with stand.keeper():
            await stand.known(*orders)
            await relayed(stand, trader, "/v1/orders/cancel-all", {"user": str(trader.address)})
            for order in orders:
                await stand.reach(order, OrderState.CANCELLED)
                found = stand.world.order(order)
                assert found is not None
                assert found.status is OnchainStatus.CANCELLED
            with anyio.fail_after(BOUND_S):  # nothing is kept of them
                while "keeper_order_records 0.0" not in (await stand.get("/metrics")).text.splitlines():  # noqa: ASYNC110
                    await anyio.sleep(0.02)
                await until(lambda: not stand.journal.open_attempts())
