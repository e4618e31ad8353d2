"""Place over HTTP, move the price, see the fill and its position: once, and whatever happens in between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from solders.pubkey import Pubkey

from keeper.demo.api import KeeperApi, Terms
from keeper.domain.orders import OnchainStatus, Order, OrderType, Side
from keeper.venue.program import EXECUTE
from tests.support import KeeperConfig, KeeperProcess
from tests.validator.cluster import USDC, Cluster, Market, Wallet, eventually

pytestmark = pytest.mark.anyio

STOP = 98 * USDC
BELOW = 97 * USDC
"""Past the stop, and near enough to 100 that the keeper's circuit breaker stays closed."""


def stop_loss(market: Market, *, size_1e6: int = 1_000_000) -> Terms:
    return Terms(market.symbol, OrderType.STOP_LOSS, "long", size_1e6, STOP, None, None, 5)


@asynccontextmanager
async def running(config: KeeperConfig) -> AsyncIterator[tuple[KeeperProcess, KeeperApi]]:
    async with KeeperProcess.running(config, cold=True) as keeper, KeeperApi(lambda: keeper.url) as api:
        yield keeper, api


async def knows(api: KeeperApi, market: Market) -> None:
    """Until the keeper has a price of the market."""

    async def known() -> bool:
        return any(m["market"] == market.symbol and m["price"] for m in await api.markets())

    await eventually(known, what=f"the keeper has a price of {market.symbol}")


async def reads(api: KeeperApi, order: Pubkey, status: str) -> dict[str, Any]:
    """Until the keeper says that the order is in this state."""

    async def shown() -> dict[str, Any] | None:
        document = await api.order(str(order))
        return document if document["status"] == status else None

    return await eventually(shown, what=f"the keeper says {status} of {order}")


async def place(api: KeeperApi, cluster: Cluster, trader: Wallet, terms: Terms) -> Pubkey:
    """Place an order and wait until it rests."""
    order = await api.place(trader.key, terms)
    # The keeper shows what is processed; the ledger is read as confirmed.
    await reads(api, order, "open")
    found = await eventually(lambda: cluster.order(order), what=f"{order} is confirmed")
    assert (found.user, found.status) == (trader.address, OnchainStatus.PENDING)
    return order


async def assert_filled_once(cluster: Cluster, order: Pubkey, trader: Wallet, market: Market) -> None:
    """The order is Filled, has its own position, and the ledger has one execution that succeeded."""

    async def filled() -> Order | None:
        found = await cluster.order(order)
        return found if found is not None and found.status is OnchainStatus.FILLED else None

    found, position = await eventually(filled, what=f"{order} is Filled, confirmed"), await cluster.position(order)
    assert position is not None
    assert (position.user, position.market, position.side) == (trader.address, market.address, Side.LONG)
    assert position.size_1e6 == found.size_1e6
    history = await cluster.history(order)
    assert [entry.error for entry in history if entry.name == EXECUTE].count(None) == 1


async def test_an_order_fills_once_with_its_position_when_the_price_crosses(cluster: Cluster, tmp_path: Path) -> None:
    market, trader = await cluster.market(), await cluster.trader()
    async with running(await cluster.keeper(tmp_path)) as (_, api):
        await knows(api, market)
        order = await place(api, cluster, trader, stop_loss(market))
        far = Terms(market.symbol, OrderType.TAKE_PROFIT, "long", 1, 120 * USDC, None, None, 1)
        other = await place(api, cluster, trader, far)
        await cluster.set_price(market, BELOW)
        await reads(api, order, "filled")
        await assert_filled_once(cluster, order, trader, market)
        assert (await api.order(str(other)))["status"] == "open"
        await api.cancel(trader.key, other)
        await reads(api, other, "cancelled")


async def test_a_price_that_was_moved_back_fills_nothing_by_itself(cluster: Cluster, tmp_path: Path) -> None:
    market, trader = await cluster.market(), await cluster.trader()
    async with running(await cluster.keeper(tmp_path)) as (_, api):
        await knows(api, market)
        order = await place(api, cluster, trader, stop_loss(market))
        await cluster.set_price(market, BELOW, 100 * USDC)
        await cluster.set_price(market, 99 * USDC)
        await reads(api, order, "open")
        assert [entry.name for entry in await cluster.history(order) if entry.name == EXECUTE] == []
        # In two transactions: the keeper may see the first price or not, and its fill may land in time or not.
        await cluster.set_price(market, BELOW)
        await cluster.set_price(market, 100 * USDC)

        async def settled() -> bool:
            return (await api.order(str(order)))["status"] in {"open", "filled"}

        await eventually(settled, what="the order rests again, or was filled while it could be")
        await cluster.set_price(market, BELOW)
        await reads(api, order, "filled")
        await assert_filled_once(cluster, order, trader, market)


async def test_a_refused_fill_has_a_name_and_is_made_good_when_the_trader_can_pay(
    cluster: Cluster, tmp_path: Path
) -> None:
    market, trader = await cluster.market(), await cluster.trader(collateral_1e6=1)
    async with running(await cluster.keeper(tmp_path)) as (_, api):
        await knows(api, market)
        order = await place(api, cluster, trader, stop_loss(market))
        await cluster.set_price(market, BELOW)

        async def refused() -> dict[str, Any] | None:
            errors = [attempt["error"] for attempt in (await api.order(str(order)))["attempts"] if attempt["error"]]
            return errors[0] if errors else None

        error = await eventually(refused, what="an attempt that was refused")
        assert (error["name"], error["program"]) == ("InsufficientCollateral", str(cluster.program.id))
        assert await cluster.position(order) is None
        await cluster.deposit(trader, 10_000 * USDC)
        await cluster.set_price(market, BELOW)
        await reads(api, order, "filled")
        await assert_filled_once(cluster, order, trader, market)


async def test_a_keeper_that_was_killed_goes_on_where_it_was(cluster: Cluster, tmp_path: Path) -> None:
    market, trader = await cluster.market(), await cluster.trader()
    config = await cluster.keeper(tmp_path)
    async with running(config) as (keeper, api):
        await knows(api, market)
        orders = [await place(api, cluster, trader, stop_loss(market, size_1e6=size)) for size in (1_000, 2_000)]
        keeper.kill()
        await keeper.wait()
    await cluster.set_price(market, BELOW)
    # The second life is killed as soon as the first order is being executed: what it sent may land or not.
    async with running(config) as (keeper, api):

        async def begun() -> bool:
            return any([(await api.order(str(order)))["status"] != "open" for order in orders])

        await eventually(begun, what="the keeper acts")
        keeper.kill()
        await keeper.wait()
    async with running(config) as (_, api):
        await cluster.set_price(market, BELOW)
        for order in orders:
            await reads(api, order, "filled")
            await assert_filled_once(cluster, order, trader, market)
