"""What tests of several folders share: a world on an embedded chain, and a keeper that is a real process.

async with World.open() as world:
    market = world.market("SOL/USDC", price_1e6=100_000_000)
    trader = world.trader()
    order = world.place(trader, market, stop_price_1e6=95_000_000)
    config = KeeperConfig.beside(world, folder)
    async with KeeperProcess.running(config) as keeper:
        world.set_price(market, 94_000_000)
        await until(lambda: world.order(order).status is OnchainStatus.FILLED)
"""

from tests.support.keeper_process import KeeperConfig, KeeperProcess
from tests.support.waiting import BOUND_S, until
from tests.support.world import PROGRAM, Refused, Trader, World

__all__ = ["BOUND_S", "PROGRAM", "KeeperConfig", "KeeperProcess", "Refused", "Trader", "World", "until"]
