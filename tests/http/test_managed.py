"""Managed wallets: one POST places an order, within what the operator allows."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import httpx
import pytest
from prometheus_client import CollectorRegistry
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.http.api import run_api
from keeper.http.edge.clients import Tokens
from keeper.http.orders.managed import ManagedWallet
from keeper.solana.transactions import Signer
from tests.http.http_world import SOL, World, problem

pytestmark = pytest.mark.anyio
ORDER = {
    "market": "SOL/USDC",
    "order_type": "stop_loss",
    "side": "long",
    "size": "2.5",
    "trigger_price": "95.5",
    "leverage": 5,
}


@asynccontextmanager
async def managing(
    world: World, wallet: Keypair, *, name: str | None = None, token: str = "right", **limits: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """An API with one managed wallet; the client has its token, and the wallet's path before its own."""
    # Another name for each test: what a wallet placed today is in the journal that they share.
    name = name or f"bot-{str(wallet.pubkey())[:8].lower()}"
    allowed = {"markets": frozenset({"SOL/USDC"}), "max_size_1e6": 10_000_000, "orders_per_day": 3, **limits}
    managed = ManagedWallet(
        name=name, signer=Signer(wallet), tokens=Tokens({hashlib.sha256(b"right").hexdigest(): name}), **allowed
    )
    ports = replace(world.ports, metrics=CollectorRegistry())
    async with anyio.create_task_group() as tg:
        port = await tg.start(run_api, ports, "127.0.0.1", 0, [managed])
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/v1/wallets/{name}", headers=headers) as http:
            yield http
        tg.cancel_scope.cancel()


def landed(world: World, wallet: Keypair) -> int:
    """How many transactions of the wallet's own are on chain: an answer is one thing, what was relayed another."""
    world.net.bank.advance()
    world.net.bank.advance()
    return sum(one.keys[0] == wallet.pubkey() for one in world.net.bank.history.mentioning(wallet.pubkey()))


async def test_one_post_places_and_one_cancels(world: World, wallet: Keypair) -> None:
    async with managing(world, wallet) as http:
        placed = await http.post("/orders", json=ORDER)
        assert placed.status_code == 202, placed.text
        assert placed.json()["status"] == "submitted"
        order = placed.json()["order"]
        assert placed.headers["location"] == f"/v1/orders/{order}"
        world.net.bank.advance()
        world.net.bank.advance()
        assert world.net.bank.account(Pubkey.from_string(order)) is not None
        world.desk.known.add(Pubkey.from_string(order))
        cancelled = await http.post(f"/orders/{order}/cancel")
        assert (cancelled.status_code, cancelled.json()["kind"]) == (202, "cancel")
    assert landed(world, wallet) == 2


@pytest.mark.parametrize("token", ["r", "wrong"])
async def test_a_token_is_needed(world: World, wallet: Keypair, token: str) -> None:
    async with managing(world, wallet, token=token) as http:
        answer = await http.post("/orders", json=ORDER)
        assert (answer.status_code, problem(answer)["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert landed(world, wallet) == 0


async def test_another_wallet_is_refused_like_one_that_there_is_not(world: World, wallet: Keypair) -> None:
    async with managing(world, wallet) as http:
        other = await http.post(str(http.base_url).replace("bot-", "bat-") + "orders", json=ORDER)
    assert problem(other)["code"] == "unauthorized"


async def test_without_managed_wallets_there_are_no_such_paths(world: World) -> None:
    answer = await world.http.post("/v1/wallets/bot/orders", json=ORDER)
    assert problem(answer)["code"] == "not_found"


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"market": "ETH/USDC"}, "not_allowed", "market"),
        ({"size": "10.000001"}, "not_allowed", "size"),
        ({"size": "x"}, "invalid_field", "size"),
        ({"user": "me"}, "unknown_field", "user"),
    ],
)
async def test_what_it_may_not_do(
    world: World, wallet: Keypair, changes: dict[str, str], code: str, field: str
) -> None:
    async with managing(world, wallet) as http:
        refused = problem(await http.post("/orders", json={**ORDER, **changes}))
    assert (refused["code"], refused["field"]) == (code, field)
    assert landed(world, wallet) == 0


async def test_the_orders_of_a_day_are_counted_over_restarts(world: World, wallet: Keypair) -> None:
    async with managing(world, wallet) as http:
        assert (await http.post("/orders", json=ORDER)).status_code == 202
        # One that comes to nothing is not counted.
        assert (await http.post("/orders", json={**ORDER, "leverage": 200})).status_code == 422
    async with managing(world, wallet) as http:
        codes = [(await http.post("/orders", json=ORDER)).status_code for _ in range(2)]
        refused = await http.post("/orders", json=ORDER)
    assert codes == [202, 202]
    assert (refused.status_code, problem(refused)["code"]) == (429, "daily_limit")
    assert 1 <= int(refused.headers["retry-after"]) <= 86_400
    assert landed(world, wallet) == 3, "what was refused was not relayed"


