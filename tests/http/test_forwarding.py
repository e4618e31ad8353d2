"""What only the keeper of an order's market can do, asked of another keeper: two APIs over one journal and one chain.

`one` works on no market. `two` works on the market, and alone has a relay and brakes.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import SocketStream
from anyio.streams.tls import TLSStream
from prometheus_client import CollectorRegistry
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.domain.events import OrderGone, OrderSeen
from keeper.domain.orders import OnchainStatus, Order, OrderState, OrderType, Side
from keeper.http.api import run_api
from keeper.http.edge.clients import Tokens
from keeper.http.edge.costs import WRITE
from keeper.http.edge.elsewhere import FORWARDED, Seal, elsewhere
from keeper.http.orders.managed import ManagedWallet
from keeper.http.ports import ApiPorts
from keeper.journal import Holder, NoteState, ResetBudget
from keeper.journal.records import PreparedRow
from keeper.solana.transactions import Signer
from keeper.venue.placing import BUDGET, OrderTerms, place
from tests.http.http_world import AUTHORITY, KEEPER, LIMITS, USDC, World, problem, signed
from tests.http.test_managed import ORDER, landed
from tests.http.test_orders import on_chain

pytestmark = pytest.mark.anyio
SEAL = Seal(Signer(KEEPER).secret_for("forwarding"))
OPERATOR = {"Authorization": "Bearer operator's"}
DIGEST = hashlib.sha256(b"operator's").hexdigest()
BOT = hashlib.sha256(b"right").hexdigest()


class NoRelay:
    """The relay of a keeper that must not relay."""

    async def submit(self, prepared: PreparedRow, wire: bytes, placed: Order | None) -> None:
        raise AssertionError("it works on no market")


@dataclass
class Hands:
    """An operator's, at the keeper that works on the market: what he retries rests again in the journal."""

    world: World
    retried: list[Pubkey]
    paused: str | None = None

    async def pause(self, reason: str) -> None: ...

    async def resume(self) -> None: ...

    async def retry(self, address: Pubkey) -> None:
        self.retried.append(address)
        rests = NoteState(address, OrderState.OPEN, "An operator let it be tried again.", reopen=True)
        await self.world.journal.commit(ResetBudget(address), rests)


@dataclass
class Keepers:
    """`leases` may be changed at any time. `one` and `two` ask the two keepers."""

    world: World
    market: str
    leases: list[Holder]
    one: httpx.AsyncClient
    two: httpx.AsyncClient
    hands: Hands
    news: list[OrderSeen | OrderGone]
    wallet: str

    def works(self, holder: str | None, url: str = "") -> None:
        """Who works on the market, and where that one's API is."""
        self.leases[:] = [Holder(f"keeper:{holder}", f"{holder}", 1, 0.0, 3.0, url)]
        if holder is not None:
            self.leases.append(Holder(self.market, holder, 1, 0.0, 3.0))


@asynccontextmanager
async def keepers(world: World, wallet: Keypair | None = None, **changes: Any) -> AsyncIterator[Keepers]:
    """Two keepers; `changes` are of both's ports. `wallet` is managed by both."""
    market = world.program.market_address("SOL", "USDC")
    leases: list[Holder] = []
    hands, news = Hands(world, []), list[OrderSeen | OrderGone]()
    name = "none" if wallet is None else f"bot-{str(wallet.pubkey())[:8].lower()}"
    managed = []
    if wallet is not None:
        limits: dict[str, Any] = {"markets": frozenset({"SOL/USDC"}), "max_size_1e6": 10_000_000, "orders_per_day": 3}
        managed = [ManagedWallet(name=name, signer=Signer(wallet), tokens=Tokens({BOT: name}), **limits)]
    shared = replace(world.ports, operators=Tokens({DIGEST: "operator"}), seal=SEAL)
    shared = replace(shared, **changes)
    first = replace(
        shared,
        name="one",
        metrics=CollectorRegistry(),
        relay=NoRelay(),
        elsewhere=elsewhere(lambda: leases, "one", frozenset()),
    )
    second = replace(
        shared,
        name="two",
        metrics=CollectorRegistry(),
        brakes=hands,
        news=news.append,
        elsewhere=elsewhere(lambda: leases, "two", frozenset({market})),
    )
    async with serving(first, managed) as one, serving(second, managed) as two:
        made = Keepers(world, str(market), leases, one, two, hands, news, name)
        made.works("two", str(two.base_url).rstrip("/"))
        yield made


