"""A chain with Yellowstone gRPC, and a watch that fills a book by it: what is in the book is what it heard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field

import anyio
from solders.pubkey import Pubkey

from keeper.domain.events import Event, MarketSeen, OrderGone, OrderSeen
from keeper.domain.orders import OrderFields, fields_of
from keeper.localnet.geyser import Geyser
from keeper.solana.client import ChainClient
from keeper.solana.geyser import OVERLAP_SLOTS, GeyserSource
from keeper.solana.http1 import HttpTransport
from keeper.solana.pool import PoolLimits, RpcPool
from keeper.solana.rpc import Endpoint
from keeper.solana.watch import ProgramWatch, WatchLimits
from keeper.triggers.book import Book
from keeper.venue.venue import ORDER_DISCRIMINATOR, Venue
from tests.support import PROGRAM, World, until
from tests.support.blocks import Blocks

BLOCK_S = 0.01


@dataclass
class Reader:
    """A book and the markets' prices, by the watch alone."""

    book: Book = field(default_factory=Book)
    prices: dict[Pubkey, tuple[int, int]] = field(default_factory=dict)

    def on_event(self, event: Event) -> None:
        match event:
            case MarketSeen(market):
                seen = (market.slot, market.last_oracle_price_1e6)
                self.prices[market.address] = max(seen, self.prices.get(market.address, seen), key=lambda pair: pair[0])
            case OrderSeen(order) if order.pending:
                self.book.upsert(order)
            case OrderSeen(order):
                self.book.close(order.address, order.slot)
            case OrderGone(address, slot):
                self.book.remove(address, slot)

    def unchanged(self, address: Pubkey, fields: OrderFields, slot: int) -> bool:
        return self.book.still(address, fields, slot)

    def begin_load(self) -> None:
        return None

    async def end_load(self, load: object) -> None:
        raise AssertionError("no load was begun")

    def not_seen_since(self, slot: int, cursor: int) -> tuple[list[Pubkey], int | None]:
        return self.book.older_than(slot, start=cursor)


@dataclass
class Listening:
    """The chain, the watch and what it heard. `lists` counts the full readings."""

    world: World
    watch: ProgramWatch
    reader: Reader
    lists: int = 0
    troubles: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    blocks: Blocks = field(init=False)

    def __post_init__(self) -> None:
        self.blocks = Blocks(self.world.bank, BLOCK_S)

    def listed(self) -> None:
        self.lists += 1

    @property
    def geyser(self) -> Geyser:
        assert self.world.net.geyser is not None
        return self.world.net.geyser

    def held(self) -> AbstractContextManager[None]:
        """No blocks but the test's own."""
        return self.blocks.held()

    async def fill_the_buffer(self) -> None:
        """So many slots that the server could tell a short gap again, and the watch has heard of them."""
        for _ in range(2 * OVERLAP_SLOTS):
            self.world.bank.advance()
        newest = self.world.bank.chain.complete.slot
        await until(lambda: self.watch.health.listed and self.watch.health.last_slot >= newest)

    def differences(self) -> list[str]:
        """Where the book is not what the chain says now: the whole of it, read from the bank."""
        there = {}
        for address, account in self.world.bank.owned_by(PROGRAM.id):
            if bytes(account.data)[:8] == ORDER_DISCRIMINATOR:
                order = self.world.order(address)
                if order is not None and order.pending:
                    there[address] = fields_of(order)
        known = {order.address: fields_of(order) for order in self.reader.book.orders(limit=100_000)}
        found = [
            f"{address}: {known.get(address)}, not {there.get(address)}"
            for address in {*there, *known}
            if there.get(address) != known.get(address)
        ]
        for address, (_, price) in self.reader.prices.items():
            says = self.world.market_state(address).last_oracle_price_1e6
            if says != price:
                found.append(f"market {address}: {price}, not {says}")
        return found

    async def well(self) -> None:
        """Wait until the book is what the chain says."""
        try:
            await until(lambda: self.watch.health.listed and not self.differences())
        except TimeoutError:
            raise AssertionError(f"{self.watch.health}: {self.differences()[:3]}") from None


@asynccontextmanager
async def watching(
    world: World, target: str, reader: Reader, *, token: str | None = None, silence_s: float = 5.0
) -> AsyncIterator[Listening]:
    """Run a watch on a server's stream; its next list by itself is an hour away."""
    pool = RpcPool([Endpoint("node", HttpTransport(world.net.rpc_url, label="node"))], PoolLimits())
    watch = ProgramWatch(
        reader=Venue(PROGRAM, PROGRAM.id),
        client=ChainClient(pool),
        source=GeyserSource("stream-1", target, tls=False, token=token),
        intake=reader,
        on_malformed=lambda address, reason: None,
        on_snapshot=lambda: here.listed(),
        on_trouble=lambda reason: here.troubles.append(reason),
        on_unlisted=lambda reason: here.unlisted.append(reason),
        limits=WatchLimits(silence_s=silence_s, snapshot_every_s=3_600.0),
    )
    here = Listening(world, watch, reader)
    async with anyio.create_task_group() as tg:
        tg.start_soon(watch.run)
        yield here
        tg.cancel_scope.cancel()
    await pool.aclose()


@asynccontextmanager
async def listening(
    token: str | None = None, sent_token: str | None = None, target: str | None = None, silence_s: float = 5.0
) -> AsyncIterator[Listening]:
    """A chain whose blocks come every 10 ms, and a watch on its stream. `target`: another server than the chain's."""
    async with World.open(slot_ms=0, confirmed_slots=2, finalized_slots=6, geyser_port=0, geyser_token=token) as world:
        for _ in range(8):
            world.bank.advance()
        target = target or (world.net.geyser_url or "").removeprefix("http://")
        async with (
            watching(world, target, Reader(), token=sent_token, silence_s=silence_s) as here,
            anyio.create_task_group() as tg,
        ):
            tg.start_soon(here.blocks.make)
            yield here
            tg.cancel_scope.cancel()