async def test_two_at_once_cannot_both_be_the_last(world: World, wallet: Keypair) -> None:
    async with managing(world, wallet, orders_per_day=1) as http:
        codes = []

        async def post() -> None:
            codes.append((await http.post("/orders", json=ORDER)).status_code)

        async with anyio.create_task_group() as tg:
            for _ in range(4):
                tg.start_soon(post)
    assert sorted(codes) == [202, 429, 429, 429]
    assert landed(world, wallet) == 1


async def test_two_keepers_count_together_and_tell_one_key_from_another(world: World, wallet: Keypair) -> None:
    """Each has the wallet, and they have one journal: neither two orders too many, nor two of one key."""
    async with managing(world, wallet, orders_per_day=2) as one, managing(world, wallet, orders_per_day=2) as two:
        answers: list[httpx.Response] = []

        async def post(http: httpx.AsyncClient, **headers: str) -> None:
            answers.append(await http.post("/orders", json=ORDER, headers=headers))

        async with anyio.create_task_group() as tg:
            for http in (one, two, one, two):
                tg.start_soon(functools.partial(post, http, **{"Idempotency-Key": "a"}))
        assert [answer.status_code for answer in answers] == [202] * 4, [answer.text for answer in answers]
        assert len({answer.json()["order"] for answer in answers}) == 1
        answers.clear()
        async with anyio.create_task_group() as tg:
            for http in (one, two, one, two):
                tg.start_soon(post, http)
        assert sorted(answer.status_code for answer in answers) == [202, 429, 429, 429]
    assert landed(world, wallet) == 2


async def test_the_same_key_gets_the_same_order_and_counts_once(world: World, wallet: Keypair) -> None:
    key = {"Idempotency-Key": "again"}
    async with managing(world, wallet, orders_per_day=1) as http:
        answers = [await http.post("/orders", json=ORDER, headers=key) for _ in range(3)]
        assert {a.status_code for a in answers} == {202}
        assert len({a.json()["signature"] for a in answers}) == 1
        assert landed(world, wallet) == 1
    # The key is the wallet's own: with the public API it is a new one.
    other = await world.http.post("/v1/orders", json=world.body(world.trader()), headers=key)
    assert other.status_code in (201, 422)
    assert other.headers.get("idempotency-replayed") is None


async def test_the_days_limit_holds_however_often_a_request_is_repeated(world: World, wallet: Keypair) -> None:
    before = len(world.relay.submitted)
    async with managing(world, wallet) as http:
        for _ in range(3):
            assert (await http.post("/orders", json=ORDER)).status_code == 202
        for n in range(3):
            headers = {"Idempotency-Key": f"bypass-{n}-{wallet.pubkey()}"}
            refused = [await http.post("/orders", json=ORDER, headers=headers) for _ in range(3)]
            assert [problem(answer)["code"] for answer in refused] == ["daily_limit"] * 3
    assert len(world.relay.submitted) == before + 3


async def test_an_order_that_could_not_be_relayed_does_not_count_and_its_repetition_does(
    world: World, wallet: Keypair
) -> None:
    poor = Keypair()
    headers = {"Idempotency-Key": f"poor-{poor.pubkey()}"}
    async with managing(world, poor) as http:
        for _ in range(5):
            failed = await http.post("/orders", json=ORDER, headers=headers)
            assert problem(failed)["code"] == "insufficient_funds", "not the day's limit"
        world.net.bank.airdrop(poor.pubkey(), SOL)
        for _ in range(2):
            world.net.bank.advance()
        first = await http.post("/orders", json=ORDER, headers=headers)
        assert first.status_code == 202, first.text
        assert (await http.post("/orders", json=ORDER, headers=headers)).json() == first.json()
        others = [await http.post("/orders", json=ORDER) for _ in range(3)]
    assert [answer.status_code for answer in others] == [202, 202, 429]


async def test_an_order_of_somebody_else_is_not_cancelled(world: World, wallet: Keypair) -> None:
    placed = await world.resting(world.trader())
    async with managing(world, wallet) as http:
        refused = await http.post(f"/orders/{placed['order']}/cancel")
    assert problem(refused)["code"] == "unauthorized_user"


def test_nothing_shows_the_key(world: World, wallet: Keypair) -> None:
    managed = ManagedWallet("bot", Signer(wallet), frozenset(), 1, 1, Tokens())
    assert str(list(bytes(wallet)[:4]))[1:-1] not in repr(managed)
    assert str(wallet) not in repr(managed)