@asynccontextmanager
async def serving(ports: ApiPorts, managed: list[ManagedWallet]) -> AsyncIterator[httpx.AsyncClient]:
    async with anyio.create_task_group() as tg:
        port = await tg.start(run_api, ports, "127.0.0.1", 0, managed)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
            yield http
        tg.cancel_scope.cancel()


async def relayed(http: httpx.AsyncClient, prepared: dict[str, Any], wire: bytes, **headers: str) -> httpx.Response:
    body = {"id": prepared["id"], "signed_transaction": base64.b64encode(wire).decode()}
    return await http.post("/v1/orders/execute", json=body, headers=headers)


async def metric(http: httpx.AsyncClient, name: str) -> float:
    lines = (await http.get("/metrics")).text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " ")), 0.0)


# --- each write is carried out where the market is worked on


async def test_a_signed_order_lands_by_the_keeper_of_its_market(world: World, wallet: Keypair) -> None:
    async with keepers(world) as k:
        prepared = (await k.one.post("/v1/orders", json=world.body(wallet))).json()
        wire = signed(prepared, wallet)
        before = len(world.relay.submitted)
        answer = await relayed(k.one, prepared, wire)
        assert answer.status_code == 202, answer.text
        assert answer.headers["location"] == f"/v1/orders/{prepared['order']}"
        assert answer.headers["content-type"] == "application/json"
        assert len(answer.headers.get_list("x-request-id")) == 1
        world.net.bank.advance()
        world.net.bank.advance()
        assert on_chain(world, prepared["order"]).status is OnchainStatus.PENDING
        again = await relayed(k.one, prepared, wire)
        assert (again.status_code, again.json()) == (202, answer.json()), "the same bytes, the same answer"
        assert world.relay.submitted[before:] == [wire]
        assert await metric(k.one, 'keeper_http_forwarded_total{how="answered"}') == 2


async def test_a_signed_cancel_and_an_amend_land_so_too(world: World, wallet: Keypair) -> None:
    async with keepers(world) as k:
        order = (await world.resting(wallet))["order"]
        amend = (await k.one.post(f"/v1/orders/{order}/amend", json={"trigger_price": "94"})).json()
        assert (await relayed(k.one, amend, signed(amend, wallet))).status_code == 202
        world.net.bank.advance()
        world.net.bank.advance()
        world.desk.known.add(Pubkey.from_string(amend["order"]))
        assert on_chain(world, order).status is OnchainStatus.CANCELLED
        cancel = (await k.one.post(f"/v1/orders/{amend['order']}/cancel")).json()
        assert (await relayed(k.one, cancel, signed(cancel, wallet))).status_code == 202
        world.net.bank.advance()
        world.net.bank.advance()
        assert on_chain(world, amend["order"]).status is OnchainStatus.CANCELLED


async def test_an_order_that_is_not_noted_yet_is_noted_by_the_keeper_of_its_market(
    world: World, wallet: Keypair
) -> None:
    """Another keeper may not note it, and its cancel needs something to belong to."""
    terms = OrderTerms(
        user=wallet.pubkey(),
        market=world.program.market_address("SOL", "USDC"),
        order_type=OrderType.STOP_LOSS,
        side=Side.LONG,
        size_1e6=1_000_000,
        price_1e6=0,
        stop_price_1e6=95_000_000,
        trailing_distance_ppm=0,
        leverage=5,
        expires_at=0,
    )
    unsigned = place(world.program, terms, 7, world.ports.blockhashes.current(), BUDGET)
    landing = world.net.bank.land(VersionedTransaction(Message.from_bytes(unsigned.message), [wallet]))
    assert not isinstance(landing, str), landing
    world.net.bank.advance()
    world.net.bank.advance()
    world.desk.known.add(unsigned.order)
    async with keepers(world) as k:
        cancel = (await k.one.post(f"/v1/orders/{unsigned.order}/cancel")).json()
        assert await world.journal.order(unsigned.order) is None
        assert (await relayed(k.one, cancel, signed(cancel, wallet))).status_code == 202
        world.net.bank.advance()
        world.net.bank.advance()
        assert on_chain(world, str(unsigned.order)).status is OnchainStatus.CANCELLED
        row = await world.journal.order(unsigned.order)
        assert row is not None
        assert row.state is OrderState.CANCELLING


