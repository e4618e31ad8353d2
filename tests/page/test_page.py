"""The page at /, in a real browser, of a real keeper on a chain where orders rest, fill and fail.

Set QUANTDESK_SCREENSHOTS to a folder to keep the pictures.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from solders.pubkey import Pubkey

from keeper.domain.orders import OrderType, Side
from tests.page.browser import Browser, browser, missing
from tests.page.scene import Scene
from tests.support import KeeperConfig, KeeperProcess, Trader, World, until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

USDC = 1_000_000


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@dataclass
class Busy(Scene):
    """Orders of one trader rest on two markets, and one more is of somebody who can't pay."""

    sol: Pubkey
    trader: Trader


@asynccontextmanager
async def busy(folder: Path, window: Browser) -> AsyncIterator[Busy]:
    """A world and a keeper of one's own."""
    async with World.open(slot_ms=50) as world:
        sol, eth = world.market("SOL/USDC", price_1e6=142_350_000), world.market("ETH/USDC", price_1e6=3_120_500_000)
        trader, poor = world.trader(), world.trader(collateral_1e6=0)
        for n in range(24):
            far = (n * 7 % 12 + 1) * 1_150_000
            world.place(trader, sol, stop_price_1e6=142_350_000 - far - 8_000_000, size_1e6=500_000 * (n % 5 + 1))
            world.place(trader, sol, OrderType.TAKE_PROFIT, stop_price_1e6=142_350_000 + far + 9_000_000)
        for n in range(6):
            world.place(trader, sol, stop_price_1e6=142_000_000 - n * 100_000)
            world.place(trader, eth, OrderType.TAKE_PROFIT, Side.SHORT, stop_price_1e6=(3_000 - 20 * n) * USDC)
        world.place(trader, eth, OrderType.TRAILING_STOP, trailing_distance_ppm=50_000)
        world.place(poor, sol, stop_price_1e6=141_900_000)
        config = KeeperConfig.beside(world, folder, execution={"retry_budget": 1})
        async with KeeperProcess.running(config) as keeper:
            # What rested before the keeper came is noted bit by bit, and what was noted last is the page's first.
            with config.reading() as journal:
                await until(lambda: sum(row.reason.startswith("It rests") for row in journal.orders().items) == 62)
            yield Busy(world, keeper, window, sol, trader)


@pytest.fixture(scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory, window: Browser, anyio_backend: str) -> AsyncIterator[Busy]:
    """Shared by the tests that do not care what was executed before."""
    async with busy(tmp_path_factory.mktemp("keeper"), window) as shared:
        yield shared


async def open_page(scene: Busy, width: int = 1400, height: int = 900, *, dark: bool = False) -> None:
    await scene.do(lambda: scene.window.show_as(width, height, dark=dark))
    await scene.do(scene.window.open, scene.keeper.url + "/")
    await scene.sees("document.querySelectorAll('.card').length === 2")
    await scene.sees("document.querySelector('#stream').textContent === 'live'")
    await scene.sees("document.querySelector('#health').textContent === 'ready'")


async def test_markets_orders_executions_and_failures(tmp_path: Path, window: Browser) -> None:
    async with busy(tmp_path, window) as scene:
        await fills_and_failures(scene)


async def fills_and_failures(scene: Busy) -> None:
    await open_page(scene)
    assert "142.35" in await scene.text("[data-market='SOL/USDC']")
    assert await scene.run("document.querySelectorAll('[data-market=\"SOL/USDC\"] rect').length") > 8
    await scene.sees("document.querySelectorAll('#orders tbody tr').length > 30")
    assert "Nothing was executed yet" in await scene.text("#executions")

    scene.world.set_price(scene.sol, 141_300_000)
    await scene.sees("[...document.querySelectorAll('#executions tbody tr')].length >= 6")
    await scene.sees("document.querySelector('#latency').textContent.startsWith('median')")
    await scene.sees("document.querySelector('#failures').innerText.includes('InsufficientCollateral')")
    await scene.sees("document.querySelector('[data-market=\"SOL/USDC\"] .price').textContent.startsWith('141.30')")
    await scene.sees("document.querySelector('#filled').textContent === '6'")
    assert "ms" in await scene.text("#executions tbody tr:first-child")
    assert "SOL" in await scene.text("#balance")


async def test_a_new_order_arrives_by_the_stream(scene: Busy) -> None:
    await open_page(scene)
    scene.world.place(scene.trader, scene.sol, stop_price_1e6=123_450_000)
    await scene.sees("document.querySelector('#orders tbody').innerText.includes('123.45')")


