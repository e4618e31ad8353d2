"""Promise 7 for the database: the password of `journal.url` is in nothing that a keeper, or a command, says."""

from __future__ import annotations

import sys
from hashlib import sha256
from pathlib import Path
from typing import Final

import anyio
import httpx
import pytest

from keeper.domain.orders import OrderState
from tests.behaviours.stand import FAST, Stand
from tests.behaviours.test_two_keepers import beside, readiness
from tests.chaos.cable import Cable
from tests.support import KeeperConfig, KeeperProcess
from tests.support.postgres import fresh_database, missing, server

if why := missing():
    pytest.skip(why, allow_module_level=True)

pytestmark = [pytest.mark.anyio, pytest.mark.long]
_PASSWORD: Final = "hunter2-is-secret"
_TOKEN: Final = "the operator's"
_ROUTES: Final = ("/healthz", "/readyz", "/metrics", "/v1/keeper", "/v1/admin/status", "/v1/admin/settings")
_COMMANDS: Final = (("check",), ("check", "--show"), ("journal", "verify"))


@pytest.mark.parametrize("form", ["postgres:{}@{}", "postgres@{1}?password={0}"], ids=["user", "parameter"])
async def test_the_journals_password_is_in_nothing_that_is_said(tmp_path: Path, form: str) -> None:
    """With the database there, cut off, and there again; by the keeper that works, and by one that stands by."""
    url = fresh_database()
    database = url.partition("///")[2].partition("?")[0]
    said: list[str] = []
    async with Cable(server().socket_file) as cable, Stand.open(tmp_path, journal={"url": url}) as stand:
        login = form.format(_PASSWORD, f"127.0.0.1:{cable.port}/{database}")
        rpc = {**FAST["rpc"], "url": stand.proxies[0].rpc_url, "ws_url": stand.proxies[0].ws_url}
        http = {"admin_token_sha256": sha256(_TOKEN.encode()).hexdigest()}
        settings = {**FAST, "rpc": rpc, "http": http, "journal": {"url": f"postgresql://{login}"}}
        a, b = (
            KeeperConfig.at(tmp_path / name, stand.config.key, **settings, cluster={"name": name, "lease_s": 60.0})
            for name in "ab"
        )
        market, trader = stand.world.market(), stand.world.trader()
        async with KeeperProcess.running(a) as keeper:
            headers = {"Authorization": f"Bearer {_TOKEN}"}
            async with httpx.AsyncClient(base_url=keeper.url, headers=headers, timeout=30.0) as api:

                async def ask(*commands: tuple[str, ...]) -> None:
                    for route in _ROUTES:
                        said.append((await api.get(route)).text)
                    for command in commands:
                        words = [sys.executable, "-m", "keeper", *command, "--config", str(a.file)]
                        done = await anyio.run_process(words, check=False)
                        said.append((done.stdout + done.stderr).decode())

                order = stand.order(trader, market)
                await stand.known(order)
                await ask(*_COMMANDS)
                cable.tear()
                await readiness(api, 503)
                await ask(("journal", "verify"))
                cable.mend()
                stand.world.set_price(market, 100_000_000)  # a market whose price is old is not ready either
                await readiness(api, 200)
                # Only now, or it would take over from a machine that is slow to run a command.
                async with beside(b):
                    stand.world.set_price(market, 94_000_000)
                    await stand.reach(order, OrderState.FILLED)
    said += [config.log.read_text() for config in (a, b)]
    assert any("can't be reached" in text for text in said), "or nothing was said of the database"
    assert [text for text in said if _PASSWORD in text] == []