async def test_what_the_other_refuses_is_told_in_its_words(world: World, wallet: Keypair) -> None:
    async with keepers(world) as k:
        prepared = (await k.one.post("/v1/orders", json=world.body(wallet))).json()
        stranger = await relayed(k.one, prepared, signed(prepared, wallet)[:-1] + b"\xff")
        direct = await relayed(k.two, prepared, signed(prepared, wallet)[:-1] + b"\xff")
        assert (stranger.status_code, stranger.json()) == (direct.status_code, direct.json())
        unknown = await relayed(k.one, {"id": "A" * 22}, signed(prepared, wallet))
        assert problem(unknown)["code"] == "prepared_not_found"


async def test_the_wait_for_what_becomes_of_it_is_the_others(world: World, wallet: Keypair) -> None:
    """It may take as long as it was asked to wait beyond what it may take by itself."""
    targets: list[str] = []

    async def slow(stream: SocketStream) -> None:
        line, _, _ = await request_of(stream)
        targets.append(line.split()[1])
        await anyio.sleep(0.3)
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")

    async with keepers(world, limits=replace(LIMITS, forward_s=0.1)) as k, listening(slow) as url:
        prepared = (await k.one.post("/v1/orders", json=world.body(wallet))).json()
        body = {"id": prepared["id"], "signed_transaction": base64.b64encode(signed(prepared, wallet)).decode()}
        k.works("two", url)
        answer = await k.one.post("/v1/orders/execute?wait_s=60", json=body)
        assert (answer.status_code, targets) == (200, ["/v1/orders/execute?wait_s=60"])


async def test_a_managed_wallets_order_and_cancel_go_there(world: World, wallet: Keypair) -> None:
    async with keepers(world, wallet) as k:
        path, key = f"/v1/wallets/{k.wallet}/orders", {"Authorization": "Bearer right", "Idempotency-Key": "a"}
        placed = await k.one.post(path, json=ORDER, headers=key)
        assert placed.status_code == 202, placed.text
        again = await k.one.post(path, json=ORDER, headers=key)
        assert again.json()["order"] == placed.json()["order"], "the key went with it"
        order = placed.json()["order"]
        world.net.bank.advance()
        world.net.bank.advance()
        world.desk.known.add(Pubkey.from_string(order))
        cancelled = await k.one.post(f"{path}/{order}/cancel", headers={"Authorization": "Bearer right"})
        assert (cancelled.status_code, cancelled.json()["kind"]) == (202, "cancel")
        assert landed(world, wallet) == 2
        assert on_chain(world, order).status is OnchainStatus.CANCELLED
        assert await metric(k.one, 'keeper_http_forwarded_total{how="answered"}') == 3


async def test_who_may_not_use_the_wallet_is_refused_where_he_asks(world: World, wallet: Keypair) -> None:
    async with keepers(world, wallet) as k:
        refused = await k.one.post(f"/v1/wallets/{k.wallet}/orders", json=ORDER)
        assert problem(refused)["code"] == "unauthorized"
        assert await metric(k.one, 'keeper_http_forwarded_total{how="answered"}') == 0


