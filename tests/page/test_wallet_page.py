"""A wallet's page, in a real browser: its orders are drawn, and a browser wallet places and cancels.

Each test has a market and a wallet of its own. Set QUANTDESK_SCREENSHOTS to a folder to keep the pictures.
"""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from keeper.domain.orders import REVISION_0_2, OnchainStatus, OrderType, Side
from keeper.domain.prices import Fires
from keeper.triggers.conditions import fires_of
from tests.page.browser import browser, missing
from tests.page.scene import Scene, orders_to_look_at
from tests.support import KeeperConfig, KeeperProcess, Trader, World, until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

_ENTER, _ESCAPE = "\ue007", "\ue00c"
"""Keys, as WebDriver writes them."""
_CANCEL, _CHANGE = "[data-act=cancel]", "[data-act=change]"


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


def orders_of(scene: Scene, trader: Trader) -> list[Pubkey]:
    """Every order that the wallet has on chain, by the journal that the keeper keeps."""
    with scene.keeper.config.reading() as queries:
        return [row.address for row in queries.orders(user=trader.address, limit=100).items if row.order.slot]


async def test_a_wallets_orders_are_told_and_drawn(scene: Scene) -> None:
    world, trader = scene.world, scene.world.trader()
    sol = world.market("DRAWN/USDC", price_1e6=142_350_000)
    world.place(trader, sol, stop_price_1e6=134_000_000)
    world.place(trader, sol, OrderType.TAKE_PROFIT, stop_price_1e6=150_000_000)
    await scene.look_at(trader)
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
    assert not await scene.run("[...document.querySelectorAll('.act')].some((e) => !e.hidden)")

    world.set_price(sol, 140_000_000)
    await scene.reads("#open .market", "4.29 % to fall")
    world.set_price(sol, 133_900_000)
    await scene.reads("#ended", "filled")
    await scene.sees("document.querySelectorAll('#open .act').length === 1")


async def test_names_from_the_chain_are_text(scene: Scene) -> None:
    world, trader = scene.world, scene.world.trader()
    world.place(trader, world.market("<b>X</b>/USDC"), stop_price_1e6=90_000_000)
    await scene.look_at(trader)
    assert "<b>X</b>/USDC" in await scene.reads("#open .market", "≤ 90.00")
    await scene.reads("[name=market]", "<b>X</b>/USDC")
    assert await scene.run("document.querySelector('b')") is None


async def test_place_by_a_browser_wallet_until_it_is_filled(scene: Scene) -> None:
    world, trader = scene.world, scene.world.trader()
    market = world.market("PLACE/USDC", price_1e6=100_000_000)
    await scene.connect(trader)
    assert await scene.run("document.querySelector('#address').value") == str(trader.address)
    await scene.fill_in("PLACE/USDC", trigger="97")
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
    held = await scene.reads("#open .market", "long position")
    assert "Entered at 96.00" in held
    assert "liquidated at" in held
    await scene.reads("#held", "1 of")
    world.set_price(market, 97_000_000)
    await scene.reads("#open .market", "+1.50 USDC")
    await scene.click("#ended .link")
    await scene.reads("#detail", str(Pubkey.find_program_address([b"position", bytes(address)], world.program.id)[0]))


async def test_cancel_by_a_browser_wallet_and_the_keyboard(scene: Scene) -> None:
    world, trader = scene.world, scene.world.trader()
    market = world.market("CANCEL/USDC")
    order = world.place(trader, market, stop_price_1e6=90_000_000)
    await scene.connect(trader)
    await scene.sees(f"document.querySelector(`{_CANCEL}`)")
    await scene.run(f"document.querySelector(`{_CANCEL}`).focus()")
    world.set_price(market, 99_000_000)
    await scene.reads("#open .market", "9.09 % to fall")
    assert await scene.run("document.activeElement.parentElement.dataset.order") == str(order), (
        "a new price takes no focus away"
    )
    await scene.type(_CANCEL, _ENTER)
    await scene.reads("#outcome", "The order is cancelled")
    await until(lambda: (found := world.order(order)) is not None and found.status is OnchainStatus.CANCELLED)
    await scene.type("body", _ESCAPE)
    await scene.sees("!document.querySelector('#transaction').open")
    await scene.reads("#ended", "cancelled")
    await scene.reads("#open", "no open order and no position")


