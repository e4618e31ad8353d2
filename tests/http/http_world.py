"""A keeper's API over a real socket, on the embedded chain, with a real journal and relay."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import anyio
import httpx
from anyio.abc import TaskGroup
from prometheus_client import CollectorRegistry
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from keeper.domain.attempts import AttemptState
from keeper.domain.health import Check, Health
from keeper.domain.orders import Market, Order, OrderState, OrderType
from keeper.domain.prices import Fires, Level, Price
from keeper.domain.reports import Report
from keeper.execution.flights import Flights
from keeper.execution.lander import Lander
from keeper.execution.limits import LandingLimits
from keeper.execution.orders import Orders
from keeper.execution.relay import RelayDesk
from keeper.execution.tries import RetryLimits
from keeper.http.api import run_api
from keeper.http.edge.clients import ApiLimits
from keeper.http.orders.waiting import order_of
from keeper.http.ports import ApiPorts
from keeper.journal import Journal, NoteOrder, Source
from keeper.journal.records import PreparedRow
from keeper.localnet import Commitment, Localnet, LocalnetConfig
from keeper.solana.client import Blockhash, ChainClient
from keeper.solana.http1 import HttpTransport
from keeper.solana.pool import PoolLimits, RpcPool
from keeper.solana.rpc import Endpoint
from keeper.triggers.book import Book
from keeper.venue.idl import PACKAGED, load_idl
from keeper.venue.program import Program
from keeper.venue.venue import decode_market, decode_order
from tests.support import until
from tests.support.postgres import place_of

USDC = 1_000_000
SOL = 1_000_000_000
PROBLEM = "application/problem+json"
KEEPER = Keypair.from_seed(bytes([3] * 32))
LIMITS = ApiLimits(requests_per_s=0.0, burst=50, streams=2_000)
"""No client is limited."""
AUTHORITY = Keypair.from_seed(bytes([4] * 32))


class ChainDesk:
    """Knows markets and orders by looking into the bank: always up to date, so that tests need not wait."""

    def __init__(self, net: Localnet, program: Program) -> None:
        self.net = net
        self.program = program
        self.symbols = ["SOL/USDC"]
        self.reasons: dict[Pubkey, str] = {}
        self.known: set[Pubkey] = set()
        self.book = Book()

    @property
    def slot(self) -> int:
        return self.net.bank.chain.tip.slot

    def order(self, address: Pubkey) -> Order | None:
        account = self.net.bank.account(address) if address in self.known else None
        if account is None:
            return None
        order = decode_order(address, bytes(account.data), self.slot)
        return order if order.pending else None

    def why(self, address: Pubkey) -> str:
        return self.reasons.get(address, "")

    def market(self, key: str | Pubkey) -> Market | None:
        return next((m for m in self.markets() if key in (m.symbol, m.address)), None)

    def markets(self) -> list[Market]:
        found = []
        for symbol in self.symbols:
            address = self.program.market_address(*symbol.split("/"))
            account = self.net.bank.account(address)
            if account is not None:
                found.append(decode_market(address, bytes(account.data), self.slot))
        return found

    def price(self, market: Pubkey) -> Price | None:
        found = self.market(market)
        if found is None or not found.last_oracle_price_1e6:
            return None
        return Price(market, found.last_oracle_price_1e6, self.slot, found.last_oracle_update_s)

    def chain_time_s(self) -> float | None:
        return float(self.net.bank.chain.tip.time)

    def executing(self, market: Market) -> tuple[bool, str]:
        return (True, "") if market.is_active else (False, "The market is not active.")

    def counts(self) -> Mapping[tuple[Pubkey, OrderType], int]:
        return self.book.counts()

    def levels(self, market: Pubkey, fires: Fires, n: int) -> Sequence[Level]:
        return list(islice(self.book.levels(market, fires), n))


LIVES_S = 32
"""150 blocks, at the pace that mainnet has had since slots take 214 ms."""


class TipBlockhash:
    """The newest confirmed block's."""

    def __init__(self, net: Localnet) -> None:
        self.net = net

    def current(self) -> Blockhash:
        tip = self.net.bank.chain.at(Commitment.CONFIRMED)
        return Blockhash(str(tip.blockhash), tip.height + 150, tip.slot)

    def lives_s(self) -> float:
        return LIVES_S

    undone_blocks = 32


