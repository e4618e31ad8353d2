"""Yellowstone gRPC as a source of news: one more beside the WebSockets, and good enough alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from keeper.domain.orders import OrderState
from keeper.localnet.geyser import Geyser
from tests.behaviours.stand import Stand
from tests.chaos.proxy import Fault, Kind
from tests.support import until

pytestmark = pytest.mark.anyio

NO_SOCKET = "ws://127.0.0.1:9"


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    """The stream is the only way to hear of anything before the next list, which is half a minute away."""
    async with Stand.open(tmp_path, chain={"geyser_port": 0}, rpc={"ws_url": NO_SOCKET}) as stand:
        yield stand


def geyser(stand: Stand) -> Geyser:
    assert stand.world.net.geyser is not None
    return stand.world.net.geyser


async def test_an_order_is_placed_and_filled_by_the_news_of_the_stream_alone(stand: Stand) -> None:
    trader, market = stand.world.trader(), stand.world.market()
    async with stand.keeper():
        order = stand.order(trader, market)
        await stand.known(order)
        stand.world.set_price(market, 94_000_000)
        await stand.reach(order, OrderState.FILLED)
        assert stand.landed(order) == 1
    assert geyser(stand).subscribed == 1


async def test_what_happened_while_there_was_no_stream_is_told_again(stand: Stand) -> None:
    trader, market, quiet = stand.world.trader(), stand.world.market(), stand.world.market()
    async with stand.keeper():
        doomed = stand.order(trader, quiet)
        await stand.known(doomed)
        geyser(stand).disconnect()
        stand.world.cancel(trader, doomed)
        met, resting = stand.order(trader, market, 101), stand.order(trader, quiet)
        await stand.reach(met, OrderState.FILLED)
        await stand.reach(resting, OrderState.OPEN)
        await stand.reach(doomed, OrderState.CANCELLED)
        assert stand.landed(met) == 1


async def test_the_first_news_wins_and_the_second_changes_nothing(tmp_path: Path) -> None:
    """The same order, told by a socket and by the stream: one execution."""
    async with Stand.open(tmp_path, chain={"geyser_port": 0}) as stand:
        trader, market = stand.world.trader(), stand.world.market()
        async with stand.keeper():
            orders = [stand.order(trader, market, 101 + i) for i in range(5)]
            for order in orders:
                await stand.reach(order, OrderState.FILLED)
        assert [stand.landed(order) for order in orders] == [1] * 5
        assert [len(stand.attempts(order)) for order in orders] == [1] * 5


async def test_the_stream_fills_what_a_silent_socket_does_not_tell(tmp_path: Path) -> None:
    async with Stand.open(tmp_path, chain={"geyser_port": 0}) as stand:
        trader, market = stand.world.trader(), stand.world.market()
        async with stand.keeper():
            stand.scripts[0].break_news(Fault(Kind.SOCKET_SILENT, 3_600))
            await until(lambda: stand.proxies[0].injected[Kind.SOCKET_SILENT] == 1)
            order = stand.order(trader, market, 101)
            await stand.reach(order, OrderState.FILLED)


async def test_a_refused_token_is_named_and_the_sockets_go_on(tmp_path: Path) -> None:
    chain = {"geyser_port": 0, "geyser_token": "the-right-one"}
    async with Stand.open(tmp_path, chain=chain) as stand:
        trader, market = stand.world.trader(), stand.world.market()
        async with stand.keeper():
            await stand.told("watch", lambda said: "stream-1: the server refuses the token (UNAUTHENTICATED)" in said)
            assert (await stand.readiness("watch"))[0], "a socket tells of everything"
            with anyio.fail_after(60):
                while 'keeper_watch_connected{endpoint="stream-1"} 0.0' not in (await stand.get("/metrics")).text:  # noqa: ASYNC110 - asked over HTTP
                    await anyio.sleep(0.02)
            order = stand.order(trader, market, 101)
            await stand.reach(order, OrderState.FILLED)
        assert geyser(stand).subscribed == 0
