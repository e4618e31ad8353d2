"""A wallet's page, in a real browser: its orders are drawn, and a browser wallet places and cancels.

Each test has a market and a wallet of its own. Set QUANTDESK_SCREENSHOTS to a folder to keep the pictures.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from solders.pubkey import Pubkey

from keeper.domain.orders import REVISION_0_2, OnchainStatus, OrderType, Side
from keeper.domain.prices import Fires
from keeper.triggers.conditions import fires_of
from tests.page.browser import browser, missing
from tests.page.scene import Scene
from tests.support import KeeperConfig, KeeperProcess, Trader, World, until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

WALLET_JS: Final = (Path(__file__).parent / "wallet.js").read_text()
"""The wallet that tests bring along; what its user does is `testWallet.mood`."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def served(
    tmp_path_factory: pytest.TempPathFactory, anyio_backend: str
) -> AsyncIterator[tuple[World, KeeperProcess]]:
    async with World.open(slot_ms=50) as world:
        config = KeeperConfig.beside(world, tmp_path_factory.mktemp("keeper"), execution={"retry_budget": 1})
        async with KeeperProcess.running(config) as keeper:
            yield world, keeper


@pytest.fixture
async def scene(served: tuple[World, KeeperProcess], tmp_path: Path) -> AsyncIterator[Scene]:
    """A window that nobody used before."""
    with browser(tmp_path / "profile") as window:
        yield Scene(*served, window)


async def look_at(scene: Scene, trader: Trader, width: int = 1440, height: int = 900, *, dark: bool = False) -> None:
    """The page of a wallet, which the browser need not have."""
    await scene.do(lambda: scene.window.show_as(width, height, dark=dark))
    await scene.do(scene.window.open, f"{scene.keeper.url}/wallet#{trader.address}")
    await scene.reads("#stream", "live")
    await scene.reads("#health", "ready")


async def with_wallet(
    scene: Scene, trader: Trader, width: int = 1440, height: int = 900, *, dark: bool = False
) -> None:
    """The page in a browser that has this wallet, connected."""
    seed = bytes(trader.key)[:32].hex()
    script = f"({WALLET_JS})({json.dumps(seed)}, {json.dumps(str(trader.address))})"
    await scene.do(scene.window.before_each_page, script)
    await scene.do(lambda: scene.window.show_as(width, height, dark=dark))
    await scene.do(scene.window.open, f"{scene.keeper.url}/wallet")
    await scene.reads("#connection", "Connect Test wallet <b>")
    await scene.click("#connection button")
    await scene.reads("#connection", "Disconnect")
    await scene.sees("!document.querySelector('#terms').disabled")
    await scene.reads("#stream", "live")


async def choose(scene: Scene, name: str, value: str) -> None:
    await scene.sees("document.querySelector(`[name=${arguments[0]}] option[value='${arguments[1]}']`)", name, value)
    await scene.run(
        "(document.querySelector(`[name=${arguments[0]}]`).value = arguments[1], "
        "document.querySelector(`[name=${arguments[0]}]`).dispatchEvent(new Event('input', {bubbles: true})), true)",
        name,
        value,
    )


async def fill_in(scene: Scene, symbol: str, *, trigger: str, size: str = "1.5", kind: str = "stop_loss") -> None:
    await choose(scene, "market", symbol)
    await choose(scene, "order_type", kind)
    await scene.type("[name=size]", size)
    await scene.type("[name=trigger_price]", trigger)


def orders_of(scene: Scene, trader: Trader) -> list[Pubkey]:
    """Every order that the wallet has on chain, by the journal that the keeper keeps."""
    with scene.keeper.config.reading() as queries:
        return [row.address for row in queries.orders(user=trader.address, limit=100).items if row.order.slot]


async def test_a_wallets_orders_are_told_and_drawn(scene: Scene) -> None:
    world, trader = scene.world, scene.world.trader()
    sol = world.market("DRAWN/USDC", price_1e6=142_350_000)
    world.place(trader, sol, stop_price_1e6=134_000_000)
    world.place(trader, sol, OrderType.TAKE_PROFIT, stop_price_1e6=150_000_000)
    await look_at(scene, trader)
    await scene.sees("document.querySelectorAll('#open .ladder li').length === 2")
    card = await scene.text("#open .market")
    assert "142.35" in card
    assert "≤ 134.00" in card
    assert "5.87 % to fall" in card
    assert "≥ 150.00" in card
    assert "5.37 % to rise" in card
    assert "fires at or below 134" in card
    # The line from the price to the trigger: the ladder has the higher trigger first.
    xs = "[...document.querySelectorAll('#open li .gap')].map((e) => [e.x1.baseVal.value, e.x2.baseVal.value])"
    (up_from, up_to), (down_from, down_to) = await scene.run(xs)
    assert up_from == pytest.approx(down_from)
    assert up_to > up_from > down_to
    assert (up_to - up_from) / (down_from - down_to) == pytest.approx((150 - 142.35) / (142.35 - 134), rel=0.01)
    assert not await scene.run("[...document.querySelectorAll('[data-cancel]')].some((e) => !e.hidden)")

    world.set_price(sol, 140_000_000)
    await scene.reads("#open .market", "4.29 % to fall")
    world.set_price(sol, 133_900_000)
    await scene.reads("#ended", "filled")
    await scene.sees("document.querySelectorAll('#open .ladder li').length === 1")