async def test_an_operators_retry_and_resync_go_there(world: World, wallet: Keypair) -> None:
    async with keepers(world) as k:
        order = (await world.noted(wallet))["order"]
        address = Pubkey.from_string(order)
        await world.journal.commit(NoteState(address, OrderState.FAILED, "It failed."))
        answer = await k.one.post(f"/v1/admin/orders/{order}/retry", headers=OPERATOR)
        assert (answer.status_code, answer.json()) == (200, {"order": order})
        assert k.hands.retried == [address]
        row = await world.journal.order(address)
        assert row is not None
        assert row.state is OrderState.OPEN
        resting = (await world.resting(wallet))["order"]
        resync = await k.one.post(f"/v1/admin/orders/{resting}/resync", headers=OPERATOR)
        assert resync.status_code == 200, resync.text
        assert [seen.order.address for seen in k.news if isinstance(seen, OrderSeen)] == [Pubkey.from_string(resting)]


async def test_a_keeper_that_stands_by_hands_on_what_it_can(world: World, wallet: Keypair) -> None:
    async with keepers(world, wallet) as k:
        ports = replace(
            world.ports,
            metrics=CollectorRegistry(),
            relay=NoRelay(),
            standing_by=lambda: "two",
            elsewhere=elsewhere(lambda: k.leases, "three", frozenset()),
            operators=Tokens({DIGEST: "operator"}),
            seal=SEAL,
        )
        prepared = await world.prepare(wallet)
        async with serving(ports, []) as three:
            answer = await relayed(three, prepared, signed(prepared, wallet))
            assert answer.status_code == 202, answer.text
            retry = await three.post(f"/v1/admin/orders/{prepared['order']}/retry", headers=OPERATOR)
            assert retry.status_code == 200
            refused = await three.post("/v1/orders", json=world.body(wallet))
            assert problem(refused)["code"] == "standing_by"
            # The one that works has the lease on all markets: it is the same to who hands on.
            k.leases[:] = [replace(lease, what="*") if lease.what == k.market else lease for lease in k.leases]
            assert (await relayed(three, prepared, signed(prepared, wallet))).status_code == 202
        assert landed(world, wallet) == 1


async def test_cancels_on_markets_of_two_keepers_are_refused_and_prepared_apart(world: World, wallet: Keypair) -> None:
    second = world.program.market_address("ETH", "USDC")
    arguments = {
        "base_asset": "ETH",
        "quote_asset": "USDC",
        "initial_price": 100 * USDC,
        "max_leverage": 20,
        "initial_margin_ratio": 500,
        "maintenance_margin_ratio": 300,
    }
    accounts = {"market": second, "authority": AUTHORITY.pubkey()}
    world.land(world.program.instruction("initialize_market", arguments, accounts))
    world.set_price(100 * USDC, second)
    world.desk.symbols.append("ETH/USDC")
    try:
        async with keepers(world) as k:
            orders = [(await world.resting(wallet, market=name))["order"] for name in ("SOL/USDC", "ETH/USDC")]
            for order in orders:
                await world.journal.commit(NoteState(Pubkey.from_string(order), OrderState.OPEN, "It rests."))
            together = (await world.http.post("/v1/orders/cancel-all", json={"user": str(wallet.pubkey())})).json()
            (cancels,) = together["transactions"]
            assert set(cancels["cancels"]) == set(orders)
            k.leases.append(Holder(str(second), "three", 1, 0.0, 3.0))
            refused = await relayed(k.one, cancels, signed(cancels, wallet))
            assert (refused.status_code, problem(refused)["code"]) == (409, "several_holders")
            assert "three, two" in problem(refused)["detail"]
            apart = (await k.one.post("/v1/orders/cancel-all", json={"user": str(wallet.pubkey())})).json()
            assert sorted(len(each["cancels"]) for each in apart["transactions"]) == [1, 1]
            assert landed(world, wallet) == 2, "nothing was relayed"
    finally:
        world.desk.symbols.remove("ETH/USDC")


# --- who can't be asked


