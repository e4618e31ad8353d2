"""What watches several keepers sees what it is there for, and a cable does what it is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest
from solders.pubkey import Pubkey

from keeper.demo.postgres import PostgresServer
from keeper.domain.attempts import AttemptState
from tests.support import BOUND_S, World
from tests.support.postgres import fresh_database, kill, missing

if why := missing():
    pytest.skip(why, allow_module_level=True)

from keeper.journal import AddAttempt, NoteOrder
from keeper.journal.looking import NAME, SERVICE, Holder
from keeper.journal.postgres.connection import Database, Place
from keeper.journal.postgres.home import PostgresHome
from keeper.journal.postgres.store import PostgresStore
from tests.chaos import guard as guarding
from tests.chaos.cable import Cable
from tests.chaos.court import standing
from tests.chaos.fleet import Fleet
from tests.chaos.guard import SeveralWitness, as_keeper, guard, unlawful
from tests.chaos.several import not_even
from tests.journal.journal_making import make_attempt, make_order

pytestmark = pytest.mark.anyio


MARKETS = [Pubkey.from_bytes(bytes([n]) * 32) for n in (1, 2, 3)]
ORDER = make_order(market=MARKETS[0])


@pytest.fixture
def url() -> Iterator[str]:
    """A database in which k2 works, and which has an order."""
    url = fresh_database()
    store = PostgresHome(as_keeper(url, "k2"), "k2", 60.0).open_store(lambda: None)
    guard(url)
    assert store.apply([[NoteOrder(ORDER)]], durable=True) == [None]
    yield url
    store.close()


def one_that_shares(url: str, name: str, n: int) -> PostgresHome:
    """A keeper that takes the `n`th market, those before it being others'."""
    return PostgresHome(as_keeper(url, name), name, 60.0, markets=lambda: [str(market) for market in MARKETS[:n]])


@pytest.fixture
def shared_url() -> Iterator[str]:
    """The same, but that k1 has the one market, on which the order is, and k2 the other."""
    url = fresh_database()
    with contextlib.ExitStack() as stack:
        for n, name in enumerate(("k1", "k2"), 1):
            home = one_that_shares(url, name, n)
            stack.callback(home.leave)
            store = home.open_store(lambda: None)
            stack.callback(store.close)
            assert store.working_on == frozenset([str(MARKETS[n - 1])])
            if name == "k1":
                guard(url)
                assert store.apply([[NoteOrder(ORDER)]], durable=True) == [None]
        assert unlawful(url) == []
        yield url


def test_a_lease_taken_while_another_runs_is_noted(url: str) -> None:
    db = Database(Place(url))
    take = "UPDATE leases SET holder = 'k1', life = 'another', term = term + 1"
    db.run(f"UPDATE leases SET until = clock_timestamp() WHERE what = '{SERVICE}'")
    db.run(f"{take} WHERE what = '{SERVICE}'")
    assert unlawful(url) == []
    db.run("UPDATE leases SET until = clock_timestamp() + interval '1 minute'")
    db.run(take.replace("k1", "k3").replace("another", "a third"))
    assert "k3 took * over in term 3 while the lease of k1 ran" in unlawful(url)
    db.close()


def test_what_is_written_without_the_lease_is_noted(url: str) -> None:
    db = Database(Place(as_keeper(url, "k2")))
    writing = "UPDATE orders SET reason = ''"
    db.run(writing)
    assert unlawful(url) == []
    db.run(f"UPDATE leases SET holder = 'k1' WHERE what = '{SERVICE}'")
    db.run(writing)
    assert unlawful(url) == ["k2 wrote orders in term 1 of k1 on *"]
    db.close()


def test_what_is_written_about_another_keepers_market_is_noted(shared_url: str) -> None:
    writing = ("UPDATE orders SET reason = ''", "UPDATE changes SET reason = ''")
    for name, found in (("k1", []), ("k2", ["changes", "orders"])):
        db = Database(Place(as_keeper(shared_url, name)))
        for statement in writing:
            db.run(statement)
        assert unlawful(shared_url) == [f"{name} wrote {table} in term 1 of k1 on {MARKETS[0]}" for table in found]
        db.close()


