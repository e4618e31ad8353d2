"""The same API over the deployed revision 0.1: one order a wallet, no ids, three executable types."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.domain.orders import Market, Order, OrderType
from keeper.domain.prices import Fires, Level, Price
from keeper.venue.idl import PACKAGED, load_idl
from keeper.venue.program import Program
from tests.http.http_world import World, problem, serving

pytestmark = pytest.mark.anyio

DEPLOYED = Program(
    Pubkey.from_string("C2T3UnvGdHwEkspXJG7JyAhwo6VKQEKjN6eCq69guYSw"),
    load_idl(PACKAGED["0.1"]),
)
MARKET = Market(
    address=DEPLOYED.market_address("SOL", "USDC"),
    base_asset="SOL",
    quote_asset="USDC",
    authority=Pubkey.default(),
    max_leverage=20,
    is_active=True,
    last_oracle_price_1e6=100_000_000,
    last_oracle_update_s=1_000,
    slot=5,
)


class OneMarket:
    """A desk that knows one market at 100 and no order."""

    def order(self, address: Pubkey) -> Order | None:
        return None

    def why(self, address: Pubkey) -> str:
        return ""

    def market(self, key: str | Pubkey) -> Market | None:
        return MARKET if key in (MARKET.symbol, MARKET.address) else None

    def markets(self) -> list[Market]:
        return [MARKET]

    def price(self, market: Pubkey) -> Price | None:
        return Price(market, 100_000_000, 5, 1_000)

    def chain_time_s(self) -> float | None:
        return 1_010.0

    def counts(self) -> Mapping[tuple[Pubkey, OrderType], int]:
        return {}

    def levels(self, market: Pubkey, fires: Fires, n: int) -> Sequence[Level]:
        return []

    def executing(self, market: Market) -> tuple[bool, str]:
        return True, ""


async def _post(world: World, body: dict[str, Any]) -> httpx.Response:
    ports = replace(world.ports, program=DEPLOYED, desk=OneMarket(), metrics=CollectorRegistry())
    async with serving(ports) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        return await http.post("/v1/orders", json=body)


async def test_an_order_without_an_id(world: World, wallet: Keypair) -> None:
    answer = await _post(world, world.body(wallet))
    assert answer.status_code == 201, answer.text
    prepared = answer.json()
    assert prepared["order_id"] is None
    assert prepared["order"] == str(DEPLOYED.order_address(wallet.pubkey(), None))
    message = VersionedTransaction.from_bytes(base64.b64decode(prepared["transaction"])).message
    assert isinstance(message, Message)
    ours = next(ix for ix in message.instructions if message.account_keys[ix.program_id_index] == DEPLOYED.id)
    name, arguments = DEPLOYED.coder.decode(bytes(ours.data))
    assert (name, arguments["stop_price"]) == ("place_order", 95_500_000)
    assert "creates no position" in prepared["notice"]
    # Nobody signed it, so the wallet may think again and prepare another in its place.
    again = await _post(world, world.body(wallet, trigger_price="90"))
    assert (again.status_code, again.json()["order"]) == (201, prepared["order"])
    seen = (await world.http.get(f"/v1/orders/{prepared['order']}")).json()
    assert (seen["status"], seen["trigger_price"]) == ("prepared", "90")


async def test_that_its_fills_create_no_position_is_told_of_the_keeper(world: World) -> None:
    ports = replace(world.ports, program=DEPLOYED, desk=OneMarket(), metrics=CollectorRegistry())
    async with serving(ports) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        assert (await http.get("/v1/keeper")).json()["fills_create_positions"] is False
    assert (await world.http.get("/v1/keeper")).json()["fills_create_positions"] is True


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"order_id": "1"}, "order_id_not_supported", "order_id"),
        ({"order_type": "limit", "limit_price": "99", "trigger_price": None}, "order_type_not_executed", "order_type"),
        ({"order_type": "trailing_stop", "trailing_distance": "0.1"}, "order_type_not_executed", "order_type"),
    ],
)
async def test_what_this_revision_has_not(
    world: World, wallet: Keypair, changes: dict[str, Any], code: str, field: str
) -> None:
    answer = await _post(world, world.body(wallet, **changes))
    assert (problem(answer)["code"], problem(answer)["field"]) == (code, field)