async def test_change_an_order(scene: Scene) -> None:
    world, trader = scene.world, scene.world.trader()
    old = world.place(trader, world.market("CHANGE/USDC"), stop_price_1e6=90_000_000)
    await scene.connect(trader)
    await scene.sees(f"document.querySelector(`{_CHANGE}`)")
    await scene.click(_CHANGE)
    await scene.reads("#place-title", "Change an order")
    await scene.click("#submit")
    await scene.reads("#place-problem", "Nothing is different yet")
    await scene.run("document.querySelector('[name=trigger_price]').value = ''")
    await scene.type("[name=trigger_price]", "92.5")
    await scene.click("#submit")
    await scene.reads("#outcome", "The order is open")
    await scene.click("#transaction form button")
    assert await scene.text("#place-title") == "Place an order"
    await scene.reads("#open", "≤ 92.50")
    await scene.reads("#ended", "cancelled")
    was = world.order(old)
    assert was is None or was.status is OnchainStatus.CANCELLED
    (new,) = set(orders_of(scene, trader)) - {old}
    order = world.order(new)
    assert order is not None
    assert (order.stop_price_1e6, order.size_1e6, order.leverage) == (92_500_000, 1_000_000, 5), "the rest stays"


@pytest.mark.long
async def test_cancel_all(scene: Scene) -> None:
    world, trader = scene.world, scene.world.trader()
    market = world.market("ALL/USDC")
    orders = [world.place(trader, market, stop_price_1e6=70_000_000 + n * 1_000_000) for n in range(18)]
    await scene.connect(trader)
    await scene.sees("document.querySelectorAll('#open .act').length === 18")
    await scene.click("#cancel-all")
    await scene.reads("#open", "no open order and no position")
    assert all((o := world.order(order)) is None or o.status is OnchainStatus.CANCELLED for order in orders)
    assert await scene.run("testWallet.asked.length") == 2, "sixteen fit into one transaction"


@pytest.mark.long
async def test_a_wallet_that_refuses(scene: Scene) -> None:
    trader = scene.world.trader()
    scene.world.market("REFUSE/USDC")
    await scene.connect(trader)
    await scene.run("testWallet.mood = 'refuse'")
    await scene.fill_in("REFUSE/USDC", trigger="95")
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


@pytest.mark.long
async def test_a_wallet_that_alters_the_transaction(scene: Scene) -> None:
    trader = scene.world.trader()
    scene.world.market("ALTER/USDC")
    await scene.connect(trader)
    await scene.run("testWallet.mood = 'alter'")
    await scene.fill_in("ALTER/USDC", trigger="95")
    await scene.click("#place .main")
    await scene.reads("#outcome", "arguments are not the prepared ones")
    assert await scene.run("document.querySelector('.steps .failed').textContent.includes('Checked and relayed')")
    assert orders_of(scene, trader) == []


async def test_a_wallet_without_a_margin_account_is_warned(scene: Scene) -> None:
    await scene.look_at(scene.world.trader(account=False))
    await scene.sees("!document.querySelector('#no-account').hidden")
    assert await scene.run("document.querySelector('#margin').hidden")


