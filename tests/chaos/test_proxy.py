"""The proxy is a node: transparent when nothing is to break, and broken in just the way it was told."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedOK, InvalidStatus

from tests.chaos.proxy import Fault, FaultProxy, Kind, Script
from tests.support import BOUND_S, World

pytestmark = pytest.mark.anyio

SLOT = {"jsonrpc": "2.0", "id": 1, "method": "getSlot", "params": [{"commitment": "processed"}]}


@dataclass
class Node:
    """A node's two ports, and a client of the HTTP one."""

    http: httpx.AsyncClient
    ws_url: str

    async def post(self, document: Any) -> Any:
        return (await self.http.post("/", json=document, timeout=2.0)).json()

    async def call(self, method: str, *params: Any) -> Any:
        reply = await self.post({"jsonrpc": "2.0", "id": "x", "method": method, "params": params})
        assert reply["id"] == "x"
        return reply["result"]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World.open(slot_ms=0, finalized_slots=4) as world:
        for _ in range(6):
            world.bank.advance()
        yield world


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def proxy(world: World, script: Script) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(world.net.rpc_url, world.net.ws_url, faults=script) as proxy:
        yield proxy


@pytest.fixture(params=["chain", "proxy"])
async def node(request: pytest.FixtureRequest, world: World, proxy: FaultProxy) -> AsyncIterator[Node]:
    """The chain itself, and the chain through a proxy without faults: the contract is the same."""
    urls = world.net if request.param == "chain" else proxy
    async with httpx.AsyncClient(base_url=urls.rpc_url, verify=False) as http:
        yield Node(http, urls.ws_url)


@pytest.fixture
async def broken(proxy: FaultProxy) -> AsyncIterator[Node]:
    async with httpx.AsyncClient(base_url=proxy.rpc_url, verify=False) as http:
        yield Node(http, proxy.ws_url)


class TestContract:
    async def test_a_call(self, node: Node, world: World) -> None:
        assert await node.call("getSlot", {"commitment": "processed"}) == world.bank.chain.tip.slot

    async def test_a_batch(self, node: Node) -> None:
        replies = await node.post([SLOT, {**SLOT, "id": 2, "method": "getGenesisHash", "params": []}])
        assert sorted(reply["id"] for reply in replies) == [1, 2]

    async def test_an_error(self, node: Node) -> None:
        assert (await node.post({**SLOT, "method": "noSuchMethod"}))["error"]["code"] == -32601

    async def test_no_json(self, node: Node) -> None:
        reply = await node.http.post("/", content=b"{", headers={"content-type": "application/json"})
        assert reply.json()["error"]["code"] == -32700

    async def test_health(self, node: Node) -> None:
        assert (await node.http.get("/health")).text == "ok"

    async def test_a_connection_serves_many_requests(self, node: Node) -> None:
        for _ in range(20):
            assert await node.call("getVersion")

    async def test_a_large_body_is_refused_by_the_node(self, node: Node) -> None:
        reply = await node.http.post("/", content=b"[" + b" " * 60_000 + b"]")
        assert reply.status_code in (413, 415)

    async def test_a_transaction_lands(self, node: Node, world: World) -> None:
        signature = await node.call("requestAirdrop", str(world.wallet().pubkey()), 1_000_000_000)
        world.bank.advance()
        statuses = (await node.call("getSignatureStatuses", [signature]))["value"]
        assert statuses[0]["err"] is None

    async def test_notifications_in_order(self, node: Node, world: World) -> None:
        async with connect(node.ws_url) as socket:
            await socket.send(msgspec.json.encode({**SLOT, "method": "slotSubscribe", "params": []}).decode())
            assert msgspec.json.decode(await socket.recv())["id"] == 1
            wanted = [world.bank.advance().slot for _ in range(10)]
            got = [msgspec.json.decode(await socket.recv())["params"]["result"]["slot"] for _ in range(10)]
            assert got == wanted


