"""Yellowstone gRPC as a source of news: one more beside the WebSockets, and good enough alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keeper.domain.orders import OrderState
from keeper.localnet.geyser import Geyser
from tests.behaviours.stand import Stand

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
