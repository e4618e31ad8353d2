"""The oracle: it posts each market's price, walks it, falls silent, or moves it and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import anyio
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from keeper.demo.options import HEARTBEAT_S
from keeper.demo.prices import LISTINGS
from keeper.demo.sending import Sender
from keeper.demo.world import price_update
from keeper.venue.program import Program


class Feed:
    """Posts prices, signed by the markets' authority.

    By symbol: `markets` are addresses, `prices_1e6` the last prices posted.
    """

    def __init__(self, program: Program, sender: Sender, oracle: Keypair, markets: Mapping[str, Pubkey]) -> None:
        self._program = program
        self._sender = sender
        self._oracle = oracle
        self._markets = markets
        self._silent: set[str] = set()
        self._walking = False
        self.prices_1e6 = {listing.symbol: listing.price_1e6 for listing in LISTINGS}
        self.updates = 0

    def __repr__(self) -> str:
        return f"Feed({len(self.prices_1e6)} markets, {self.updates} updates, silent={sorted(self._silent)})"

    async def heartbeat(self) -> None:
        """Post standing prices again, so that they stay fresh, until cancelled."""
        while True:
            if not self._walking:
                await self.post({symbol: (price,) for symbol, price in self.prices_1e6.items()})
            await anyio.sleep(HEARTBEAT_S)

    async def walk(self, paths: Mapping[str, Sequence[int]], tick_s: float, on_tick: Callable[[int], None]) -> None:
        """Post the paths' prices, one of each market at a time, `tick_s` seconds apart."""
        self._walking = True
        try:
            started = anyio.current_time()
            for tick, prices in enumerate(zip(*paths.values(), strict=True), start=1):
                await self.post({symbol: (price,) for symbol, price in zip(paths, prices, strict=True)})
                on_tick(tick)
                await anyio.sleep_until(started + tick * tick_s)
        finally:
            self._walking = False

    def silence(self, symbol: str) -> None:
        """This market's price is not posted any more."""
        self._silent.add(symbol)

    def resume(self, symbol: str) -> None:
        """It is posted again, from the next heartbeat on."""
        self._silent.discard(symbol)

    async def flicker(self, symbol: str, price_1e6: int) -> None:
        """Post a price, and at once the one before it, in one request: no transaction can come between them."""
        await self.post({symbol: (price_1e6, self.prices_1e6[symbol])})

    async def post(self, prices: Mapping[str, Sequence[int]]) -> None:
        """Post each market's prices, one after the other, all in one request; those of a silent market not."""
        oracle = self._oracle
        wires = []
        for symbol, series in prices.items():
            if symbol in self._silent:
                continue
            for price in series:
                update = price_update(self._program, self._markets[symbol], oracle.pubkey(), price)
                wires.append(await self._sender.sign([update], oracle))
                self.prices_1e6[symbol] = price
        if wires:
            await self._sender.send(wires)
            self.updates += len(wires)
