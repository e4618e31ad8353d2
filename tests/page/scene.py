"""A real browser at the pages of a real keeper on an embedded chain."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import pytest
from solders.pubkey import Pubkey

from keeper.domain.orders import OrderType, Side
from tests.page.browser import Browser
from tests.support import BOUND_S, KeeperProcess, Trader, World

_WALLET_JS: Final = (Path(__file__).parent / "wallet.js").read_text()
"""The browser wallet that tests bring along; what its user does is `testWallet.mood`."""


def orders_to_look_at(world: World, trader: Trader, sol: Pubkey, eth: Pubkey) -> None:
    """A few orders around prices of 142.35 and 3,120.50; the nearest fires at 139.25."""
    for stop_1e6 in (128_400_000, 134_000_000, 139_250_000):
        world.place(trader, sol, stop_price_1e6=stop_1e6, size_1e6=2_500_000)
    for stop_1e6 in (150_000_000, 161_500_000):
        world.place(trader, sol, OrderType.TAKE_PROFIT, stop_price_1e6=stop_1e6)
    world.place(trader, sol, OrderType.TRAILING_STOP, trailing_distance_ppm=50_000)
    world.place(trader, eth, OrderType.TAKE_PROFIT, Side.SHORT, stop_price_1e6=2_990_000_000)


@dataclass
class Scene:
    """What a page's test has: the chain, the keeper, and a window."""

    world: World
    keeper: KeeperProcess
    window: Browser

    async def sees(self, script: str, *arguments: Any, within_s: float = BOUND_S) -> Any:
        """Wait until the script, run in the page, returns something true; that."""
        with anyio.move_on_after(within_s):
            while True:
                if found := await self.run(script, *arguments):
                    return found
                await anyio.sleep(0.1)
        raise TimeoutError(f"the page never showed: {script}\n{await self.text('body')}")

    async def reads(self, css: str, words: str, within_s: float = BOUND_S) -> str:
        """Wait until an element's text has these words; the text."""
        await self.sees("document.querySelector(arguments[0])?.innerText.includes(arguments[1])", css, words)
        return await self.text(css)

    async def run(self, script: str, *arguments: Any) -> Any:
        """The value of an expression in the page."""
        return await self.do(self.window.run, f"return {script}", *arguments)

    async def text(self, css: str) -> str:
        """What can be read there."""
        return str(await self.do(self.window.text, css))

    async def click(self, css: str) -> None:
        """As a person does."""
        await self.do(self.window.click, css)

    async def type(self, css: str, text: str) -> None:
        """As a person does."""
        await self.do(self.window.type, css, text)

    async def do(self, act: Callable[..., Any], *arguments: Any) -> Any:
        """In a thread, so that the chain in this process goes on."""
        return await anyio.to_thread.run_sync(act, *arguments)

    async def look_at(self, trader: Trader, width: int = 1440, height: int = 900, *, dark: bool = False) -> None:
        """The page of a wallet, which the browser need not have."""
        await self.do(lambda: self.window.show_as(width, height, dark=dark))
        await self.do(self.window.open, f"{self.keeper.url}/wallet#{trader.address}")
        await self.reads("#stream", "live")
        await self.reads("#health", "ready")

    async def connect(
        self,
        trader: Trader,
        width: int = 1440,
        height: int = 900,
        *,
        dark: bool = False,
        name: str = "Test wallet <b>",
    ) -> None:
        """The page in a browser that has this wallet, connected."""
        given = ", ".join(json.dumps(value) for value in (bytes(trader.key)[:32].hex(), str(trader.address), name))
        await self.do(self.window.before_each_page, f"({_WALLET_JS})({given})")
        await self.do(lambda: self.window.show_as(width, height, dark=dark))
        await self.do(self.window.open, f"{self.keeper.url}/wallet")
        if not await self.run("crypto.subtle.generateKey('Ed25519', false, ['sign']).then(() => true, () => false)"):
            pytest.skip("needs a Chromium with Ed25519 in WebCrypto (137 or later), with which the test's wallet signs")
        await self.reads("#connection", f"Connect {name}")
        await self.click("#connection button")
        await self.reads("#connection", "Disconnect")
        await self.sees("!document.querySelector('#terms').disabled")
        await self.reads("#stream", "live")

    async def choose(self, name: str, value: str) -> None:
        """An option of the form, once it is there."""
        await self.sees("document.querySelector(`[name=${arguments[0]}] option[value='${arguments[1]}']`)", name, value)
        choose = (
            "const field = document.querySelector(`[name=${arguments[0]}]`); field.value = arguments[1]; "
            "field.dispatchEvent(new Event('input', { bubbles: true }))"
        )
        await self.do(self.window.run, choose, name, value)

    async def fill_in(self, symbol: str, *, trigger: str, size: str = "1.5") -> None:
        """The form for a stop loss."""
        await self.choose("market", symbol)
        await self.choose("order_type", "stop_loss")
        await self.type("[name=size]", size)
        await self.type("[name=trigger_price]", trigger)
