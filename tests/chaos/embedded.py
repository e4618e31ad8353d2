"""The stage on the embedded chain, which can be broken as well: forks, lost and late transactions, jumps, its clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

import anyio
from solders.pubkey import Pubkey

from keeper.domain.orders import OnchainStatus, OrderType, Side
from keeper.localnet import Commitment
from tests.chaos.invariants import Record
from tests.chaos.lives import AnyLives, Lives
from tests.chaos.proxy import FaultProxy
from tests.chaos.scenario import Act, Event
from tests.chaos.stage import SOL, Stage
from tests.chaos.witness import Witness
from tests.support import Refused, Trader, World, until

SLOT_S: Final = 0.02
CONFIRMED_SLOTS: Final = 4
FINALIZED_SLOTS: Final = 10
_STAND_S: Final = 0.45


class EmbeddedStage(Stage):
    """Made by `open`."""

    pace = 1.0
    settle_within_s = 20.0
    sure_after_s = 0.0
    # Everything twenty times as fast as in life, as the blocks are.
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "rpc": {
            "deadline_s": 1.0,
            "silence_s": 0.6,
            "snapshot_every_s": 0.4,
            "probe_every_s": 0.5,
            "blockhash_every_s": 0.3,
        },
        "execution": {
            "resend_every_s": 0.1,
            "finality_every_s": 0.1,
            "account_every_s": 0.3,
            "first_pause_s": 0.05,
            "longest_pause_s": 0.4,
            "attempts_per_hour": 1_000,
            "retry_budget": 8,
        },
        # Prices jump here at will; the breaker has tests of its own.
        "trigger": {"breaker_trip": 1.0},
    }

    def __init__(
        self, world: World, proxies: Sequence[FaultProxy], lives: AnyLives, witness: Witness, folder: Path
    ) -> None:
        super().__init__(proxies, lives, witness, folder)
        self.world = world
        for key in (self.key, self.rival):
            world.bank.airdrop(key.pubkey(), 1_000 * SOL)
        self._blocks_paused = False
        self._forks_after_fill: list[int] = []
        self._fork_to: tuple[int, int] | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, *, seed: str, alpenglow_from: int | None) -> AsyncIterator[Stage]:
        """Build it. The files of its keepers are in `folder`. From `alpenglow_from` on consensus is Alpenglow."""
        async with cls.chain(alpenglow_from) as world, Lives.open() as lives:
            witness = Witness(world.bank)
            async with cls.ways(world.net.rpc_url, world.net.ws_url, witness, seed) as proxies:
                stage = cls(world, proxies, lives, witness, folder)
                async with stage.making_blocks(), stage.playing():
                    yield stage

    @staticmethod
    @asynccontextmanager
    async def chain(alpenglow_from: int | None) -> AsyncIterator[World]:
        """Its chain, on which nobody makes blocks yet."""
        async with World.open(slot_ms=0, confirmed_slots=CONFIRMED_SLOTS, finalized_slots=FINALIZED_SLOTS) as world:
            world.bank.chain.alpenglow_from = alpenglow_from
            yield world

    @asynccontextmanager
    async def making_blocks(self) -> AsyncIterator[None]:
        """With blocks, until the end of the block."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._make_blocks)
            yield
            tasks.cancel_scope.cancel()

    def clear(self) -> None:
        super().clear()
        self._blocks_paused = False
        self._forks_after_fill.clear()
        self._fork_to = None
        self.world.bank.lose_transactions(0)
        self.world.bank.release_transactions()

    # -- the chain

    async def markets(self, count: int, *, price_1e6: int) -> Sequence[Pubkey]:
        return [self.world.market(price_1e6=price_1e6) for _ in range(count)]

    async def traders(self, collateral_1e6: Mapping[str, int | None]) -> dict[str, Trader]:
        traders = {
            name: self.world.trader(collateral_1e6=amount or 0, account=amount is not None)
            for name, amount in collateral_1e6.items()
        }
        for _ in range(6):
            self.world.bank.advance()  # no fork of this episode takes the beginning away
        return traders

    async def set_price(self, market: Pubkey, price_1e6: int) -> None:
        self.world.set_price(market, price_1e6)

    async def place(self, trader: Trader, market: Pubkey, order_type: OrderType, side: Side, **terms: int) -> Pubkey:
        return self.world.place(trader, market, order_type, side, **terms)

    async def execute(self, order: Pubkey) -> None:
        if self.world.order(order) is not None:
            self.world.execute(order, self.rival)

    async def cancel(self, trader: Trader, order: Pubkey) -> None:
        self.world.cancel(trader, order)

    async def take_back(self, orders: Mapping[Pubkey, Trader]) -> None:
        """All of them, so that the next episode's snapshots are short."""
        for address, trader in orders.items():
            order = self.world.order(address)
            try:
                if order is not None and order.status is OnchainStatus.PENDING:
                    self.world.cancel(trader, address)
                if order is not None:
                    self.world.close(trader, address)
            except Refused:
                continue

    async def deposit(self, trader: Trader, amount_1e6: int) -> None:
        self.world.deposit(trader, amount_1e6)

    async def now(self) -> int:
        return self.world.now()

    async def read(self, markets: Sequence[Pubkey], orders: Iterable[Pubkey]) -> Record:
        return self.world

    async def judge(self) -> Sequence[str]:
        return ()

    # -- what breaks

    async def act(self, event: Event) -> None:
        bank, size = self.world.bank, int(event.amount)
        match event.act:
            case Act.FORK:
                self._fork(size)
                return
            case Act.FORK_AFTER_FILL:
                self._forks_after_fill.append(size)
                return
            case Act.LAST_MOMENT:
                await self._last_moment(size)
                return
            case Act.LOSE:
                bank.lose_transactions(size)
            case Act.HOLD:
                bank.hold_transactions()
                await anyio.sleep(size / 1000)
                bank.release_transactions()
            case Act.JUMP:
                for _ in range(size):
                    bank.advance()
            case Act.CLOCK:
                bank.advance_clock(event.amount)
        self.chain_faults[event.act] += 1

    async def _last_moment(self, beyond: int) -> None:
        """Hold what the keeper sends, and let the chain stand `beyond` blocks past the last height where it can land.

        At 0 it lands then. A little beyond, a fork takes those blocks away, and it lands: that is why only a FINALIZED
        height says that it is dead. Further on it can't land, and yet is not finally dead for FINALIZED_SLOTS blocks.
        A keeper that judges by a clock, by a height that is not final, or one block too early, signs anew meanwhile.
        """
        bank = self.world.bank
        known = self.witness.newest
        bank.hold_transactions()
        try:
            await until(lambda: self.witness.newest is not known, within_s=0.3)
        except TimeoutError:
            bank.release_transactions()
            return  # the keeper had nothing to send just now
        held = self.witness.newest
        assert held is not None
        last_height = held.last_valid_block_height + 1
        self._blocks_paused = True
        while bank.chain.tip.height < last_height + beyond:
            bank.advance()
        await anyio.sleep(_STAND_S)
        if 0 < beyond < CONFIRMED_SLOTS:
            self._fork(beyond + 1)
        bank.release_transactions()
        self._blocks_paused = False
        self.chain_faults[Act.LAST_MOMENT] += 1

    def _fork(self, depth: int) -> None:
        """The last `depth` blocks never were; only processed ones, as on a live cluster."""
        *older, _ = self.world.bank.chain.recent(depth + 1)
        if older:
            self._drop_after(older[0].slot, "forks")

    def _drop_after(self, slot: int, name: str) -> None:
        chain = self.world.bank.chain
        # Another fork may have taken that block away itself.
        if slot >= chain.at(Commitment.CONFIRMED).slot and chain.block(slot) is not None:
            self.world.bank.drop_slots_after(slot)
            self.chain_faults[name] += 1

    async def _make_blocks(self) -> None:
        due = anyio.current_time()
        while True:
            due = max(due + SLOT_S, anyio.current_time() - SLOT_S)
            await anyio.sleep_until(due)
            if self._blocks_paused:
                continue
            self._fork_after_fill()
            self.world.bank.advance()

    def _fork_after_fill(self) -> None:
        bank = self.world.bank
        if self._fork_to is not None:
            slot, left = self._fork_to
            if left > 0:
                self._fork_to = (slot, left - 1)
            else:
                self._fork_to = None
                self._drop_after(slot, "forks_after_fill")
        elif self._forks_after_fill:
            tip = bank.chain.tip
            if any(landed.keys[0] == self.key.pubkey() and landed.err is None for landed in tip.transactions):
                self._fork_to = (tip.parent, self._forks_after_fill.pop(0))