def test_an_attempt_at_an_order_of_another_keepers_market_is_noted(
    shared_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PostgresStore, "working_on", None)  # or the store would refuse it
    third = one_that_shares(shared_url, "k3", 3)
    store = third.open_store(lambda: None)
    try:
        assert store.apply([[AddAttempt(make_attempt(ORDER.address))]], durable=True) == [None]
        assert f"k3 wrote attempts in term 1 of k1 on {MARKETS[0]}" in unlawful(shared_url)
    finally:
        store.close()
        third.leave()


def test_a_market_that_one_has_while_another_has_all_is_noted(shared_url: str) -> None:
    db = Database(Place(shared_url))
    runs = "clock_timestamp() + interval '1 minute', clock_timestamp()"
    db.run(f"INSERT INTO leases VALUES ('{SERVICE}', 'k3', 'another', 1, {runs})")
    assert unlawful(shared_url) == [
        f"k3 holds * while {name} holds {market}" for name, market in zip(("k1", "k2"), MARKETS, strict=False)
    ]
    db.close()


def test_shares_that_are_not_even_are_told() -> None:
    def held(what: str, holder: str) -> Holder:
        return Holder(what, holder, 1, 0.0, 1.0)

    running = [held(f"{NAME}{name}", name) for name in ("k1", "k2")]
    assert not_even([*running, held("A", "k1"), held("B", "k2"), held("C", "k2")], {"A", "B", "C"}, 2) == []
    (uneven,) = not_even([*running, held("A", "k1"), held("B", "k1")], {"A", "B"}, 2)
    assert uneven == "the shares of 2 keepers are not even: {'k1': 2, 'k2': 0}"
    (nobodys,) = not_even([*running, held("A", "k1"), held("B", "k2")], {"A", "B", "C"}, 2)
    assert nobodys == "the market C is nobody's"
    assert not_even([running[0], held("A", "k1")], {"A"}, 2) != []


async def test_a_keeper_that_sends_when_another_has_the_lease_is_seen(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with World.open() as world:
        witness = SeveralWitness(world.bank, Fleet([], seed=""))
        witness.attend(Database(Place(url)))
        witness.hold_to_lease("k2", MARKETS[0])
        assert witness.counts["sends after a takeover"] == 0
        monkeypatch.setattr(guarding, "LATE_S", 600.0)
        witness.hold_to_lease("k1", MARKETS[0])
        assert (witness.counts["sends after a takeover"], witness.violations) == (1, [])
        monkeypatch.setattr(guarding, "LATE_S", -1.0)
        witness.hold_to_lease("k1", MARKETS[0])
        (violation,) = witness.violations
        assert "k2 had taken over: two keepers send" in violation
        witness.attend(None)


async def test_whose_turn_it_is_to_send_is_asked_of_the_orders_market(
    shared_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarding, "LATE_S", -1.0)
    async with World.open() as world:
        witness = SeveralWitness(world.bank, Fleet([], seed=""))
        witness.attend(Database(Place(shared_url)))
        for keeper, market in zip(("k1", "k2"), MARKETS, strict=False):
            witness.hold_to_lease(keeper, market)
        witness.hold_to_lease("k1", Pubkey.default())  # nobody's
        assert witness.violations == []
        witness.hold_to_lease("k2", MARKETS[0])
        (violation,) = witness.violations
        assert "k1 had taken over: two keepers send" in violation
        witness.attend(None)


async def test_what_was_sent_while_the_database_was_down_is_judged_before_what_was_sent_later(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        court = await stack.enter_async_context(standing(tmp_path))
        server = stack.enter_context(PostgresServer.running())
        PostgresHome(server.url(), "k1", 60.0).open_store(lambda: None).close()
        witness = SeveralWitness(court.world.bank, Fleet([], seed=""))
        court.witness, witness.journal = witness, court.queries
        witness.attend(Database(Place(server.url())))
        first = court.sign()
        await court.journaled(first)
        kill(server)
        court.send(first)
        court.land(first)  # the price is not there
        court.blocks(6)
        await court.ended(first, AttemptState.FAILED)
        server.start()
        court.world.set_price(court.market, 97_000_000)
        second = court.sign(2)
        await court.journaled(second)
        court.send(second)
        court.land(second)
        court.blocks(6)
        assert witness.settle() == []
        assert (witness.violations, witness.counts["sends judged later"]) == ([], 1)
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
