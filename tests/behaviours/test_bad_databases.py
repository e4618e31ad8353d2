"""What a keeper does not start on: one line that says what to do, exit code 2, and nothing is sent."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import anyio
import pytest
from solders.keypair import Keypair

from keeper.journal import GENESIS, PROGRAM, Journal, SetMeta
from tests.behaviours.stand import FAST, Stand
from tests.chaos.cable import Cable
from tests.support import KeeperConfig, KeeperProcess, pgbouncer
from tests.support.keeper_process import START_WITHIN_S
from tests.support.postgres import fresh_database, missing, server

if why := missing():
    pytest.skip(why, allow_module_level=True)

import psycopg

from keeper.demo.postgres import PostgresServer
from keeper.journal.postgres.home import PostgresHome

pytestmark = [pytest.mark.anyio, pytest.mark.long]
_ANOTHER: Final = str(Keypair().pubkey())


class OlderServer(Cable):
    """The way to a server that says of itself that it is PostgreSQL 13."""

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            target.write(re.sub(rb"server_version\x00\d\d", b"server_version\x0013", data))


def changed(*statements: str) -> str:
    """A database in which somebody has said this."""
    url = fresh_database()
    with psycopg.connect(url, autocommit=True) as admin:
        for statement in statements:
            admin.execute(statement.format(database=admin.info.dbname).encode())
    return url


async def of_another(key: str) -> str:
    url = fresh_database()
    async with Journal.open(url) as journal:
        await journal.commit(SetMeta(key, _ANOTHER))
    return url


def newer() -> str:
    url = fresh_database()
    PostgresHome(url).open_store(lambda: None).close()
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("UPDATE keeper_journal SET version = 99")
    return url


@pytest.fixture
def without_fsync() -> Iterator[str]:
    with PostgresServer.running() as server:
        server.stop()
        server.start(fsync="off")
        yield server.url()


async def test_a_keeper_refuses_a_bad_database_in_one_line_and_sends_nothing(
    tmp_path: Path, without_fsync: str
) -> None:
    poor = changed("CREATE ROLE poor LOGIN", "ALTER SCHEMA public OWNER TO postgres")
    twice = fresh_database()
    good = PostgresHome(twice, "twin", 60.0).open_store(lambda: None)
    cases = {
        "fsync off": (without_fsync, "Set fsync = on"),
        "commits": (changed("ALTER DATABASE {database} SET synchronous_commit = off"), "Set synchronous_commit = on"),
        "rights": (poor.replace("user=postgres", "user=poor"), "Make it the owner of the database"),
        "tables": (changed("CREATE TABLE orders (pizza text)"), "Give the keeper a database of its own"),
        "newer": (newer(), "Run the newer keeper"),
        "chain": (await of_another(GENESIS), f"belongs to another chain (genesis {_ANOTHER}"),
        "program": (await of_another(PROGRAM), f"belongs to another program (address {_ANOTHER}"),
        "away": ("postgresql://k:hunter2@127.0.0.1:1/keeper", "can't be reached"),
        "no URL": ("postgresql://k:hunter2@db/keeper?no_such=1", "journal.url is no URL"),
        "one name": (twice, "Give each a cluster.name"),
    }
    async with Stand.open(tmp_path) as stand, OlderServer(server().socket_file) as older:
        cases["old"] = (f"postgresql://postgres@127.0.0.1:{older.port}/postgres", "needs 15 or later")
        with ExitStack() as stack:
            if pgbouncer.missing() is None:
                folder = stack.enter_context(pgbouncer.pooling(server(), "statement"))
                cases["pooler"] = (pgbouncer.url("postgres", folder), "Set its pool_mode = transaction")
            market = stand.world.market()
            stand.order(stand.world.trader(), market)
            stand.world.set_price(market, 94_000_000)
            async with anyio.create_task_group() as tasks:
                for name, (url, says) in cases.items():
                    tasks.start_soon(refused, stand, tmp_path / name, url, says)
        assert stand.sends == []
    good.close()


async def refused(stand: Stand, folder: Path, url: str, says: str) -> None:
    rpc = {**FAST["rpc"], "url": stand.proxies[0].rpc_url, "ws_url": stand.proxies[0].ws_url}
    settings = {**FAST, "rpc": rpc, "journal": {"url": url}, "cluster": {"name": "twin"}}
    config = KeeperConfig.at(folder, stand.config.key, **settings)
    keeper = await KeeperProcess.start(config)
    assert await keeper.wait(within_s=START_WITHIN_S) == 2, config.log.read_text()
    log = config.log.read_text()
    said = [line for line in log.splitlines() if not line.startswith("{")]
    assert len(said) == 1, log
    assert says in said[0]
    assert "hunter2" not in log