@pytest.mark.long
async def test_what_took_too_long_to_sign_is_prepared_anew_and_placed_once(scene: Scene) -> None:
    world, trader = scene.world, scene.world.trader()
    world.market("LATE/USDC")
    await scene.connect(trader)
    await scene.run("testWallet.mood = 'wait'")
    await scene.fill_in("LATE/USDC", trigger="95")
    await scene.click("#place .main")
    await scene.sees("testWallet.signed")
    height = world.bank.chain.tip.height
    await until(lambda: world.bank.chain.tip.height > height + 160)
    await scene.run("(testWallet.mood = 'sign', testWallet.go(), true)")
    await scene.reads("#outcome", "The order is open")
    assert await scene.run("testWallet.asked.length") == 2
    assert len(orders_of(scene, trader)) == 1


async def test_what_the_wallet_sent_by_itself_is_not_placed_again(scene: Scene) -> None:
    world, trader = scene.world, scene.world.trader()
    world.market("SENT/USDC")
    await scene.connect(trader)
    await scene.run("testWallet.mood = 'wait'")
    await scene.fill_in("SENT/USDC", trigger="95")
    await scene.click("#place .main")
    signed = base64.b64decode(await scene.sees("testWallet.signed"))
    landed = world.bank.land(VersionedTransaction.from_bytes(signed))
    assert not isinstance(landed, str), landed
    await until(lambda: world.bank.chain.tip.height > landed.slot + 160)
    await scene.run("(testWallet.mood = 'sign', testWallet.go(), true)")
    await scene.reads("#outcome", "The order is open")
    assert await scene.run("testWallet.asked.length") == 1
    assert len(orders_of(scene, trader)) == 1


@pytest.mark.long
async def test_what_is_closed_before_it_is_signed_goes_nowhere(scene: Scene) -> None:
    trader = scene.world.trader()
    scene.world.market("CLOSED/USDC")
    await scene.connect(trader)
    await scene.run("testWallet.mood = 'wait'")
    await scene.fill_in("CLOSED/USDC", trigger="95")
    await scene.click("#place .main")
    await scene.sees("testWallet.signed")
    await scene.click("#transaction form button")
    await scene.run("(testWallet.mood = 'sign', testWallet.go(), true)")
    # A second order, which is placed, shows that the first had its time.
    await scene.click("#place .main")
    await scene.reads("#outcome", "The order is open")
    assert len(orders_of(scene, trader)) == 1


async def test_a_field_that_is_wrong_is_named(scene: Scene) -> None:
    trader = scene.world.trader()
    scene.world.market("WRONG/USDC")
    await scene.connect(trader)
    await scene.fill_in("WRONG/USDC", trigger="95", size="1.2345678")
    await scene.click("#place .main")
    await scene.reads("#place-problem", "Size: ")
    assert await scene.run("document.activeElement.name") == "size"
    assert await scene.run("document.querySelector('[name=size]').getAttribute('aria-invalid')") == "true"
    assert await scene.run("document.querySelector('#transaction').open") is False
    assert await scene.run("testWallet.asked.length") == 0


@pytest.mark.long
async def test_the_page_remembers_its_wallet_and_follows_its_accounts(scene: Scene) -> None:
    trader = scene.world.trader()
    scene.world.market("STAYS/USDC")
    await scene.connect(trader)
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


@pytest.mark.long
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "height"), [(1440, 900), (360, 780)])
async def test_each_screen_and_theme(scene: Scene, tmp_path: Path, width: int, height: int, dark: bool) -> None:
    world, trader = scene.world, scene.world.trader()
    suffix = f"{width}{'D' if dark else 'L'}"
    sol = world.market(f"SOL{suffix}/USDC", price_1e6=142_350_000)
    orders_to_look_at(world, trader, sol, world.market(f"ETH{suffix}/USDC", price_1e6=3_120_500_000))
    await scene.connect(trader, width, height, dark=dark)
    await scene.sees("document.querySelectorAll('#open .ladder li').length === 7")
    world.set_price(sol, 139_200_000)
    await scene.reads("#ended", "filled")
    await scene.reads("#open", "long position")
    await scene.fill_in(f"SOL{suffix}/USDC", trigger="131.5")
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
