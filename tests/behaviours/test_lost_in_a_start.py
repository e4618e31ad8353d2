"""The database goes away between the lease and ready: the keeper stands by, and starts anew."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import anyio
import httpx
import pytest

from keeper.domain.orders import OrderState
from tests.behaviours.stand import FAST, Stand
from tests.behaviours.test_standing_by import Life
from tests.behaviours.test_two_keepers import executed_once
from tests.chaos.cable import Cable
from tests.chaos.fleet import is_stopped
from tests.support import KeeperConfig, KeeperProcess, until
from tests.support.keeper_process import START_WITHIN_S
from tests.support.postgres import fresh_database, kill, missing, server

if why := missing():
    pytest.skip(why, allow_module_level=True)

from keeper.demo.postgres import PostgresServer

pytestmark = pytest.mark.anyio
_TAKE = b"INSERT INTO leases"
_ANEW = "the start was given up and begins anew"


async def test_a_database_that_is_killed_during_recovery_is_waited_for(tmp_path: Path) -> None:
    with PostgresServer.running() as server:
        async with Stand.open(tmp_path, journal={"url": server.url()}, cluster={"lease_s": 1.0}) as stand:
            market, trader = stand.world.market(), stand.world.trader()
            first, second = stand.order(trader, market), stand.order(trader, market, stop_usd=90)
            keeper = await KeeperProcess.start(stand.config, crash_at="sent")
            await keeper.ready()
            await stand.known(first, second)
            stand.world.set_price(market, 94_000_000)
            assert await keeper.wait() == -signal.SIGKILL
            await until(lambda: stand.landed(first))

            again = await KeeperProcess.start(stand.config, crash_at="recovering:1:stop")
            await until(lambda: is_stopped(again.process.pid), within_s=START_WITHIN_S)
            sent = len(stand.sends)
            kill(server)
            stand.journal.close()
            stand.witness.journal = None
            stand.world.set_price(market, 89_000_000)
            again.process.send_signal(signal.SIGCONT)
            async with httpx.AsyncClient(base_url=await where(stand.config)) as http:
                health = (await http.get("/healthz")).json()
                assert not health["ready"]
                assert any("can't be reached" in str(check["detail"]) for check in health["checks"]), health
            assert len(stand.sends) == sent, "nothing is sent that is not committed"
            server.start()
            await again.ready()
            for order in (first, second):
                await stand.reach(order, OrderState.FILLED)
                (attempt,) = stand.attempts(order)
                assert stand.landed(order) == 1
                assert {*stand.sent(order)} == {attempt.wire}
            assert await again.stop() == 0


async def where(config: KeeperConfig) -> str:
    """Where a keeper answers that stands by since its start was given up."""
    said: list[str] = []

    def answers() -> bool:
        since = config.log.read_text().partition(_ANEW)[2]
        said[:] = [word for word in since.split() if word.startswith("http://")]
        return bool(said)

    await until(answers)
    return said[0]


class Breaking(Cable):
    """Tears at the n-th piece of what the keeper and the server say, from where the service's lease is taken."""

    def __init__(self, socket_file: str, at: int) -> None:
        super().__init__(socket_file)
        self._left = at
        self._takes = 0

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            # The first one that it takes is on its name.
            self._takes += data.count(_TAKE)
            if self._takes >= 2:
                self._left -= 1
                if self._left == 0:
                    self.tear()
                    return
            target.write(data)


@pytest.mark.parametrize("at", [4, 26, *(pytest.param(n, marks=pytest.mark.long) for n in range(2, 60, 4) if n != 26)])
async def test_wherever_a_start_loses_its_database_it_begins_anew(tmp_path: Path, at: int) -> None:
    """At 4 it is the answer to the COMMIT of the lease, at 26 a question of the start's."""
    async with Breaking(server().socket_file, at) as cable:
        url = fresh_database()
        through = f"postgresql://postgres@127.0.0.1:{cable.port}/{url.partition('///')[2].partition('?')[0]}"
        async with Stand.open(tmp_path, journal={"url": url}) as stand, anyio.create_task_group() as tasks:
            rpc = {**FAST["rpc"], "url": stand.proxies[0].rpc_url, "ws_url": stand.proxies[0].ws_url}
            settings = {**FAST, "rpc": rpc, "journal": {"url": through}, "cluster": {"lease_s": 1.0}}
            life = Life(KeeperConfig.at(tmp_path / "a", stand.config.key, **settings))
            tasks.start_soon(life.run)
            await until(lambda: life.told or life.ready)
            cable.mend()
            await until(lambda: life.ready)
            market, trader = stand.world.market(), stand.world.trader()
            order = stand.order(trader, market)
            await stand.known(order)
            stand.world.set_price(market, 94_000_000)
            await executed_once(stand, order)
            await life.stop()
