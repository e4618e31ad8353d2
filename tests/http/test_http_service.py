"""What operators and probes ask, and how the server starts and stops."""

from __future__ import annotations

import base64
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from solders.keypair import Keypair
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.testing import capture_logs

from keeper.domain.errors import Misconfigured
from keeper.domain.health import Check, Health
from keeper.http.edge.server import serve
from keeper.http.ports import ApiPorts
from keeper.http.routes import openapi_document
from keeper.journal import Journal
from keeper.solana.client import ChainClient
from keeper.solana.http1 import HttpTransport
from keeper.solana.pool import PoolLimits, RpcPool
from keeper.solana.rpc import Endpoint
from tests.http.http_world import LIMITS, Relay, SetHealth, World, problem, serving, signed
from tests.support import BOUND_S
from tests.support.postgres import place_of

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def talking(ports: ApiPorts) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API of its own."""
    async with serving(ports) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        yield http


def ports_of(world: World, **changes: Any) -> ApiPorts:
    return replace(world.ports, metrics=CollectorRegistry(), **changes)


# --- probes


async def test_probes_say_what_is_wrong(world: World) -> None:
    healthy = world.health.health
    try:
        for path in ("/livez", "/readyz"):
            answer = await world.http.get(path)
            assert (answer.status_code, answer.text) == (200, "ok\n")
        assert "[+] watch: ok" in (await world.http.get("/readyz", params={"verbose": ""})).text
        checks = (Check("watch", ok=True), Check("rpc", ok=False, detail="every endpoint is benched"))
        world.health.health = Health(live=True, ready=False, checks=checks)
        not_ready = await world.http.get("/readyz")
        assert not_ready.status_code == 503
        assert not_ready.text == "[-] rpc: every endpoint is benched\nfailed\n"
        assert (await world.http.get("/livez")).status_code == 200
        report = await world.http.get("/healthz")
        assert report.status_code == 503
        assert report.json()["checks"][1] == {"name": "rpc", "ok": False, "detail": "every endpoint is benched"}
        world.health.health = Health(live=False, ready=False)
        assert (await world.http.get("/livez")).status_code == 503
    finally:
        world.health.health = healthy
    assert (await world.http.get("/healthz")).json()["ready"] is True


async def test_metrics_are_prometheus_text_by_route_not_by_path(world: World) -> None:
    await world.http.get("/v1/markets/SOL/USDC")
    await world.http.get("/v1/whatever/an/attacker/thinks/of")
    answer = await world.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    routes = {sample.labels["route"] for sample in families["keeper_http_requests"].samples}
    assert "/v1/markets/{base}/{quote}" in routes
    assert not any("attacker" in route for route in routes)
    openmetrics = await world.http.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")


async def test_markets(world: World) -> None:
    world.set_price(100_000_000)
    (only,) = (await world.http.get("/v1/markets")).json()["markets"]
    assert only.items() <= (await world.http.get("/v1/markets/SOL/USDC")).json().items()
    assert (only["market"], only["price"], only["active"], only["executing"]) == ("SOL/USDC", "100", True, True)
    assert only["price_age_s"] < 60
    assert problem(await world.http.get("/v1/markets/SOL/DOGE"))["code"] == "not_found"


# --- what breaks behind the API


async def test_a_chain_that_cannot_be_reached(world: World, wallet: Keypair) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        pool = RpcPool([Endpoint("gone", HttpTransport(url, label="gone"))], PoolLimits(deadline_s=1.0))
        async with talking(ports_of(world, client=ChainClient(pool))) as http:
            answer = await http.post("/v1/orders", json=world.body(wallet, order_id="7"))
        await pool.aclose()
    assert (answer.status_code, problem(answer)["code"]) == (503, "chain_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert "127.0.0.1" not in answer.text


async def test_our_own_mistake_shows_no_internals_and_is_logged(world: World) -> None:
    class Broken(SetHealth):
        def report(self) -> Health:
            raise RuntimeError("the secret is swordfish")

    with capture_logs() as logs:
        async with talking(ports_of(world, health=Broken())) as http:
            answer = await http.get("/readyz")
    assert (answer.status_code, problem(answer)["code"]) == (500, "internal_error")
    assert "swordfish" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert [(log["event"], log["request_id"]) for log in logs] == [("http.failed", answer.json()["request_id"])]


async def test_requests_have_a_rate(world: World) -> None:
    limits = replace(LIMITS, requests_per_s=0.5, burst=3)
    async with talking(ports_of(world, limits=limits)) as http:
        answers = [await http.get("/v1/markets") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert problem(answers[-1])["code"] == "rate_limited"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 2


# --- a restart


async def test_a_restart_changes_nothing_for_keys_and_submissions(
    world: World, wallet: Keypair, tmp_path: Path
) -> None:
    """The same journal file, opened by a second keeper after the first one ended."""
    path, headers = place_of(tmp_path / "journal.sqlite"), {"Idempotency-Key": "over-a-restart"}
    answers = []
    for _ in range(2):
        async with Journal.open(path) as journal, anyio.create_task_group() as tasks:
            relay = Relay(journal, world.client, tasks)
            async with talking(ports_of(world, journal=journal, relay=relay)) as http:
                prepared = await http.post("/v1/orders", json=world.body(wallet), headers=headers)
                wire = signed(prepared.json(), wallet)
                body = {"id": prepared.json()["id"], "signed_transaction": _base64(wire)}
                executed = await http.post("/v1/orders/execute", json=body)
                answers.append((prepared.content, executed.status_code, executed.content, len(relay.submitted)))
    assert answers[0][:3] == answers[1][:3]
    assert [submitted for *_, submitted in answers] == [1, 0]


def _base64(wire: bytes) -> str:
    return base64.b64encode(wire).decode()


# --- the server


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("hello")(scope, receive, send)


async def test_ready_means_listening() -> None:
    async with anyio.create_task_group() as tg:
        port = await tg.start(serve, hello, "127.0.0.1", 0)
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"http://127.0.0.1:{port}/")).text == "hello"
        tg.cancel_scope.cancel()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


async def test_a_port_in_use_names_the_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Misconfigured, match=r"http\.port"):
            await serve(hello, "127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize(("host", "port"), [("no.such.host.invalid", 0), ("127.0.0.1", 70_000), ("192.0.2.1", 0)])
async def test_an_address_that_is_none(host: str, port: int) -> None:
    with anyio.fail_after(BOUND_S), pytest.raises(Misconfigured, match=r"http\.(host|port)"):
        await serve(hello, host, port)


def slow(seconds: float, started: anyio.Event) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        await anyio.sleep(seconds)
        await PlainTextResponse("late")(scope, receive, send)

    return app


async def test_a_running_request_may_finish_when_the_server_stops() -> None:
    started, texts = anyio.Event(), []

    async def ask(port: int) -> None:
        async with httpx.AsyncClient() as http:
            texts.append((await http.get(f"http://127.0.0.1:{port}/")).text)

    async with anyio.create_task_group() as clients, anyio.create_task_group() as tg:
        port = await tg.start(serve, slow(0.3, started), "127.0.0.1", 0)
        clients.start_soon(ask, port)
        await started.wait()
        tg.cancel_scope.cancel()
    assert texts == ["late"]


async def test_a_request_that_never_ends_does_not_hold_up_the_stop() -> None:
    started, texts = anyio.Event(), []

    async def ask(port: int) -> None:
        async with httpx.AsyncClient(timeout=BOUND_S) as http:
            with contextlib.suppress(httpx.HTTPError):
                texts.append((await http.get(f"http://127.0.0.1:{port}/")).text)

    began = time.monotonic()
    async with anyio.create_task_group() as clients:
        async with anyio.create_task_group() as tg:

            async def run(*, task_status: anyio.abc.TaskStatus[int]) -> None:
                await serve(slow(600, started), "127.0.0.1", 0, drain_s=1.0, task_status=task_status)

            port = await tg.start(run)
            clients.start_soon(ask, port)
            await started.wait()
            tg.cancel_scope.cancel()
        assert time.monotonic() - began < 4
    assert "late" not in texts


# --- the description


def test_the_document_is_whole() -> None:
    document = openapi_document()
    assert document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]

    def references(node: object) -> set[str]:
        if isinstance(node, dict):
            found = {node["$ref"].rpartition("/")[2]} if "$ref" in node else set()
            return found.union(*(references(value) for value in node.values()))
        if isinstance(node, list):
            return set().union(*(references(value) for value in node))
        return set()

    assert references(document) <= set(schemas)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"]
            assert any(status.startswith("2") for status in operation["responses"]), path
    prepare = document["paths"]["/v1/orders"]["post"]
    example = prepare["requestBody"]["content"]["application/json"]["example"]
    required = set(schemas["PlaceOrder"]["required"])
    assert required <= set(example) <= set(schemas["PlaceOrder"]["properties"])
    assert schemas["PlaceOrder"]["additionalProperties"] is False


async def test_the_document_is_served(world: World) -> None:
    assert (await world.http.get("/v1/openapi.json")).json() == openapi_document()
