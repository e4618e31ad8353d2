"""Strangers who call the API as fast as they can, at a node that answers fifty calls a second, stop no execution."""

from __future__ import annotations

import base64
import itertools
from collections import Counter
from pathlib import Path

import anyio
import httpx
import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.domain.orders import OnchainStatus
from tests.http.http_world import signed
from tests.support import KeeperConfig, KeeperProcess, World, until
from tests.support.http_node import http_node
from tests.support.limited_node import LimitedNode

pytestmark = pytest.mark.anyio
USDC = 1_000_000
TERMS = {"market": "SOL/USDC", "order_type": "stop_loss", "side": "long", "size": "1", "trigger_price": "50"}


async def ask_for_ever(url: str, address: str, relayed: Counter[str]) -> None:
    """Cancel orders that are none, and bring transactions that are signed well and fail: each was a call."""
    transport = httpx.AsyncHTTPTransport(local_address=address)
    async with httpx.AsyncClient(base_url=url, transport=transport, timeout=30.0) as http:
        for n in itertools.count():
            await http.post(f"/v1/orders/{Pubkey.new_unique()}/cancel")
            if n % 4:
                continue
            wallet = Keypair()
            prepared = await http.post("/v1/orders", json={"user": str(wallet.pubkey()), "leverage": 5, **TERMS})
            if prepared.status_code == 201:
                wire = base64.b64encode(signed(prepared.json(), wallet)).decode()
                body = {"id": prepared.json()["id"], "signed_transaction": wire}
                answer = await http.post("/v1/orders/execute", json=body)
                relayed[answer.json()["code"]] += 1


async def test_a_met_order_is_filled_while_strangers_ask_for_all_that_the_node_answers(tmp_path: Path) -> None:
    async with World.open(slot_ms=50) as world:
        market = world.market("SOL/USDC", price_1e6=100 * USDC)
        trader = world.trader()
        order = world.place(trader, market, stop_price_1e6=99_500_000)
        node = LimitedNode(world.bank)
        async with http_node(node.answer) as node.url:
            config = KeeperConfig.beside(world, tmp_path, rpc={"url": node.url}, http={"node_calls_per_s": 1})
            async with KeeperProcess.running(config) as keeper, anyio.create_task_group() as strangers:
                began, relayed = anyio.current_time(), Counter[str]()
                for n in range(8):
                    strangers.start_soon(ask_for_ever, keeper.url, f"127.0.1.{1 + n % 4}", relayed)
                await until(lambda: relayed["chain_unavailable"] >= 20, within_s=30)
                assert relayed["insufficient_funds"] <= 2 + 1.0 * (anyio.current_time() - began) + 1
                world.set_price(market, 99 * USDC)

                def filled() -> bool:
                    found = world.order(order)
                    return found is not None and found.status is OnchainStatus.FILLED

                await until(filled, within_s=5)
                async with httpx.AsyncClient() as http:
                    assert (await http.get(f"{keeper.url}/readyz")).status_code == 200
                strangers.cancel_scope.cancel()
        assert node.refused == 0, "the keeper never asked for more than there is"
