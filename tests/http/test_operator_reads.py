"""What an operator asks of a running keeper: its settings, and to read an order from the chain again."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest
from prometheus_client import CollectorRegistry
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.domain.events import OrderGone, OrderSeen
from keeper.http.edge.clients import Tokens
from tests.http.http_world import World, problem, serving

pytestmark = pytest.mark.anyio


class NoBrakes:
    paused: str | None = None

    async def pause(self, reason: str) -> None: ...

    async def resume(self) -> None: ...

    async def retry(self, address: Pubkey) -> None: ...


@asynccontextmanager
async def operating(world: World, news: list[OrderSeen | OrderGone]) -> AsyncIterator[httpx.AsyncClient]:
    ports = replace(
        world.ports,
        metrics=CollectorRegistry(),
        brakes=NoBrakes(),
        operators=Tokens({hashlib.sha256(b"right").hexdigest(): "operator"}),
        news=news.append,
        settings_shown=lambda: {"rpc.url": "node.example", "fees.cap_lamports": 7},
    )
    async with (
        serving(ports) as port,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}/v1/admin", headers={"Authorization": "Bearer right"}
        ) as http,
    ):
        yield http


async def test_an_order_is_read_again(world: World, wallet: Keypair) -> None:
    placed = await world.place(wallet)
    news: list[OrderSeen | OrderGone] = []
    async with operating(world, news) as http:
        answer = await http.post(f"/orders/{placed['order']}/resync")
        unknown = await http.post(f"/orders/{Pubkey.new_unique()}/resync")
        no_order = await http.post(f"/orders/{wallet.pubkey()}/resync")
    assert (answer.status_code, answer.json()["onchain_status"]) == (200, "pending")
    (seen,) = news
    assert isinstance(seen, OrderSeen)
    assert (str(seen.order.address), seen.order.slot) == (placed["order"], answer.json()["slot"])
    assert {problem(unknown)["code"], problem(no_order)["code"]} == {"order_not_found"}


async def test_settings_need_the_token(world: World) -> None:
    async with operating(world, []) as http:
        assert (await http.get("/settings")).json() == {"settings": {"rpc.url": "node.example", "fees.cap_lamports": 7}}
        refused = await http.get("/settings", headers={"Authorization": "Bearer wrong"})
        assert problem(refused)["code"] == "unauthorized"
        assert problem(await http.post(f"/orders/{Pubkey.new_unique()}/resync", headers={"Authorization": "x"}))