class TestRequests:
    """A request is broken once, in just this way, and the next one is served."""

    async def test_lost_on_the_way_there_or_back(self, broken: Node, script: Script, world: World) -> None:
        for kind, arrives in ((Kind.REQUEST_LOST, False), (Kind.REPLY_LOST, True)):
            wallet = world.wallet()
            before = world.bank.account(wallet.pubkey())
            script.break_request(Fault(kind, seconds=5.0), method="requestAirdrop")
            call = {**SLOT, "method": "requestAirdrop", "params": [str(wallet.pubkey()), 1]}
            with pytest.raises(httpx.ReadTimeout):
                await broken.http.post("/", json=call, timeout=0.1)
            assert (world.bank.account(wallet.pubkey()) != before) is arrives
        assert await broken.call("getSlot")

    @pytest.mark.parametrize("kind", [Kind.REQUEST_RESET, Kind.REPLY_RESET])
    async def test_reset(self, broken: Node, script: Script, kind: Kind) -> None:
        script.break_request(Fault(kind))
        with pytest.raises(httpx.ReadError):
            await broken.post(SLOT)
        assert await broken.call("getSlot")

    async def test_statuses(self, broken: Node, script: Script) -> None:
        expected = {
            Kind.HTTP_429: 429,
            Kind.HTTP_429_RETRY_AFTER: 429,
            Kind.JSON_429: 200,
            Kind.HTTP_503: 503,
            Kind.HTML: 200,
            Kind.REPLY_502: 502,
        }
        for kind, status in expected.items():
            script.break_request(Fault(kind))
            reply = await broken.http.post("/", json=SLOT)
            assert reply.status_code == status
            assert ("retry-after" in reply.headers) is (kind is Kind.HTTP_429_RETRY_AFTER)
            if kind is Kind.JSON_429:
                assert reply.json()["error"]["code"] in (429, -32429, -32005)

    async def test_broken_bodies(self, broken: Node, script: Script) -> None:
        script.break_request(Fault(Kind.REPLY_TRUNCATED))
        reply = await broken.http.post("/", json=SLOT)
        with pytest.raises(msgspec.DecodeError):
            msgspec.json.decode(reply.content)
        script.break_request(Fault(Kind.REPLY_CUT_OFF))
        with pytest.raises(httpx.RemoteProtocolError):
            await broken.post(SLOT)

    async def test_slow(self, broken: Node, script: Script) -> None:
        for kind in (Kind.REQUEST_DELAYED, Kind.REPLY_DELAYED, Kind.REPLY_DRIPPED):
            script.break_request(Fault(kind, seconds=0.2))
            begun = time.monotonic()
            assert await broken.post(SLOT)
            assert time.monotonic() - begun > 0.1, kind  # a drip is three quarters of it long

    async def test_a_drip_is_never_silent_for_long(self, broken: Node, script: Script) -> None:
        script.break_request(Fault(Kind.REPLY_DRIPPED, seconds=1.0))
        # httpx's timeout is per read, so that it does not notice: the keeper's own deadline has to.
        assert (await broken.http.post("/", json=SLOT, timeout=0.3)).json()["id"] == 1

    async def test_batches(self, broken: Node, script: Script) -> None:
        calls = [{**SLOT, "id": i} for i in range(8)]
        script.break_request(Fault(Kind.SHUFFLED))
        ids = [reply["id"] for reply in await broken.post(calls)]
        assert sorted(ids) == list(range(8)) != ids
        script.break_request(Fault(Kind.REPLY_MISSING))
        assert len(await broken.post(calls)) == 7
        script.break_request(Fault(Kind.WRONG_ID))
        assert (await broken.post(SLOT))["id"] != 1

    async def test_a_node_that_lags_is_consistent(self, broken: Node, script: Script, world: World) -> None:
        key = world.wallet(1)
        signature = await broken.call("requestAirdrop", str(key.pubkey()), 10**9)
        world.bank.advance()
        final = world.bank.chain.root.slot
        script.break_request(Fault(Kind.LAGGING), times=4)
        assert await broken.call("getSlot", {"commitment": "processed"}) == final
        statuses = await broken.call("getSignatureStatuses", [signature])
        assert (statuses["context"]["slot"], statuses["value"]) == (final, [None])
        account = await broken.call("getAccountInfo", str(key.pubkey()))
        assert (account["context"]["slot"], account["value"]) == (final, None)
        config = {"minContextSlot": final + 1, "commitment": "processed"}
        reply = await broken.post({**SLOT, "params": [config]})
        assert reply["error"]["code"] == -32016
        assert (await broken.call("getSignatureStatuses", [signature]))["value"][0]["err"] is None

    async def test_a_node_that_lies(self, broken: Node, script: Script, world: World) -> None:
        signature = await broken.call("requestAirdrop", str(world.wallet().pubkey()), 1)
        script.break_request(Fault(Kind.LYING))
        statuses = await broken.call("getSignatureStatuses", [signature])
        assert statuses["context"]["slot"] == world.bank.chain.tip.slot
        assert statuses["value"] == [None]


class TestNews:
    """Slot notifications 1 to 4 as a client gets them, with the second one broken."""

    @pytest.mark.parametrize(
        ("kind", "arrive"),
        [
            (Kind.NEWS_DROPPED, [1, 3, 4]),
            (Kind.NEWS_DUPLICATED, [1, 2, 2, 3, 4]),
            (Kind.NEWS_SWAPPED, [1, 3, 2, 4]),
            (Kind.NEWS_DELAYED, [1, 2, 3, 4]),
            (Kind.NEWS_GARBAGE, [1, None, 2, 3, 4]),
        ],
    )
    async def test_one(self, broken: Node, script: Script, world: World, kind: Kind, arrive: list[int | None]) -> None:
        async with connect(broken.ws_url) as socket:
            await self.subscribe(socket)
            first = world.bank.advance().slot
            got = [self.number(await socket.recv(), first)]
            script.break_news(Fault(kind, seconds=0.05))
            for _ in range(3):
                world.bank.advance()
            with anyio.fail_after(BOUND_S):
                got += [self.number(await socket.recv(), first) for _ in arrive[1:]]
            assert got == arrive

    async def test_silent_and_open(self, broken: Node, script: Script, world: World) -> None:
        async with connect(broken.ws_url) as socket:
            await self.subscribe(socket)
            script.break_news(Fault(Kind.SOCKET_SILENT, seconds=0.3))
            world.bank.advance()
            with anyio.move_on_after(0.2) as scope:
                await socket.recv()
            assert scope.cancelled_caught
            await (await socket.ping())
            await anyio.sleep(0.2)
            world.bank.advance()
            assert await socket.recv()

    async def test_closed_and_refused(self, broken: Node, script: Script, world: World) -> None:
        async with connect(broken.ws_url) as socket:
            await self.subscribe(socket)
            script.break_news(Fault(Kind.SOCKET_CLOSED))
            world.bank.advance()
            with pytest.raises(ConnectionClosedOK):
                await socket.recv()
        script.refuse_connections()
        with pytest.raises(InvalidStatus):
            async with connect(broken.ws_url):
                pass

    @staticmethod
    async def subscribe(socket: Any) -> None:
        await socket.send(msgspec.json.encode({**SLOT, "method": "slotSubscribe", "params": []}).decode())
        assert "result" in msgspec.json.decode(await socket.recv())

    @staticmethod
    def number(raw: str | bytes, first: int) -> int | None:
        try:
            slot: int = msgspec.json.decode(raw)["params"]["result"]["slot"]
        except msgspec.DecodeError:
            return None
        return slot - first + 1
