"""What protects the keeper from its callers, and its callers from a keeper that is not ready."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.domain.errors import Transient
from keeper.domain.health import Check, Health
from keeper.http.edge.clients import Rates, Tokens, client_of
from tests.http.http_world import LIMITS, World, problem, serving, signed

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def limited(world: World, tokens: Tokens | None = None, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    """An API that lets three requests through, and one more every ten seconds."""
    limits = replace(LIMITS, requests_per_s=0.1, burst=3)
    ports = replace(world.ports, metrics=CollectorRegistry(), limits=limits, tokens=tokens or Tokens(), **changes)
    async with serving(ports) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        yield http


async def test_every_answer_says_how_its_client_stands(world: World) -> None:
    async with limited(world) as http:
        answers = [await http.get("/v1/markets") for _ in range(4)]
    assert [a.status_code for a in answers] == [200, 200, 200, 429]
    assert {a.headers["ratelimit-policy"] for a in answers} == {'"default";q=3;w=30'}
    assert [a.headers["ratelimit"].split(";")[1] for a in answers] == ["r=2", "r=1", "r=0", "r=0"]
    assert 9 <= int(answers[-1].headers["retry-after"]) <= 10
    assert problem(answers[-1])["code"] == "rate_limited"


async def test_probes_are_never_limited(world: World) -> None:
    async with limited(world) as http:
        for _ in range(10):
            for path in ("/livez", "/readyz", "/healthz"):
                assert (await http.get(path)).status_code == 200


async def test_a_known_token_has_a_bucket_of_its_own_and_an_unknown_one_has_none(world: World) -> None:
    tokens = Tokens({hashlib.sha256(b"right").hexdigest(): "bot"})
    async with limited(world, tokens) as http:
        for _ in range(3):
            await http.get("/v1/markets")
        wrong = await http.get("/v1/markets", headers={"Authorization": "Bearer made-up"})
        assert wrong.status_code == 429
        right = await http.get("/v1/markets", headers={"Authorization": "bearer right"})
        assert right.status_code == 200


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic right", "right", "Bearer right2", "Bearer " + "x" * 10_000]
)
def test_what_is_no_token(header: str | None) -> None:
    assert Tokens({hashlib.sha256(b"right").hexdigest(): "bot"}).name_of(header) is None


def test_tokens_show_no_hashes() -> None:
    digest = hashlib.sha256(b"right").hexdigest()
    assert repr(Tokens({digest: "bot"})) == "Tokens(['bot'])"


def test_a_bucket_fills_again_and_the_quietest_is_forgotten() -> None:
    now = 0.0
    rates = Rates(2.0, 2, clock=lambda: now)
    assert [rates.admit("a").refused is None for _ in range(3)] == [True, True, False]
    now = 0.5
    assert rates.admit("a").refused is None
    assert rates.admit("a").refused is not None
    for n in range(10_000):
        rates.admit(str(n))
    assert rates.admit("a").refused is None  # it was forgotten, which only ever lets more through


@pytest.mark.parametrize(
    ("address", "bucket"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.7"),
        ("not an address", "not an address"),
    ],
)
def test_whose_bucket(address: str, bucket: str) -> None:
    assert client_of(address, None) == bucket
    assert client_of(address, "bot") == "token:bot"


async def test_a_keeper_that_is_not_ready_takes_no_new_orders_but_relays_and_cancels(
    world: World, wallet: Keypair
) -> None:
    prepared = await world.prepare(wallet)
    healthy = world.health.health
    try:
        world.health.health = Health(live=True, ready=False, checks=(Check("watch", ok=False), Check("rpc", ok=True)))
        refused = await world.http.post("/v1/orders", json=world.body(wallet))
        assert (refused.status_code, problem(refused)["code"]) == (503, "not_ready")
        assert refused.headers["retry-after"] == "5"
        assert "watch" in refused.json()["detail"]
        assert (await world.execute(prepared["id"], signed(prepared, wallet))).status_code == 202
        world.net.bank.advance()
        world.net.bank.advance()
        world.desk.known.add(Pubkey.from_string(prepared["order"]))
        cancel = await world.http.post(f"/v1/orders/{prepared['order']}/cancel")
        assert cancel.status_code == 201
        assert (await world.execute(cancel.json()["id"], signed(cancel.json(), wallet))).status_code == 202
    finally:
        world.health.health = healthy


async def test_without_a_recent_blockhash_nothing_is_prepared(world: World, wallet: Keypair) -> None:
    class Silent:
        def current(self) -> Any:
            raise Transient("no recent blockhash")

        def lives_s(self) -> float:
            return 0.0

        undone_blocks = 32

    ports = replace(world.ports, metrics=CollectorRegistry(), blockhashes=Silent())
    async with serving(ports) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        answer = await http.post("/v1/orders", json=world.body(wallet))
    assert problem(answer)["code"] == "chain_unavailable"
