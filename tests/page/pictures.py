"""`python -m tests.page.pictures`: the pictures of docs/wallet-page.md, taken of a real keeper on an embedded chain."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

import anyio

from tests.page.browser import browser, missing
from tests.page.scene import Scene, orders_to_look_at
from tests.support import KeeperConfig, KeeperProcess, World

_FOLDER: Final = Path(__file__).parents[2] / "docs" / "pictures"


async def _take(folder: Path) -> None:
    async with World.open(slot_ms=50) as world:
        sol, eth = world.market("SOL/USDC", price_1e6=142_350_000), world.market("ETH/USDC", price_1e6=3_120_500_000)
        trader = world.trader(collateral_1e6=5_000_000_000)
        orders_to_look_at(world, trader, sol, eth)
        async with KeeperProcess.running(KeeperConfig.beside(world, folder / "keeper")) as keeper:
            for width, height, dark in ((1_100, 920, False), (360, 780, True)):
                with browser(folder / f"profile-{width}") as window:
                    scene = Scene(world, keeper, window)
                    await scene.connect(trader, width, height, dark=dark, name="Example wallet")
                    world.set_price(sol, 139_200_000)
                    await scene.reads("#open", "long position")
                    world.set_price(eth, 3_120_500_000)
                    world.set_price(sol, 141_050_000)
                    await scene.reads("#open", "+4.63")
                    await scene.do(window.screenshot, _FOLDER / f"wallet-{width}.png", width > 600)
                    if width > 600:
                        await scene.do(window.open, f"{keeper.url}/")
                        await scene.reads("#executions", "executed")
                        await scene.reads("#orders", "trailing stop")
                        await scene.do(window.screenshot, _FOLDER / "overview.png", False)
                    else:
                        await scene.fill_in("SOL/USDC", trigger="131.5")
                        await scene.run("document.querySelector('#place .main').scrollIntoView({ block: 'end' })")
                        await scene.click("#place .main")
                        await scene.reads("#outcome", "The order is open")
                        await scene.do(window.screenshot, _FOLDER / "wallet-placed.png", False)


def main() -> int:
    """Write the pictures; 1 when there is no browser to take them with."""
    if (why := missing()) is not None:
        sys.stderr.write(f"{why}\n")
        return 1
    _FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(_take, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
