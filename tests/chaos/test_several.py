"""What watches several keepers sees what it is there for, and a cable does what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from tests.support import BOUND_S, World
from tests.support.postgres import fresh_database, missing

if why := missing():
    pytest.skip(why, allow_module_level=True)

from keeper.journal.looking import SERVICE
from keeper.journal.postgres.connection import Database, Place
from keeper.journal.postgres.home import PostgresHome
from tests.chaos import several
from tests.chaos.cable import Cable
from tests.chaos.fleet import Fleet
from tests.chaos.several import SeveralWitness, guard, unlawful

pytestmark = pytest.mark.anyio


@pytest.fixture
def url() -> Iterator[str]:
    """A database in which k2 works."""
    url = fresh_database()
    store = PostgresHome(url, "k2", 60.0).open_store(lambda: None)
    guard(url)
    yield url
    store.close()


def test_a_lease_taken_while_another_runs_is_noted(url: str) -> None:
    db = Database(Place(url))
    take = "UPDATE leases SET holder = 'k1', life = 'another', term = term + 1"
    db.run(f"UPDATE leases SET until = clock_timestamp() WHERE what = '{SERVICE}'")
    db.run(f"{take} WHERE what = '{SERVICE}'")
    assert unlawful(url) == []
    db.run("UPDATE leases SET until = clock_timestamp() + interval '1 minute'")
    db.run(take.replace("k1", "k3").replace("another", "a third"))
    assert unlawful(url) == ["k3 took over in term 3 while the lease of k1 ran"]
    db.close()


def test_what_is_written_without_the_lease_is_noted(url: str) -> None:
    db = Database(Place(f"{url}&application_name=k2"))
    writing = "UPDATE orders SET reason = ''"
    db.run(writing)
    assert unlawful(url) == []
    db.run(f"UPDATE leases SET holder = 'k1' WHERE what = '{SERVICE}'")
    db.run(writing)
    assert unlawful(url) == ["k2 wrote orders in term 1 of k1"]
    db.close()


async def test_a_keeper_that_sends_when_another_has_the_lease_is_seen(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with World.open() as world:
        witness = SeveralWitness(world.bank, Fleet([], seed=""))
        witness.attend(Database(Place(url)))
        witness.hold_to_lease("k2")
        assert witness.counts["sends after a takeover"] == 0
        monkeypatch.setattr(several, "LATE_S", 600.0)
        witness.hold_to_lease("k1")
        assert (witness.counts["sends after a takeover"], witness.violations) == (1, [])
        monkeypatch.setattr(several, "LATE_S", -1.0)
        witness.hold_to_lease("k1")
        (violation,) = witness.violations
        assert "k2 had taken over: two keepers send" in violation
        witness.attend(None)


@asynccontextmanager
async def echoing(folder: Path) -> AsyncIterator[Cable]:
    """A cable to a server that says again what it is told."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while said := await reader.read(1_000):
            writer.write(said)
        writer.close()

    file = str(folder / "socket")
    async with await asyncio.start_unix_server(echo, file), Cable(file) as cable:
        yield cable


async def test_a_cable_that_is_cut_holds_what_was_said(tmp_path: Path) -> None:
    async with echoing(tmp_path) as cable, await anyio.connect_tcp("127.0.0.1", cable.port) as client:
        await client.send(b"before")
        assert await client.receive() == b"before"
        cable.cut()
        await client.send(b"meanwhile")
        with pytest.raises(TimeoutError), anyio.fail_after(0.1):
            await client.receive()
        cable.mend()
        with anyio.fail_after(BOUND_S):
            assert await client.receive() == b"meanwhile"


async def test_a_cable_that_is_torn_resets_and_refuses(tmp_path: Path) -> None:
    async with echoing(tmp_path) as cable, await anyio.connect_tcp("127.0.0.1", cable.port) as client:
        await client.send(b"before")
        assert await client.receive() == b"before"
        cable.tear()
        with anyio.fail_after(BOUND_S), pytest.raises((anyio.BrokenResourceError, anyio.EndOfStream)):
            await client.receive()
        async with await anyio.connect_tcp("127.0.0.1", cable.port) as another:
            with anyio.fail_after(BOUND_S), pytest.raises((anyio.BrokenResourceError, anyio.EndOfStream)):
                await another.receive()
        cable.mend()
        async with await anyio.connect_tcp("127.0.0.1", cable.port) as again:
            await again.send(b"after")
            assert await again.receive() == b"after"