async def test_a_request_is_forwarded_once_at_most(world: World, wallet: Keypair) -> None:
    """Both keepers take the other for the holder, as they may for a moment."""
    async with keepers(world) as k:
        prepared = (await k.one.post("/v1/orders", json=world.body(wallet))).json()
        k.works("one", str(k.one.base_url).rstrip("/"))
        ports = replace(
            world.ports,
            metrics=CollectorRegistry(),
            relay=NoRelay(),
            elsewhere=elsewhere(lambda: k.leases, "three", frozenset()),
        )
        async with serving(ports, []) as three:
            # Three hands it to one, which takes two for the holder.
            k.leases[:] = [Holder("keeper:one", "one", 1, 0.0, 3.0, str(k.one.base_url).rstrip("/"))]
            k.leases += [Holder(k.market, "one", 1, 0.0, 3.0)]
            answer = await relayed(three, prepared, signed(prepared, wallet))
            assert answer.status_code == 503
            found = problem(answer)
            assert (found["code"], found["holder"], found["may_be_done"]) == ("not_holder", None, False)
            assert answer.headers["retry-after"] == "1"
        k.works("two", str(k.two.base_url).rstrip("/"))
        header = await relayed(k.one, prepared, signed(prepared, wallet), **{FORWARDED: "for=anybody"})
        assert (problem(header)["code"], problem(header)["holder"]) == ("not_holder", "two")
        assert await metric(k.one, 'keeper_http_forwarded_total{how="twice"}') == 1
        assert landed(world, wallet) == 0


async def test_nobody_works_on_the_market(world: World, wallet: Keypair) -> None:
    async with keepers(world) as k:
        prepared = (await k.one.post("/v1/orders", json=world.body(wallet))).json()
        k.works(None)
        refused = await relayed(k.one, prepared, signed(prepared, wallet))
        assert (problem(refused)["code"], problem(refused)["holder"]) == ("not_holder", None)
        assert problem(refused)["detail"].startswith("No keeper works")
        placing = await k.one.post("/v1/orders", json=world.body(wallet))
        assert (placing.status_code, problem(placing)["code"]) == (503, "not_ready")
        (market,) = (await k.one.get("/v1/markets")).json()["markets"]
        assert (market["executing"], market["executing_reason"]) == (False, "No keeper works on the market right now.")
        k.works("two")
        refused = await relayed(k.one, prepared, signed(prepared, wallet))
        assert (problem(refused)["holder"], problem(refused)["url"]) == ("two", None)
        (market,) = (await k.one.get("/v1/markets")).json()["markets"]
        assert market["executing"]


async def test_the_holder_is_away(world: World, wallet: Keypair) -> None:
    async with keepers(world) as k:
        prepared = (await k.one.post("/v1/orders", json=world.body(wallet))).json()
        with unused_port() as port:
            k.works("two", f"http://127.0.0.1:{port}")
            refused = await relayed(k.one, prepared, signed(prepared, wallet))
        found = problem(refused)
        assert (found["code"], found["may_be_done"], found["url"]) == ("not_holder", False, f"http://127.0.0.1:{port}")
        assert "Nothing was done" in found["detail"]
        for url in ("ftp://127.0.0.1", "http://[::1"):
            k.works("two", url)
            assert problem(await relayed(k.one, prepared, signed(prepared, wallet)))["may_be_done"] is False
        assert await metric(k.one, 'keeper_http_forwarded_total{how="unreachable"}') == 3


