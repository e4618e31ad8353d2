"""A keeper whose database has a standby that is synchronous: the first server goes, and the second one is promoted."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from keeper.domain.orders import OrderState
from keeper.journal import home_of
from tests.behaviours.stand import Stand
from tests.behaviours.test_two_keepers import LEASE_S, readiness
from tests.support import until
from tests.support.postgres import both, kill, missing, promote, standby_of

if why := missing():
    pytest.skip(why, allow_module_level=True)

from keeper.demo.postgres import PostgresServer

pytestmark = [pytest.mark.anyio, pytest.mark.long]


@contextlib.asynccontextmanager
async def replicated(folder: Path) -> AsyncIterator[tuple[Stand, PostgresServer, PostgresServer]]:
    """A stand whose keeper is given both servers, the one that takes writes and its standby."""
    with PostgresServer.running() as primary, standby_of(primary) as standby:
        url = both(primary, standby)
        async with Stand.open(folder, journal={"url": url}, cluster={"lease_s": LEASE_S}) as stand:
            yield stand, primary, standby


async def test_a_keeper_goes_on_at_the_server_that_was_promoted(tmp_path: Path) -> None:
    async with replicated(tmp_path) as (stand, primary, standby):
        market, trader = stand.world.market(), stand.world.trader()
        first, second = stand.order(trader, market), stand.order(trader, market, stop_usd=90)
        async with stand.keeper() as keeper, httpx.AsyncClient(base_url=keeper.http_url) as http:
            await stand.known(first, second)
            stand.world.set_price(market, 94_000_000)
            await stand.reach(first, OrderState.FILLED)
            sent = len(stand.sends)
            kill(primary)
            stand.world.set_price(market, 89_000_000)
            await readiness(http, 503)
            assert len(stand.sends) == sent, "nothing is sent that is not committed"
            promote(standby)
            await until(lambda: stand.state(second) is OrderState.FILLED)
            await readiness(http, 200)
            for order in (first, second):
                (attempt,) = stand.attempts(order)
                assert stand.landed(order) == 1
                assert {*stand.sent(order)} == {attempt.wire}
        assert home_of(stand.config.place).verify() == []


async def test_while_commits_wait_for_a_standby_that_is_gone_nothing_is_sent(tmp_path: Path) -> None:
    """The server says nothing at all meanwhile: it is waited for, and /readyz says so."""
    async with replicated(tmp_path) as (stand, _, standby):
        market, trader = stand.world.market(), stand.world.trader()
        order = stand.order(trader, market)
        async with stand.keeper() as keeper, httpx.AsyncClient(base_url=keeper.http_url) as http:
            await stand.known(order)
            standby.stop()
            stand.world.set_price(market, 94_000_000)
            await readiness(http, 503)
            assert stand.sends == []
            standby.start(wal_retrieve_retry_interval="100ms")
            # What was signed may have died of old age meanwhile: then another attempt follows it, and one fills.
            await until(lambda: stand.state(order) is OrderState.FILLED)
            assert stand.landed(order) == 1
            assert {send.signature for send in stand.sends} <= {one.signature for one in stand.attempts(order)}
            await readiness(http, 200)
