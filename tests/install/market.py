"""The chain's side of the trial: a market, orders on it, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anyio
from solders.account import Account
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.localnet.chain import Block
from keeper.localnet.history import Landed
from tests.support import World, until

_SOME = 10
"""How many orders are executed before what is sent waits on its way."""
_POSITIONS = 40
"""Orders of one trader: the program lets nobody have many more positions."""
_HIGH_1E6, _LOW_1E6 = 100_000_000, 97_000_000


class _StopAfterSome:
    """Has the chain hold what is sent to it, once, as soon as `after` of these orders are executed."""

    def __init__(self, world: World, orders: list[Pubkey]) -> None:
        self.after = _SOME
        self._bank = world.bank
        self._positions = {world.position_address(order) for order in orders}

    def landed(self, landed: Landed) -> None:
        """See Observer."""
        if self.after and landed.err is None and not self._positions.isdisjoint(landed.keys):
            self.after -= 1
            if not self.after:
                self._bank.hold_transactions()

    def received(self, signature: Signature) -> None:
        """See Observer."""

    def written(self, slot: int, accounts: Mapping[Pubkey, Account | None]) -> None:
        """See Observer."""

    def advanced(self, tip: Block, confirmed: Sequence[Block], final: Sequence[Block]) -> None:
        """See Observer."""

    def reverted(self, tip: Block, accounts: Mapping[Pubkey, Account | None], confirmed: bool) -> None:
        """See Observer."""


class Market:
    """A market of the trial, with orders on it that a fall of its price triggers."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.address = world.market("SOL/USDC")
        self.orders: list[Pubkey] = []
        self._price_1e6 = _HIGH_1E6

    async def publish(self) -> None:
        """As an oracle does, say the price again and again: an old one decides nothing. Goes on until cancelled."""
        while True:
            self.world.set_price(self.address, self._price_1e6)
            await anyio.sleep(2)

    def place(self, count: int) -> list[Pubkey]:
        """Place orders that the next fall triggers."""
        self._price_1e6 = _HIGH_1E6
        self.world.set_price(self.address, self._price_1e6)
        traders = [self.world.trader() for _ in range(0, count, _POSITIONS)]
        placed = [
            self.world.place(traders[n // _POSITIONS], self.address, stop_price_1e6=98_000_000) for n in range(count)
        ]
        self.orders += placed
        return placed

    def fall(self) -> None:
        """Trigger them."""
        self._price_1e6 = _LOW_1E6
        self.world.set_price(self.address, self._price_1e6)

    async def fall_amid(self, orders: list[Pubkey]) -> None:
        """Trigger them, and return when some are executed and others are not: what is sent then waits on its way, until
        `arrive`. So what happens meanwhile happens amid executions, of which nobody can say what will become of them.
        """
        stop = _StopAfterSome(self.world, orders)
        self.world.bank.observe(stop)
        self.fall()
        await until(lambda: stop.after == 0)

    def arrive(self) -> None:
        """What waits on its way lands, and so does what comes after it."""
        self.world.bank.release_transactions()

    def left(self, orders: list[Pubkey]) -> int:
        """How many of them have no position."""
        return sum(self.world.position(order) is None for order in orders)

    def made(self, order: Pubkey) -> int:
        """How many transactions succeeded that name its position: the one that made it, and any that should not be."""
        return sum(landed.err is None for landed in self.world.history(self.world.position_address(order)))

    async def filled(self, orders: list[Pubkey]) -> None:
        """Wait until each has its position."""
        with anyio.move_on_after(60):
            while self.left(orders):  # noqa: ASYNC110 - the keeper is in the machine
                await anyio.sleep(0.05)
        left = self.left(orders)
        assert not left, f"{left} of {len(orders)} orders have no position"