async def test_the_answer_is_lost_and_the_same_again_is_the_same(world: World, wallet: Keypair) -> None:
    """The holder took it. Asking again gets its answer, and the chain has one order."""
    async with keepers(world, wallet) as k:
        prepared = (await k.one.post("/v1/orders", json=world.body(wallet))).json()
        two, wire = str(k.two.base_url).rstrip("/"), signed(prepared, wallet)
        async with listening(losing(k.two)) as url:
            k.works("two", url)
            lost = await relayed(k.one, prepared, wire)
            assert (problem(lost)["code"], problem(lost)["may_be_done"]) == ("not_holder", True)
            assert "Send the same signed transaction again" in problem(lost)["detail"]
            path, token = f"/v1/wallets/{k.wallet}/orders", {"Authorization": "Bearer right"}
            keyless = await k.one.post(path, json=ORDER, headers=token)
            assert "Look at the wallet's orders" in problem(keyless)["detail"]
            keyed = await k.one.post(path, json=ORDER, headers={**token, "Idempotency-Key": "k"})
            assert "same Idempotency-Key" in problem(keyed)["detail"]
        k.works("two", two)
        again = await relayed(k.one, prepared, wire)
        assert (again.status_code, again.json()["order"]) == (202, prepared["order"])
        once = await k.one.post(path, json=ORDER, headers={**token, "Idempotency-Key": "k"})
        assert once.status_code == 202
        assert landed(world, wallet) == 3, "one of the user's, and two of the wallet's: no answer, no other order"
        assert await metric(k.one, 'keeper_http_forwarded_total{how="lost"}') == 3


async def test_a_holder_that_says_nothing_is_not_waited_for(world: World, wallet: Keypair) -> None:
    async def silent(stream: SocketStream) -> None:
        await anyio.sleep_forever()

    async with keepers(world, limits=replace(LIMITS, forward_s=0.1)) as k, listening(silent) as url:
        prepared = (await k.one.post("/v1/orders", json=world.body(wallet))).json()
        k.works("two", url)
        lost = problem(await relayed(k.one, prepared, signed(prepared, wallet)))
        assert (lost["code"], lost["may_be_done"]) == ("not_holder", True)


async def test_one_that_tells_its_answer_for_ever_is_not_waited_for(world: World, wallet: Keypair) -> None:
    async def drips(stream: SocketStream) -> None:
        await request_of(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999999\r\n\r\n")
        while True:
            await stream.send(b" ")
            await anyio.sleep(0.02)

    async with keepers(world, limits=replace(LIMITS, forward_s=0.1)) as k, listening(drips) as url:
        prepared = (await k.one.post("/v1/orders", json=world.body(wallet))).json()
        k.works("two", url)
        lost = problem(await relayed(k.one, prepared, signed(prepared, wallet)))
        assert (lost["code"], lost["may_be_done"]) == ("not_holder", True)


async def test_one_that_is_slow_does_not_have_everybody_wait_for_it(world: World, wallet: Keypair) -> None:
    asked, goes = anyio.Event(), anyio.Event()

    async def slow(stream: SocketStream) -> None:
        await request_of(stream)
        asked.set()
        await goes.wait()

    answers: list[dict[str, Any]] = []
    async with keepers(world, limits=replace(LIMITS, forwards=1)) as k, listening(slow) as url:
        prepared = (await k.one.post("/v1/orders", json=world.body(wallet))).json()
        k.works("two", url)

        async def ask() -> None:
            answers.append(problem(await relayed(k.one, prepared, signed(prepared, wallet))))

        async with anyio.create_task_group() as tg:
            tg.start_soon(ask)
            await asked.wait()
            await ask()
            assert await metric(k.one, 'keeper_http_forwarded_total{how="busy"}') == 1
            goes.set()
    assert [each["may_be_done"] for each in answers] == [False, True]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /\r\nContent-Type: application/json\r\n\r\n{}", id="redirect"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi", id="page"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n" + b" " * 2_000_000,
            id="endless",
        ),
    ],
)
async def test_what_is_no_keepers_answer_is_not_passed_on(world: World, wallet: Keypair, answer: bytes) -> None:
    async def other(stream: SocketStream) -> None:
        await request_of(stream)
        await stream.send(answer)

    async with keepers(world) as k, listening(other) as url:
        prepared = (await k.one.post("/v1/orders", json=world.body(wallet))).json()
        k.works("two", url)
        found = problem(await relayed(k.one, prepared, signed(prepared, wallet)))
        assert (found["code"], found["may_be_done"]) == ("not_holder", True)
        assert "no keeper" in found["detail"]


