"""Callers from anywhere: pages of other origins, other hosts' names, proxies, and clients that want everything."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import httpx
import pytest
from prometheus_client import CollectorRegistry
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.http.edge.clients import Hosts, Tokens
from keeper.http.edge.connections import ConnectionLimits
from tests.http.http_world import LIMITS, World, problem, serving

pytestmark = pytest.mark.anyio
PAGE = {"Origin": "https://app.example"}


@asynccontextmanager
async def limited(world: World, tokens: Tokens | None = None, **limits: Any) -> AsyncIterator[httpx.AsyncClient]:
    ports = replace(
        world.ports, metrics=CollectorRegistry(), limits=replace(LIMITS, **limits), tokens=tokens or Tokens()
    )
    async with serving(ports) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        yield http


def shared(answer: httpx.Response) -> str | None:
    origin: str | None = answer.headers.get("access-control-allow-origin")
    return origin


# --- pages of other origins


async def test_a_page_of_another_origin_may_call_what_is_public(world: World) -> None:
    wallet = f"/v1/wallets/{Pubkey.new_unique()}/positions"
    for path in ("/v1/markets", "/v1/orders", "/v1/keeper", "/v1/openapi.json", "/v1/nothing", wallet):
        assert shared(await world.http.get(path, headers=PAGE)) == "*"
    asking = {**PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "idempotency-key"}
    preflight = await world.http.options("/v1/orders", headers=asking)
    assert (preflight.status_code, shared(preflight)) == (200, "*")
    assert "Idempotency-Key" in preflight.headers["access-control-allow-headers"]


@pytest.mark.parametrize("path", ["/v1/admin/status", "/v1/wallets/a/orders", "/metrics", "/livez", "/"])
async def test_what_is_not_for_pages_is_not_theirs(world: World, path: str) -> None:
    assert shared(await world.http.get(path, headers=PAGE)) is None
    preflight = {**PAGE, "Access-Control-Request-Method": "GET"}
    assert shared(await world.http.options(path, headers=preflight)) is None


async def test_a_refusal_tells_the_page_why(world: World) -> None:
    async with limited(world, requests_per_s=0.1, burst=1) as http:
        await http.get("/v1/markets", headers=PAGE)
        refused = await http.get("/v1/markets", headers=PAGE)
    assert (refused.status_code, shared(refused)) == (429, "*")
    assert "Retry-After" in refused.headers["access-control-expose-headers"]


async def test_the_origins_are_the_operators_choice(world: World) -> None:
    async with limited(world, cors_origins=("https://app.example",)) as http:
        assert shared(await http.get("/v1/markets", headers=PAGE)) == "https://app.example"
        assert shared(await http.get("/v1/markets", headers={"Origin": "https://other.example"})) is None


# --- the names it is asked by


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1:8080", True),
        ("[::1]:8080", True),
        ("keeper", True),
        ("keeper:8080", True),
        ("localhost", True),
        ("app.localhost:3", True),
        ("keeper.example", True),
        ("KEEPER.example:443", True),
        ("evil.example", False),
        ("keeper.example.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", True),
    ],
)
def test_by_which_names_it_may_be_asked(host: str, known: bool) -> None:
    assert Hosts(("keeper.example:8443",)).knows(host) is known
    assert Hosts(("*",)).knows(host)


async def test_a_request_by_a_foreign_name_is_refused_but_for_probes(world: World) -> None:
    foreign = {"Host": "evil.example"}
    for path in ("/v1/orders", "/", "/metrics", "/actions/place-order"):
        refused = await world.http.get(path, headers=foreign)
        assert (refused.status_code, problem(refused)["code"]) == (421, "unknown_host")
    assert (await world.http.get("/livez", headers=foreign)).status_code == 200
    async with limited(world, hosts=("evil.example",)) as http:
        assert (await http.get("/v1/orders", headers=foreign)).status_code == 200


# --- proxies


async def test_behind_a_trusted_proxy_each_client_has_its_own_rate(world: World) -> None:
    trusted = ConnectionLimits(proxies=("127.0.0.0/8",))
    async with limited(world, requests_per_s=0.1, burst=1, connections=trusted) as http:

        async def ask(forwarded: str) -> int:
            return (await http.get("/v1/markets", headers={"X-Forwarded-For": forwarded})).status_code

        assert [await ask("198.51.100.1"), await ask("198.51.100.1"), await ask("198.51.100.2")] == [200, 429, 200]
        # What the client wrote itself stands before what the proxy added.
        assert await ask("203.0.113.9, 198.51.100.1") == 429


async def test_nobody_else_is_believed_who_its_client_is(world: World) -> None:
    async with limited(world, requests_per_s=0.1, burst=1) as http:
        first = await http.get("/v1/markets", headers={"X-Forwarded-For": "198.51.100.1"})
        second = await http.get("/v1/markets", headers={"X-Forwarded-For": "198.51.100.2"})
    assert (first.status_code, second.status_code) == (200, 429)


async def test_a_trusted_proxy_may_have_any_number_of_connections(world: World) -> None:
    bounds = ConnectionLimits(per_address=1, proxies=("127.0.0.1",))
    async with limited(world, connections=bounds) as http, http.stream("GET", "/v1/orders/stream"):
        assert (await http.get("/v1/markets")).status_code == 200


# --- streams


async def test_one_client_cannot_take_all_streams(world: World) -> None:
    tokens = Tokens({hashlib.sha256(b"right").hexdigest(): "bot"})
    async with limited(world, tokens, streams=10, streams_per_client=2) as http, AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(http.stream("GET", "/v1/orders/stream"))
        refused = await http.get("/v1/orders/stream")
        assert (refused.status_code, problem(refused)["code"]) == (429, "too_many_streams")
        bearer = {"Authorization": "Bearer right"}
        other = await stack.enter_async_context(http.stream("GET", "/v1/orders/stream", headers=bearer))
        assert other.status_code == 200


async def test_a_place_of_a_client_is_given_back(world: World, wallet: Keypair) -> None:
    order = (await world.prepare(wallet))["order"]
    async with limited(world, streams_per_client=1) as http:
        tag = (await http.get(f"/v1/orders/{order}")).headers["etag"]
        for _ in range(3):
            waited = await http.get(f"/v1/orders/{order}", params={"wait_s": "0.01"}, headers={"If-None-Match": tag})
            assert waited.status_code == 304


# --- HEAD


@pytest.mark.parametrize("path", ["/livez", "/v1/markets", "/v1/orders", "/", "/page/main.js", "/v1/orders/stream"])
async def test_a_head_is_a_get_without_its_body(world: World, path: str) -> None:
    with anyio.fail_after(5):
        answer = await world.http.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"]


# --- the description


async def test_the_description_says_what_a_client_is_made_of(world: World) -> None:
    document = (await world.http.get("/v1/openapi.json")).json()
    operations = {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    names = [operation["operationId"] for operation in operations.values()]
    assert len(set(names)) == len(names)
    assert all(name.replace("_", "").isalpha() for name in names)
    assert document["servers"][0]["url"] == "/"
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    guarded = {path for (_, path), operation in operations.items() if operation.get("security") == [{"bearer": []}]}
    managed = "/v1/wallets/{wallet}/orders"
    assert guarded == {path for _, path in operations if path.startswith(("/v1/admin/", managed))}
    stream = operations["get", "/v1/orders/stream"]["responses"]["200"]["content"]["text/event-stream"]["schema"]
    events = {event["properties"]["event"]["const"]: event for event in stream["contentSchema"]["oneOf"]}
    assert events.keys() == {"snapshot", "order", "reset"}
    assert events["order"]["properties"]["data"] == {"$ref": "#/components/schemas/OrderView"}


# --- ids


@pytest.mark.parametrize(("name", "value"), [("client_order_id", "abc\n"), ("order_id", "7\n")])
async def test_an_id_ends_where_its_line_ends(world: World, wallet: Keypair, name: str, value: str) -> None:
    refused = await world.http.post("/v1/orders", json=world.body(wallet, **{name: value}))
    assert (refused.status_code, problem(refused)["field"]) == (422, name)