async def test_place_by_a_browser_wallet_until_it_is_filled(scene: Scene) -> None:
    world, trader = scene.world, scene.world.trader()
    market = world.market("PLACE/USDC", price_1e6=100_000_000)
    await with_wallet(scene, trader)
    assert await scene.run("document.querySelector('#address').value") == str(trader.address)
    await fill_in(scene, "PLACE/USDC", trigger="97")
    assert "It has to fall 3.00 %" in await scene.text("#preview")
    await scene.click("#place .main")
    await scene.reads("#outcome", "The order is open")
    assert await scene.run("document.querySelectorAll('.steps .done').length") == 4
    assert await scene.run("testWallet.asked") == [{"address": str(trader.address), "chain": "solana:localnet"}]
    (address,) = orders_of(scene, trader)
    order = world.order(address)
    assert order is not None
    assert (order.size_1e6, order.stop_price_1e6, order.leverage) == (1_500_000, 97_000_000, 1)
    await scene.click("#transaction form button")
    await scene.reads("#open .market", "≤ 97.00")

    world.set_price(market, 96_000_000)
    await scene.reads("#ended", "filled")
    assert world.position(address) is not None
    await scene.click("#ended .link")
    await scene.reads("#detail", str(Pubkey.find_program_address([b"position", bytes(address)], world.program.id)[0]))


async def test_cancel_by_a_browser_wallet(scene: Scene) -> None:
    world, trader = scene.world, scene.world.trader()
    order = world.place(trader, world.market("CANCEL/USDC"), stop_price_1e6=90_000_000)
    await with_wallet(scene, trader)
    await scene.sees("document.querySelector('[data-cancel]')")
    await scene.click("[data-cancel]")
    await scene.reads("#outcome", "The order is cancelled")
    await until(lambda: (found := world.order(order)) is not None and found.status is OnchainStatus.CANCELLED)
    await scene.click("#transaction form button")
    await scene.reads("#ended", "cancelled")
    await scene.reads("#open", "no open order")


async def test_a_wallet_that_refuses(scene: Scene) -> None:
    trader = scene.world.trader()
    scene.world.market("REFUSE/USDC")
    await with_wallet(scene, trader)
    await scene.run("testWallet.mood = 'refuse'")
    await fill_in(scene, "REFUSE/USDC", trigger="95")
    await scene.click("#place .main")
    said = await scene.reads("#outcome", "The wallet did not sign")
    assert "User rejected the request.<img" in said, "its words are text, whatever they are"
    assert await scene.run("document.querySelector('#transaction img')") is None
    assert orders_of(scene, trader) == []
    # It changes its mind: what was prepared is signed now.
    await scene.run("testWallet.mood = 'sign'")
    await scene.click("#transaction .main")
    await scene.reads("#outcome", "The order is open")
    assert len(orders_of(scene, trader)) == 1


async def test_a_wallet_that_alters_the_transaction(scene: Scene) -> None:
    trader = scene.world.trader()
    scene.world.market("ALTER/USDC")
    await with_wallet(scene, trader)
    await scene.run("testWallet.mood = 'alter'")
    await fill_in(scene, "ALTER/USDC", trigger="95")
    await scene.click("#place .main")
    await scene.reads("#outcome", "arguments are not the prepared ones")
    assert await scene.run("document.querySelector('.steps .failed').textContent.includes('Checked and relayed')")
    assert orders_of(scene, trader) == []


async def test_what_took_too_long_to_sign_is_prepared_anew_and_placed_once(scene: Scene) -> None:
    world, trader = scene.world, scene.world.trader()
    world.market("LATE/USDC")
    await with_wallet(scene, trader)
    await scene.run("testWallet.mood = 'wait'")
    await fill_in(scene, "LATE/USDC", trigger="95")
    await scene.click("#place .main")
    await scene.sees("testWallet.asked.length === 1")
    height = world.bank.chain.tip.height
    await until(lambda: world.bank.chain.tip.height > height + 160)
    await scene.run("(testWallet.mood = 'sign', testWallet.go(), true)")
    await scene.reads("#outcome", "The order is open")
    assert await scene.run("testWallet.asked.length") == 2
    assert len(orders_of(scene, trader)) == 1


