"""Two keepers on one PostgreSQL journal: one works, and the other takes over what it left, with the same bytes."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx
import pytest
from solders.pubkey import Pubkey

from keeper.domain.orders import OrderState
from tests.behaviours.stand import FAST, Stand
from tests.support import BOUND_S, KeeperConfig, KeeperProcess, until
from tests.support.keeper_process import START_WITHIN_S
from tests.support.postgres import fresh_database, kill, missing

if why := missing():
    pytest.skip(why, allow_module_level=True)

from keeper.demo.postgres import PostgresServer

pytestmark = pytest.mark.anyio
LEASE_S = 3.0


@contextlib.asynccontextmanager
async def two(folder: Path, **cluster: object) -> AsyncIterator[tuple[Stand, KeeperConfig, KeeperConfig]]:
    """A stand, and the settings of keepers a and b, whose sends arrive at endpoints 0 and 1."""
    url = fresh_database()
    cluster = {"lease_s": LEASE_S, **cluster}
    async with Stand.open(folder, endpoints=2, journal={"url": url}, cluster={"name": "a", **cluster}) as stand:
        configs = []
        for name, proxy in zip("ab", stand.proxies, strict=True):
            settings = {**FAST, "journal": {"url": url}, "cluster": {"name": name, **cluster}}
            settings["rpc"] = {**FAST["rpc"], "url": proxy.rpc_url, "ws_url": proxy.ws_url}
            configs.append(KeeperConfig.at(folder / name, stand.config.key, **settings))
        yield stand, configs[0], configs[1]


@contextlib.asynccontextmanager
async def beside(config: KeeperConfig) -> AsyncIterator[KeeperProcess]:
    """A keeper that stands by."""
    keeper = await KeeperProcess.start(config)
    try:
        await until(lambda: "keeper.standing_by" in config.log.read_text(), within_s=START_WITHIN_S)
        yield keeper
    finally:
        with anyio.CancelScope(shield=True):
            await keeper.stop()


async def readiness(http: httpx.AsyncClient, status: int) -> None:
    with anyio.fail_after(BOUND_S):
        while (await http.get("/readyz")).status_code != status:  # noqa: ASYNC110 - it is asked of another process
            await anyio.sleep(0.02)


async def executed_once(stand: Stand, order: Pubkey) -> None:
    await until(lambda: stand.state(order) is OrderState.FILLED)
    (attempt,) = stand.attempts(order)
    assert stand.landed(order) == 1
    assert {send.wire for send in stand.sends if send.signature == attempt.signature} == {attempt.wire}
    assert {send.signature for send in stand.sends} == {attempt.signature}


@pytest.mark.parametrize("point", [pytest.param("journaled", marks=pytest.mark.long), "sent"])
async def test_what_a_killed_keeper_left_is_sent_by_the_other_with_the_same_bytes(tmp_path: Path, point: str) -> None:
    async with two(tmp_path) as (stand, a, b):
        market, trader = stand.world.market(), stand.world.trader()
        order = stand.order(trader, market)
        first = await KeeperProcess.start(a, crash_at=point)
        await first.ready()
        async with beside(b) as second:
            with stand.held():  # what was signed must not grow too old on a busy machine
                stand.world.set_price(market, 94_000_000)
                assert await first.wait() == -signal.SIGKILL
                await until(lambda: any(send.endpoint == 1 for send in stand.sends), within_s=START_WITHIN_S)
            await second.ready()
            await executed_once(stand, order)
            assert point == "sent" or {send.endpoint for send in stand.sends} == {1}


@pytest.mark.long
async def test_a_keeper_that_was_stopped_for_longer_than_its_lease_sends_nothing_more(tmp_path: Path) -> None:
    """It is stopped between its commit and its send; when it goes on, the other has sent those bytes and more."""
    async with two(tmp_path) as (stand, a, b):
        market, trader = stand.world.market(), stand.world.trader()
        order, later = stand.order(trader, market), stand.order(trader, market, stop_usd=90)
        first = await KeeperProcess.start(a, crash_at="journaled:1:stop")
        await first.ready()
        async with beside(b) as second:
            with stand.held():
                stand.world.set_price(market, 94_000_000)
                await until(lambda: stand.sends, within_s=START_WITHIN_S)
            await second.ready()
            await executed_once(stand, order)
            assert {send.endpoint for send in stand.sends} == {1}
            stand.world.set_price(market, 89_000_000)
            first.process.send_signal(signal.SIGCONT)
            await until(lambda: "keeper.lease_lost" in a.log.read_text())
            await until(lambda: stand.state(later) is OrderState.FILLED)
            assert {send.endpoint for send in stand.sends} == {1}
            assert (stand.landed(order), stand.landed(later)) == (1, 1)
            assert await first.stop() == 0, "it stands by"
        assert "b took over from a" in a.log.read_text()


async def test_a_keeper_that_is_told_to_stop_hands_over_at_once(tmp_path: Path) -> None:
    async with two(tmp_path) as (stand, a, b):
        market, trader = stand.world.market(), stand.world.trader()
        async with KeeperProcess.running(a) as first, beside(b) as second:
            order = stand.order(trader, market)
            await until(lambda: stand.row(order) is not None)
            assert await first.stop() == 0
            await second.ready()
            stand.world.set_price(market, 94_000_000)
            await executed_once(stand, order)
            assert {send.endpoint for send in stand.sends} == {1}


@pytest.mark.long
async def test_while_the_database_is_gone_nothing_is_sent_and_then_it_goes_on(tmp_path: Path) -> None:
    with PostgresServer.running() as server:
        async with Stand.open(tmp_path, journal={"url": server.url()}, cluster={"lease_s": LEASE_S}) as stand:
            market, trader = stand.world.market(), stand.world.trader()
            order = stand.order(trader, market)
            async with stand.keeper() as keeper, httpx.AsyncClient(base_url=keeper.http_url) as http:
                await until(lambda: stand.row(order) is not None)
                kill(server)
                stand.journal.close()
                stand.witness.journal = None
                stand.world.set_price(market, 94_000_000)

                await readiness(http, 503)
                assert stand.sends == []
                assert not stand.world.position(order)
                server.start()
                await executed_once(stand, order)
                await readiness(http, 200)


@pytest.mark.long
async def test_a_killed_keeper_starts_again_on_its_database(tmp_path: Path) -> None:
    async with two(tmp_path) as (stand, a, _):
        market, trader = stand.world.market(), stand.world.trader()
        order = stand.order(trader, market)
        first = await KeeperProcess.start(a, crash_at="journaled")
        await first.ready()
        with stand.held():
            stand.world.set_price(market, 94_000_000)
            assert await first.wait() == -signal.SIGKILL
            again = await KeeperProcess.start(a)
            await until(lambda: stand.sends, within_s=START_WITHIN_S)
        await again.ready()
        await executed_once(stand, order)
        await again.stop()


@pytest.mark.long
async def test_two_keepers_with_one_name_are_refused_in_one_line(tmp_path: Path) -> None:
    async with two(tmp_path) as (_, a, _), KeeperProcess.running(a):
        settings = {name: values for name, values in a.settings.items() if name != "key"}
        again = KeeperConfig.at(tmp_path / "again", a.key, **settings)
        twin = await KeeperProcess.start(again)
        assert await twin.wait() == 2
        last = again.log.read_text().splitlines()[-1]
        assert "Another keeper with the name a runs" in last