class Relay:
    """The keeper's own relay desk. The first send is over when `submit` returns, so that tests need not wait for it."""

    def __init__(self, journal: Journal, client: ChainClient, tasks: TaskGroup) -> None:
        self.flights = Flights()
        self.orders = Orders(Book(), RetryLimits(budget=5, first_pause_s=1, longest_pause_s=1, attempts_per_hour=30))
        limits = LandingLimits(final_poll_s=1, resend_every_s=60, height_every_s=1, send_deadline_s=10)
        lander = Lander(client, journal, self.flights, limits, _unreported)
        self._desk = RelayDesk(journal, lander, self.orders, tasks, _unreported)
        self.submitted: list[bytes] = []

    async def submit(self, prepared: PreparedRow, wire: bytes, placed: Order | None) -> None:
        await self._desk.submit(prepared, wire, placed)
        self.submitted.append(wire)
        flight = self.flights.open[Signature.from_bytes(wire[1:65])]
        await until(lambda: flight.attempt.state is not AttemptState.SIGNED)


def _unreported(report: Report) -> None:
    """Logs and metrics are not what these tests are about."""


@dataclass
class SetHealth:
    """Says what the test wants it to say."""

    health: Health = field(default_factory=lambda: Health(live=True, ready=True, checks=(Check("watch", ok=True),)))

    def report(self) -> Health:
        return self.health


@dataclass
class World:
    """The API's address and everything behind it."""

    net: Localnet
    program: Program
    client: ChainClient
    journal: Journal
    desk: ChainDesk
    relay: Relay
    health: SetHealth
    ports: ApiPorts
    port: int
    http: httpx.AsyncClient
    calls: list[str]
    """What the chain's node was asked for, by method."""

    def trader(self) -> Keypair:
        wallet = Keypair()
        self.net.bank.airdrop(wallet.pubkey(), SOL)
        self.net.bank.advance()
        self.net.bank.advance()
        return wallet

    def land(self, *instructions: Instruction, signer: Keypair = AUTHORITY) -> None:
        """A transaction of the test's own."""
        blockhash = self.net.bank.chain.tip.blockhash
        message = Message.new_with_blockhash(list(instructions), signer.pubkey(), blockhash)
        landed = self.net.bank.land(VersionedTransaction(message, [signer]))
        assert not isinstance(landed, str), landed
        assert landed.err is None, landed
        self.net.bank.advance()

    def set_price(self, price_1e6: int, market: Pubkey | None = None) -> None:
        self.net.bank.advance()  # a block as of now: another test may have moved the chain's clock
        accounts = {
            "market": market or self.program.market_address("SOL", "USDC"),
            "price_feed": Pubkey.default(),
            "authority": AUTHORITY.pubkey(),
        }
        self.land(self.program.instruction("update_oracle_price", {"new_price": price_1e6}, accounts))

    def body(self, wallet: Keypair, **changes: Any) -> dict[str, Any]:
        """A stop loss that the program takes; None in `changes` leaves a field out."""
        body = {
            "user": str(wallet.pubkey()),
            "market": "SOL/USDC",
            "order_type": "stop_loss",
            "side": "long",
            "size": "2.5",
            "trigger_price": "95.5",
            "leverage": 5,
            **changes,
        }
        return {name: value for name, value in body.items() if value is not None}

    async def noted(self, wallet: Keypair, **changes: Any) -> dict[str, Any]:
        """An order that is in the journal as a submitted one, and nowhere else."""
        prepared = await self.prepare(wallet, **changes)
        row = await self.journal.prepared(prepared["id"])
        assert row is not None
        note = NoteOrder(order_of(row), OrderState.SUBMITTED, "On its way.", Source.API, row.client_order_id)
        await self.journal.commit(note)
        return prepared

    async def prepare(self, wallet: Keypair, **changes: Any) -> dict[str, Any]:
        answer = await self.http.post("/v1/orders", json=self.body(wallet, **changes))
        assert answer.status_code == 201, answer.text
        prepared: dict[str, Any] = answer.json()
        return prepared

    async def execute(self, prepared_id: str, wire: bytes) -> httpx.Response:
        signed = base64.b64encode(wire).decode()
        return await self.http.post("/v1/orders/execute", json={"id": prepared_id, "signed_transaction": signed})

    async def place(self, wallet: Keypair, **changes: Any) -> dict[str, Any]:
        """Prepare, sign, relay, and let the chain go on: the order is on it afterwards."""
        prepared = await self.prepare(wallet, **changes)
        answer = await self.execute(prepared["id"], signed(prepared, wallet))
        assert answer.status_code == 202, answer.text
        self.net.bank.advance()
        self.net.bank.advance()
        return prepared

    async def resting(self, wallet: Keypair, **changes: Any) -> dict[str, Any]:
        """As `place`, and the book has heard of it."""
        prepared = await self.place(wallet, **changes)
        self.desk.known.add(Pubkey.from_string(prepared["order"]))
        return prepared