async def test_what_is_closed_before_it_is_signed_goes_nowhere(scene: Scene) -> None:
    trader = scene.world.trader()
    scene.world.market("CLOSED/USDC")
    await with_wallet(scene, trader)
    await scene.run("testWallet.mood = 'wait'")
    await fill_in(scene, "CLOSED/USDC", trigger="95")
    await scene.click("#place .main")
    await scene.sees("testWallet.asked.length === 1")
    await scene.click("#transaction form button")
    await scene.run("(testWallet.mood = 'sign', testWallet.go(), true)")
    # A second order, which is placed, shows that the first had its time.
    await scene.click("#place .main")
    await scene.reads("#outcome", "The order is open")
    assert len(orders_of(scene, trader)) == 1


async def test_a_field_that_is_wrong_is_named(scene: Scene) -> None:
    trader = scene.world.trader()
    scene.world.market("WRONG/USDC")
    await with_wallet(scene, trader)
    await fill_in(scene, "WRONG/USDC", trigger="95", size="1.2345678")
    await scene.click("#place .main")
    await scene.reads("#place-problem", "Size: ")
    assert await scene.run("document.activeElement.name") == "size"
    assert await scene.run("document.querySelector('[name=size]').getAttribute('aria-invalid')") == "true"
    assert await scene.run("document.querySelector('#transaction').open") is False
    assert await scene.run("testWallet.asked.length") == 0


async def test_the_page_remembers_its_wallet_and_follows_its_accounts(scene: Scene) -> None:
    trader = scene.world.trader()
    scene.world.market("STAYS/USDC")
    await with_wallet(scene, trader)
    await scene.do(scene.window.open, f"{scene.keeper.url}/wallet")
    await scene.reads("#connection", "Disconnect")
    assert await scene.run("testWallet.connects") == [True], "it asks nobody when it comes back"
    await scene.run("(testWallet.changeAccounts([]), true)")
    await scene.reads("#connection", "Connect")
    assert await scene.run("document.querySelector('#terms').disabled")


async def test_the_picture_fires_from_the_side_that_the_keeper_fires_from(scene: Scene) -> None:
    await scene.do(scene.window.open, f"{scene.keeper.url}/wallet")
    for kind in REVISION_0_2:
        for side in Side:
            falls = await scene.do(
                scene.window.run,
                "const [order_type, side] = arguments; "
                "return import('/page/format.js').then(({ falls }) => falls({ order_type, side }))",
                kind.word,
                side.word,
            )
            assert falls is (fires_of(kind, side, REVISION_0_2) is Fires.AT_OR_BELOW), (kind, side)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "height"), [(1440, 900), (360, 780)])
async def test_each_screen_and_theme(scene: Scene, tmp_path: Path, width: int, height: int, dark: bool) -> None:
    world, trader = scene.world, scene.world.trader()
    suffix = f"{width}{'D' if dark else 'L'}"
    sol = world.market(f"SOL{suffix}/USDC", price_1e6=142_350_000)
    eth = world.market(f"ETH{suffix}/USDC", price_1e6=3_120_500_000)
    for stop in (128_400_000, 134_000_000, 139_250_000):
        world.place(trader, sol, stop_price_1e6=stop, size_1e6=2_500_000)
    for stop in (150_000_000, 161_500_000):
        world.place(trader, sol, OrderType.TAKE_PROFIT, stop_price_1e6=stop)
    world.place(trader, sol, OrderType.TRAILING_STOP, trailing_distance_ppm=50_000)
    world.place(trader, eth, OrderType.TAKE_PROFIT, Side.SHORT, stop_price_1e6=2_990_000_000)
    await with_wallet(scene, trader, width, height, dark=dark)
    await scene.sees("document.querySelectorAll('#open .ladder li').length === 7")
    world.set_price(sol, 139_200_000)
    await scene.reads("#ended", "filled")
    await scene.sees("document.querySelectorAll('#open .ladder li').length === 6")
    await fill_in(scene, f"SOL{suffix}/USDC", trigger="131.5")
    assert await scene.run("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
    nameless = await scene.run(
        "[...document.querySelectorAll('button, a, input, select, table')].filter((e) => "
        "!(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map((e) => e.outerHTML)"
    )
    assert nameless == []
    assert await scene.do(scene.window.complaints) == []
    folder = Path(os.environ.get("QUANTDESK_SCREENSHOTS", tmp_path))
    theme = "dark" if dark else "light"
    await scene.do(scene.window.screenshot, folder / f"wallet-{width}-{theme}.png")
    await scene.run("document.querySelector('#place .main').scrollIntoView()")
    await scene.click("#place .main")
    await scene.reads("#outcome", "The order is open")
    await scene.do(scene.window.screenshot, folder / f"wallet-{width}-{theme}-placed.png")
