"""Markets: price, what rests on them, how near it is, and whether orders are executed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
from solders.pubkey import Pubkey

from keeper.domain.health import Check, Health
from keeper.domain.orders import OnchainStatus, Order, OrderType, Side
from keeper.triggers.book import Book
from tests.http.http_world import World, problem

pytestmark = pytest.mark.anyio

_numbers = itertools.count(1)


@pytest.fixture
def book(world: World) -> Iterator[Book]:
    world.set_price(100_000_000)
    world.desk.book = Book()
    yield world.desk.book
    world.desk.book = Book()


def order(world: World, order_type: OrderType, side: Side, stop_1e6: int, size_1e6: int = 1_000_000) -> Order:
    return Order(
        address=Pubkey(next(_numbers).to_bytes(32, "big")),
        user=Pubkey.new_unique(),
        market=world.program.market_address("SOL", "USDC"),
        order_type=order_type,
        side=side,
        size_1e6=size_1e6,
        price_1e6=0,
        stop_price_1e6=stop_1e6,
        trailing_distance_ppm=0,
        leverage=1,
        status=OnchainStatus.PENDING,
        created_at=1,
        expires_at=0,
        filled_size_1e6=0,
        order_id=1,
        slot=1,
    )


async def test_what_rests_and_how_near_it_is(world: World, book: Book) -> None:
    for stop in (95_000_000, 95_000_000, 90_000_000):
        book.upsert(order(world, OrderType.STOP_LOSS, Side.LONG, stop))
    book.upsert(order(world, OrderType.TAKE_PROFIT, Side.LONG, 112_500_000, 2_500_000))
    (market,) = (await world.http.get("/v1/markets")).json()["markets"]
    assert market["resting"] == [{"order_type": "stop_loss", "orders": 3}, {"order_type": "take_profit", "orders": 1}]
    below = {"trigger_price": "95", "orders": 2, "size": "2", "distance": "0.05"}
    above = {"trigger_price": "112.5", "orders": 1, "size": "2.5", "distance": "0.125"}
    assert (market["below"], market["above"]) == ([below], [above])
    detail = (await world.http.get("/v1/markets/SOL/USDC")).json()
    assert detail["below"] == [below, {"trigger_price": "90", "orders": 1, "size": "1", "distance": "0.1"}]
    assert detail["above"] == [above]
    few = (await world.http.get("/v1/markets/SOL/USDC", params={"levels": 1})).json()
    assert (few["below"], few["above"]) == ([below], [above])
    assert problem(await world.http.get("/v1/markets/SOL/USDC", params={"levels": 201}))["field"] == "levels"


async def test_a_trigger_that_is_met_has_no_distance(world: World, book: Book) -> None:
    book.upsert(order(world, OrderType.STOP_LOSS, Side.LONG, 101_000_000))
    (market,) = (await world.http.get("/v1/markets")).json()["markets"]
    assert market["below"][0]["distance"] == "0"


async def test_a_market_by_its_symbol_however_it_is_written(world: World) -> None:
    plain = await world.http.get("/v1/markets/SOL/USDC")
    encoded = await world.http.get("/v1/markets/SOL%2FUSDC")
    assert (plain.status_code, encoded.status_code) == (200, 200)
    assert encoded.json()["market"] == plain.json()["market"] == "SOL/USDC"
    for other in ("SOL-USDC", "SOL", "sol/usdc", "SOL/USDC/", "SOL%252FUSDC", "SOL/EUR"):
        answer = await world.http.get(f"/v1/markets/{other}")
        assert (answer.status_code, problem(answer)["code"]) == (404, "not_found"), other


async def test_a_market_without_orders(world: World, book: Book) -> None:
    (market,) = (await world.http.get("/v1/markets")).json()["markets"]
    assert (market["resting"], market["below"], market["above"]) == ([], [], [])


async def test_a_keeper_that_executes_nothing_says_so_of_every_market(world: World) -> None:
    healthy = world.health.health
    checks = (Check("prices", ok=False), Check("sending", ok=False, detail="paused by an operator: lunch"))
    try:
        world.health.health = replace(healthy, checks=checks)
        (market,) = (await world.http.get("/v1/markets")).json()["markets"]
        assert (market["executing"], market["executing_reason"]) == (False, "sending: paused by an operator: lunch")
        world.health.health = Health(live=True, ready=True, checks=checks[:1])
        assert (await world.http.get("/v1/markets")).json()["markets"][0]["executing"] is True
    finally:
        world.health.health = healthy