def signed(prepared: dict[str, Any], wallet: Keypair) -> bytes:
    """What a wallet does with a prepared transaction."""
    unsigned = VersionedTransaction.from_bytes(base64.b64decode(prepared["transaction"]))
    return bytes(VersionedTransaction(unsigned.message, [wallet]))


def problem(answer: httpx.Response) -> dict[str, Any]:
    """The problem that the answer is."""
    assert answer.headers["content-type"] == PROBLEM, answer.text
    document: dict[str, Any] = answer.json()
    assert document["status"] == answer.status_code
    assert document["title"]
    assert document["detail"]
    return document


@asynccontextmanager
async def serving(ports: ApiPorts) -> AsyncIterator[int]:
    """The API on a free port."""
    async with anyio.create_task_group() as tg:
        port = await tg.start(run_api, ports, "127.0.0.1", 0)
        yield port
        tg.cancel_scope.cancel()


@asynccontextmanager
async def world(directory: Path, limits: ApiLimits | None = None) -> AsyncIterator[World]:
    """SOL/USDC at 100 on a chain whose blocks are made by hand."""
    async with (
        Localnet(LocalnetConfig(rpc_port=0, slot_ms=0, finalized_slots=2)) as net,
        Journal.open(place_of(directory / "journal.sqlite")) as journal,
        anyio.create_task_group() as tasks,
    ):
        program = Program(net.program_id, load_idl(PACKAGED["0.2"]))
        calls: list[str] = []
        pool = RpcPool(
            [Endpoint("local", HttpTransport(net.rpc_url, label="local"))],
            PoolLimits(),
            observe=lambda _endpoint, method, _seconds, _outcome: calls.append(method),
        )
        client = ChainClient(pool)
        desk, relay, health = ChainDesk(net, program), Relay(journal, client, tasks), SetHealth()
        ports = ApiPorts(
            program=program,
            client=client,
            blockhashes=TipBlockhash(net),
            journal=journal,
            desk=desk,
            relay=relay,
            health=health,
            metrics=CollectorRegistry(),
            keeper_pubkey=KEEPER.pubkey(),
            limits=limits or LIMITS,
        )
        async with serving(ports) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            made = World(net, program, client, journal, desk, relay, health, ports, port, http, calls)
            net.bank.airdrop(AUTHORITY.pubkey(), 10 * SOL)
            net.bank.advance()
            market = {"market": program.market_address("SOL", "USDC"), "authority": AUTHORITY.pubkey()}
            arguments = {
                "base_asset": "SOL",
                "quote_asset": "USDC",
                "initial_price": 100 * USDC,
                "max_leverage": 20,
                "initial_margin_ratio": 500,
                "maintenance_margin_ratio": 300,
            }
            made.land(program.instruction("initialize_market", arguments, market))
            made.set_price(100 * USDC)
            net.bank.advance()
            yield made
        await pool.aclose()