async def test_a_keeper_whose_certificate_nobody_vouches_for_is_told_nothing(
    world: World, wallet: Keypair, tmp_path: Path
) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl here to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    make += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    await anyio.run_process(make)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    told: list[bytes] = []

    async def other(stream: SocketStream) -> None:
        with contextlib.suppress(ssl.SSLError, anyio.BrokenResourceError, anyio.EndOfStream):
            told.append(await (await TLSStream.wrap(stream, ssl_context=context, server_side=True)).receive())

    async with keepers(world) as k, listening(other) as url:
        prepared = (await k.one.post("/v1/orders", json=world.body(wallet))).json()
        k.works("two", url.replace("http://", "https://"))
        found = problem(await relayed(k.one, prepared, signed(prepared, wallet)))
        assert (found["code"], found["may_be_done"], told) == ("not_holder", False, [])


# --- what goes with it, and for whom


async def test_only_the_headers_that_are_meant_for_the_other_go_with_it(
    world: World, wallet: Keypair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a proxy of the environment asked, nor a cookie kept, nor a strange header passed back."""
    heard: list[tuple[str, dict[str, str], bytes]] = []

    async def other(stream: SocketStream) -> None:
        line, headers, body = await request_of(stream)
        heard.append((line, headers, body))
        await stream.send(
            b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 2\r\nSet-Cookie: a=b\r\n"
            b"Server: other\r\nLocation: //evil.example/\r\nRetry-After: 7\r\nConnection: close\r\n\r\n{}"
        )

    async with keepers(world, wallet) as k, listening(other) as url:
        for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):  # the tests' own client has looked
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        k.works("two", url)
        path = f"/v1/wallets/{k.wallet}/orders"
        for _ in range(2):
            answer = await k.one.post(
                path,
                content=json.dumps(ORDER),
                headers={
                    "Authorization": "Bearer right",
                    "Content-Type": "application/json",
                    "Idempotency-Key": "a",
                    "X-Request-Id": "asked-7",
                    "Cookie": "session=1",
                    "X-Forwarded-For": "192.0.2.7",
                    "Origin": "https://page.example",
                    "TE": "trailers",
                },
            )
            assert (answer.status_code, answer.content) == (202, b"{}")
            assert answer.headers["retry-after"] == "7"
            assert not {"set-cookie", "server", "location"} & answer.headers.keys()
        line, headers, body = heard[1]
        assert line == f"POST {path} HTTP/1.1"
        assert json.loads(body) == ORDER
        assert headers.keys() == {
            *("host", "content-type", "content-length", "authorization", "idempotency-key", "x-request-id"),
            *("accept-encoding", FORWARDED.lower()),
        }
        assert headers["authorization"] == "Bearer right"
        assert headers["x-request-id"] == "asked-7"
        assert headers["host"] == url.removeprefix("http://")


async def test_a_clients_limits_are_those_of_the_keeper_that_it_asked(world: World, wallet: Keypair) -> None:
    """What is forwarded costs nothing at the other; and who only says that he forwards pays like anybody."""
    limits = replace(LIMITS, requests_per_s=0.0001, burst=2 * WRITE + 3)
    async with keepers(world, limits=limits) as k:
        first = await world.prepare(wallet)
        wire = signed(first, wallet)
        assert (await relayed(k.two, first, wire)).status_code == 202
        answers = [await relayed(k.one, first, wire) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [202, 202, 202, 429]
        # The other has charged its own: it takes another one, and three that cost a request each.
        assert (await relayed(k.two, first, wire)).status_code == 202
        assert [(await k.two.get("/v1/markets")).status_code for _ in range(4)] == [200, 200, 200, 429]
        made_up = Seal(b"another key").mark("nobody", "POST", b"/v1/orders/execute", "x")
        for mark in ("for=nobody", "for=nobody&seal=00", "seal=\u00e9", made_up):
            claimed = {FORWARDED.encode(): mark.encode(), b"X-Request-Id": b"x"}
            body = {"id": first["id"], "signed_transaction": base64.b64encode(wire).decode()}
            assert (await k.two.post("/v1/orders/execute", json=body, headers=claimed)).status_code == 429


async def test_a_seal_holds_for_one_request_alone() -> None:
    mark = SEAL.mark("token:bot", "POST", b"/v1/orders/execute?wait_s=1", "id-1")
    assert SEAL.client(mark, "POST", b"/v1/orders/execute?wait_s=1", "id-1") == "token:bot"
    assert SEAL.client(mark, "POST", b"/v1/orders/execute?wait_s=2", "id-1") is None
    assert SEAL.client(mark, "GET", b"/v1/orders/execute?wait_s=1", "id-1") is None
    assert SEAL.client(mark, "POST", b"/v1/orders/execute?wait_s=1", "id-2") is None
    assert SEAL.client(mark.replace("bot", "cat"), "POST", b"/v1/orders/execute?wait_s=1", "id-1") is None
    assert Seal(Signer(Keypair()).secret_for("forwarding")).client(mark, "POST", b"/x", "id-1") is None
    same = Seal(Signer(KEEPER).secret_for("forwarding"))
    assert same.client(mark, "POST", b"/v1/orders/execute?wait_s=1", "id-1") == "token:bot"
    assert Signer(KEEPER).secret_for("forwarding") != Signer(KEEPER).secret_for("something else")
    assert "Seal()" in repr(SEAL)


async def test_a_keeper_may_be_known_to_the_others_by_a_name_that_pages_must_not_use(
    world: World, wallet: Keypair
) -> None:
    """The Host of what is forwarded is the cluster's; the API takes it by no such name from anybody else."""
    target, host = b"/v1/orders/execute", "keeper-two.internal.example"
    async with keepers(world) as k:
        prepared = await world.prepare(wallet)
        body = {"id": prepared["id"], "signed_transaction": base64.b64encode(signed(prepared, wallet)).decode()}
        plain = await k.two.post(target.decode(), json=body, headers={"Host": host})
        assert problem(plain)["code"] == "unknown_host"
        mark = SEAL.mark("192.0.2.7", "POST", target, "id-1")
        headers = {"Host": host, FORWARDED: mark, "X-Request-Id": "id-1"}
        assert (await k.two.post(target.decode(), json=body, headers=headers)).status_code == 202


async def test_the_log_of_a_lost_answer_has_no_token(
    world: World, wallet: Keypair, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async with keepers(world, wallet) as k:
        with unused_port() as port, caplog.at_level(logging.DEBUG):
            k.works("two", f"http://127.0.0.1:{port}")
            await k.one.post(f"/v1/wallets/{k.wallet}/orders", json=ORDER, headers={"Authorization": "Bearer right"})
        told = caplog.text + "".join(capsys.readouterr())
    assert "http.not_forwarded" in told
    assert "Bearer" not in told


# --- other ends of a connection


@asynccontextmanager
async def listening(answer: Callable[[SocketStream], Awaitable[None]]) -> AsyncIterator[str]:
    """The URL of a listener that has each connection answered so."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")

    async def handle(stream: SocketStream) -> None:
        async with stream:
            await answer(stream)

    async with listener, anyio.create_task_group() as tg:
        tg.start_soon(listener.serve, handle)
        yield f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        tg.cancel_scope.cancel()


def losing(http: httpx.AsyncClient) -> Callable[[SocketStream], Awaitable[None]]:
    """Has each request carried out there, and keeps the answer for itself."""

    async def handle(stream: SocketStream) -> None:
        line, headers, body = await request_of(stream)
        method, target, _ = line.split()
        del headers["host"]
        answer = await http.request(method, target, headers=headers, content=body)
        assert answer.status_code == 202, answer.text

    return handle


async def request_of(stream: SocketStream) -> tuple[str, dict[str, str], bytes]:
    """The request that comes: its line, its headers by name in lower case, its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive()
    head, _, body = data.partition(b"\r\n\r\n")
    line, *rest = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in rest)}
    while len(body) < int(headers["content-length"]):
        body += await stream.receive()
    return line, headers, body


@contextmanager
def unused_port() -> Iterator[int]:
    """A port that nobody listens on, and that nobody else gets meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