async def test_one_order_in_full(scene: Busy) -> None:
    scene.world.set_price(scene.sol, 141_300_000)
    await open_page(scene)
    await scene.sees("document.querySelector('#executions .link')")
    await scene.click("#executions .link")
    await scene.sees("document.querySelector('#detail[open] .attempt')")
    detail = await scene.text("#detail")
    assert "execute 1" in detail
    assert "Position" in detail
    await scene.click("#detail button")
    assert await scene.run("document.querySelector('#detail').open") is False


async def test_filters(scene: Busy) -> None:
    await open_page(scene)
    await scene.run(
        "(document.querySelector('#market').value = 'ETH/USDC', "
        "document.querySelector('#market').dispatchEvent(new Event('change')))"
    )
    await scene.sees("[...document.querySelectorAll('#orders tbody td[data-label=Market]')].length === 7")
    await scene.type("#user", str(Pubkey.new_unique()) + "\n")
    await scene.sees("document.querySelector('#orders').innerText.includes('No order is live')")
    await scene.type("#user", "no wallet\n")
    assert await scene.run("document.querySelector('#user').getAttribute('aria-invalid')") == "true"


async def test_it_loads_nothing_from_elsewhere_and_breaks_no_rule_of_its_own(scene: Busy) -> None:
    await scene.do(scene.window.complaints)
    await open_page(scene)
    loaded = await scene.run("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert loaded
    assert {str(httpx.URL(url).copy_with(raw_path=b"/")) for url in loaded} == {scene.keeper.url + "/"}
    assert await scene.do(scene.window.complaints) == []
    await scene.run("document.body.insertAdjacentHTML('beforeend', '<img src=\"http://192.0.2.1/x.png\">')")
    assert any("Content Security Policy" in line for line in await scene.do(scene.window.complaints))


async def test_every_control_and_picture_has_a_name(scene: Busy) -> None:
    await open_page(scene)
    nameless = await scene.run(
        "[...document.querySelectorAll('button, a, input, select, svg[role=img], table')].filter((e) => "
        "!(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map((e) => e.outerHTML)"
    )
    assert nameless == []
    assert await scene.run("document.documentElement.lang") == "en"
    levels = await scene.run("[...document.querySelectorAll('h1, h2, h3')].map((e) => e.tagName)")
    assert levels[0] == "H1"
    assert levels.count("H1") == 1


async def test_the_page_to_try_the_api(scene: Busy) -> None:
    await scene.do(scene.window.complaints)
    await scene.do(scene.window.open, scene.keeper.url + "/docs")
    await scene.sees("document.querySelectorAll('.operation').length > 10")
    market = "[...document.querySelectorAll('.operation')].find((e) => e.innerText.includes('{base}'))"
    await scene.run(f"({market}.id = 'tried', document.querySelector('#tried').open = true)")
    await scene.type("#tried input[name=base]", "SOL")
    await scene.type("#tried input[name=quote]", "USDC")
    await scene.click("#tried .send")
    await scene.sees("document.querySelector('#tried pre').textContent.includes('\"market\": \"SOL/USDC\"')")
    assert await scene.do(scene.window.complaints) == []
    if folder := os.environ.get("QUANTDESK_SCREENSHOTS"):
        await scene.do(scene.window.screenshot, Path(folder) / "docs.png")


@pytest.mark.long
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "height"), [(1400, 900), (390, 844)])
async def test_each_screen_and_theme(scene: Busy, tmp_path: Path, width: int, height: int, dark: bool) -> None:
    await open_page(scene, width, height, dark=dark)
    await scene.sees("document.querySelector('#executions tbody tr')")
    await scene.sees("document.querySelector('#balance').textContent !== '–'")
    assert await scene.run("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
    ground = "getComputedStyle(document.body).backgroundColor"
    shown = await scene.run(ground)
    assert (shown == "rgb(14, 19, 24)") is dark
    folder = Path(os.environ.get("QUANTDESK_SCREENSHOTS", tmp_path))
    file = folder / f"page-{width}-{'dark' if dark else 'light'}.png"
    await scene.do(scene.window.screenshot, file)
    assert file.stat().st_size > 10_000
    await scene.click("#theme")
    assert await scene.run(ground) != shown
    await scene.run("localStorage.clear()")


@pytest.mark.long
async def test_a_keeper_that_is_gone_is_shown(tmp_path: Path, window: Browser) -> None:
    async with busy(tmp_path, window) as scene:
        await open_page(scene)
        await scene.keeper.stop()
        await scene.sees("!document.querySelector('#trouble').hidden")
        assert "does not answer" in await scene.text("#trouble")
        await scene.sees("document.querySelector('#stream').textContent === 'reconnecting'")
