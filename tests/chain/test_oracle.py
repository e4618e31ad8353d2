"""Prices by asking: however many readers, one ask every few seconds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from keeper.domain.events import Event, MarketSeen
from keeper.solana.client import ChainClient
from keeper.solana.http1 import HttpTransport
from keeper.solana.pool import PoolLimits, RpcPool
from keeper.solana.rpc import Endpoint
from keeper.venue.oracle import MarketPull
from keeper.venue.venue import Venue
from tests.support.world import PROGRAM, World

pytestmark = pytest.mark.anyio

VENUE = Venue(PROGRAM, PROGRAM.id)


def told(seen: list[Event]) -> Any:
    """An intake that keeps the facts."""
    return SimpleNamespace(on_event=seen.append)


async def test_one_ask_serves_all_readers_for_its_time() -> None:
    now = [100.0]
    asks: list[int] = []
    seen: list[Event] = []
    async with World.open(slot_ms=0) as world:
        markets = [world.market(), world.market()]
        client = ChainClient(RpcPool([Endpoint("n", HttpTransport(world.net.rpc_url, label="n"))], PoolLimits()))
        pull = MarketPull(
            client, VENUE, lambda: markets, told(seen), lambda: asks.append(1), ttl_s=5.0, clock=lambda: now[0]
        )

        async with anyio.create_task_group() as tg:
            for _ in range(50):
                tg.start_soon(pull.ensure)
        assert len(asks) == 1
        assert {e.market.address for e in seen if isinstance(e, MarketSeen)} == set(markets)

        now[0] += 4.9
        assert await pull.ensure()
        assert len(asks) == 1

        world.set_price(markets[0], 123_000_000)
        now[0] += 0.2
        assert await pull.ensure()
        assert len(asks) == 2
        newest = {e.market.address: e.market for e in seen if isinstance(e, MarketSeen)}
        assert newest[markets[0]].last_oracle_price_1e6 == 123_000_000
        await client.pool.aclose()


async def test_a_failed_ask_is_not_remembered() -> None:
    asks: list[int] = []
    async with World.open(slot_ms=0) as world:
        market = world.market()
        dead = ChainClient(RpcPool([Endpoint("n", HttpTransport("http://127.0.0.1:1", label="n"))], PoolLimits()))
        pull = MarketPull(dead, VENUE, lambda: [market], told([]), lambda: asks.append(1))
        assert not await pull.ensure()
        assert not await pull.ensure()
        assert len(asks) == 2
        await dead.pool.aclose()
