"""Several keepers on one PostgreSQL journal: one may write, for as long as its lease runs; the others stand by."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import anyio
import pytest

from keeper.domain.attempts import Attempt
from keeper.domain.errors import JournalBusy, JournalError, LeaseLost, StandBy
from keeper.journal import AddAttempt, Journal, NoteOrder
from keeper.journal.looking import SERVICE
from tests.journal.journal_making import make_attempt, make_order
from tests.support import BOUND_S, until
from tests.support.postgres import fresh_database, missing

if why := missing():
    pytest.skip(why, allow_module_level=True)

import psycopg

from keeper.demo.postgres import PostgresServer
from keeper.journal.postgres import schema
from keeper.journal.postgres.connection import BOUNDS, TURN, Place
from keeper.journal.postgres.home import PostgresHome
from keeper.journal.postgres.leases import _TAKE, Leases
from keeper.journal.postgres.store import PostgresStore
from tests.simulate.database.places import fresh_server

pytestmark = pytest.mark.anyio
LEASE_S = 1.5


@pytest.fixture(params=["postgres", "simulated"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database, and one of the simulation."""
    return fresh_database() if request.param == "postgres" else fresh_server(tmp_path)


def opened(home: PostgresHome) -> PostgresStore:
    return home.open_store(lambda: None)


def waited_for(home: PostgresHome) -> PostgresStore:
    until_s = time.monotonic() + 30
    while True:
        try:
            return opened(home)
        except StandBy:
            assert time.monotonic() < until_s
            time.sleep(0.02)


def lapsed(store: PostgresStore) -> bool:
    return store.lapsed


@contextlib.contextmanager
def unheard_of(store: PostgresStore) -> Iterator[None]:
    """The holder's renewals do not reach the database: it is stopped, or cut off."""
    leases = store._leases
    with leases._lock, pytest.MonkeyPatch.context() as patch:
        patch.setattr(leases, "renew", lambda: None)
        yield


def test_one_writes_and_the_others_stand_by_until_it_leaves(url: str) -> None:
    first, second = PostgresHome(url, "a", LEASE_S), PostgresHome(url, "b", LEASE_S)
    store = opened(first)
    with pytest.raises(StandBy, match="held by a"):
        opened(second)
    held = {holder.what: holder.holder for holder in second.holders()}
    assert held == {SERVICE: "a", "keeper:a": "a", "keeper:b": "b"}
    time.sleep(2 * LEASE_S)
    with pytest.raises(StandBy):
        opened(second)
    store.close()
    began = time.monotonic()
    successor = waited_for(second)
    assert time.monotonic() - began < LEASE_S / 2, "handed over, not waited for"
    assert [holder.term for holder in second.holders() if holder.what == SERVICE] == [2]
    successor.close()
    assert second.holders() == []


def test_who_handed_over_leaves_the_lease_to_another_for_a_while(url: str) -> None:
    first, second = PostgresHome(url, "a", LEASE_S), PostgresHome(url, "b", LEASE_S)
    first.hand_over()
    with pytest.raises(StandBy, match="held by nobody yet"):
        opened(first)
    store = opened(second)
    with pytest.raises(StandBy, match="held by b"):
        opened(first)
    store.close()
    opened(first).close()

    alone = PostgresHome(url, "c", LEASE_S)
    alone.hand_over()
    with pytest.raises(StandBy):
        opened(alone)
    alone._yields_until_s = time.monotonic()
    opened(alone).close()


def test_who_is_not_fit_leaves_the_lease_to_another_and_takes_it_when_nobody_does(url: str) -> None:
    unfit = PostgresHome(url, "b", LEASE_S, fit=lambda: False)
    for name in "ac":
        store = opened(PostgresHome(url, name, LEASE_S))
        with pytest.raises(StandBy, match=f"held by {name}"):
            opened(unfit)
        store.close()
        with pytest.raises(StandBy, match="held by nobody yet"):
            opened(unfit)
    unfit._last_held_s -= LEASE_S + 2.0
    opened(unfit).close()


def test_a_holder_that_was_not_heard_of_can_write_nothing_more(url: str) -> None:
    first, second = PostgresHome(url, "a", LEASE_S), PostgresHome(url, "b", LEASE_S)
    before, order = make_order(), make_order()
    store = opened(first)
    assert store.apply([(NoteOrder(before),)], durable=True) == [None]
    assert not lapsed(store)
    with unheard_of(store):
        successor = waited_for(second)
        assert lapsed(store), "by its own clock, before anybody tells it"
        assert "did not answer in time" in (store.trouble or ""), "or /readyz would call it ready"
        with pytest.raises(LeaseLost, match="nothing was written"):
            store.apply([(NoteOrder(order), AddAttempt(make_attempt(order.address)))], durable=True)
        with pytest.raises(LeaseLost):
            store.probe()
    until_s = time.monotonic() + 30
    while store.lost is None:
        assert time.monotonic() < until_s
        time.sleep(0.02)
    assert "b took over from a" in store.lost
    with contextlib.closing(second.open_queries()) as queries:
        assert queries.order(order.address) is None
        assert queries.order(before.address) is not None
    assert successor.apply([(NoteOrder(order),)], durable=True) == [None]
    store.close()
    assert successor.apply([(NoteOrder(before),)], durable=True) == [None], "what the old one gives back is its own"
    successor.close()


def test_a_lease_that_another_had_and_gave_back_is_lost_all_the_same(url: str) -> None:
    store, second = opened(PostgresHome(url, "a", LEASE_S)), PostgresHome(url, "b", LEASE_S)
    with unheard_of(store):
        waited_for(second).close()
    until_s = time.monotonic() + 30
    while store.lost is None:
        assert time.monotonic() < until_s
        time.sleep(0.02)
    assert store.lost == "another keeper took over from a after term 1."
    store.close()
    assert second.holders() == []


def test_a_lease_that_nobody_took_meanwhile_is_taken_anew(url: str) -> None:
    home = PostgresHome(url, "a", LEASE_S)
    store = opened(home)
    with unheard_of(store):
        time.sleep(1.2 * LEASE_S)
        assert lapsed(store)
        with pytest.raises(JournalError, match="nothing was written"):
            store.apply([(NoteOrder(make_order()),)], durable=True)
    until_s = time.monotonic() + 30
    while lapsed(store):
        assert time.monotonic() < until_s
        time.sleep(0.02)
    assert (store.lost, store.trouble) == (None, None)
    assert store.apply([(NoteOrder(make_order()),)], durable=True) == [None]
    store.close()


def committed_unheard(url: str, leases: Leases | None) -> None:
    """What a life's COMMIT of the service's lease does when its answer is lost on the way."""
    assert leases is not None
    with Place(url).connect() as admin:
        assert admin.execute(_TAKE, {"what": [SERVICE], **leases._values}).fetchone() is not None


def test_a_lease_whose_commit_was_not_answered_is_no_others_for_who_waits_for_it(url: str) -> None:
    first, second = PostgresHome(url, "a", LEASE_S), PostgresHome(url, "b", LEASE_S)
    store = opened(first)
    with pytest.raises(StandBy):
        opened(second)
    store.close()
    committed_unheard(url, second._leases)
    store = opened(second)
    assert store.apply([(NoteOrder(make_order()),)], durable=True) == [None]
    store.close()


def test_a_lease_taken_anew_whose_commit_was_not_answered_is_kept(url: str) -> None:
    store = opened(PostgresHome(url, "a", LEASE_S))
    with unheard_of(store):
        time.sleep(1.2 * LEASE_S)
        committed_unheard(url, store._leases)
    until_s = time.monotonic() + 30
    while lapsed(store):
        assert time.monotonic() < until_s
        time.sleep(0.02)
    assert (store.lost, store.trouble) == (None, None)
    assert store.apply([(NoteOrder(make_order()),)], durable=True) == [None]
    store.close()


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
def test_who_stands_by_leaves_an_older_keepers_tables_alone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, before = opened(PostgresHome(url, "a", LEASE_S)), schema.VERSION
    newest = (before + 1, ("CREATE TABLE newer (one bigint)",))
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, newest))
    monkeypatch.setattr(schema, "VERSION", before + 1)
    with psycopg.connect(url, autocommit=True) as admin:
        newer = PostgresHome(url, "b", LEASE_S)
        with pytest.raises(StandBy):
            opened(newer)
        assert admin.execute("SELECT version FROM keeper_journal").fetchone() == (before,)
        store.close()
        successor = waited_for(newer)
        assert admin.execute("SELECT version FROM keeper_journal").fetchone() == (before + 1,)
        successor.close()


@pytest.mark.parametrize("off_s", [-3_600.0, 3_600.0])
def test_the_clocks_of_the_keepers_machines_do_not_matter(
    url: str, monkeypatch: pytest.MonkeyPatch, off_s: float
) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + off_s)
    store, second = opened(PostgresHome(url, "a", LEASE_S)), PostgresHome(url, "b", LEASE_S)
    (held,) = [holder for holder in second.holders() if holder.what == SERVICE]
    assert 0.0 < held.left_s <= LEASE_S
    with pytest.raises(StandBy):
        opened(second)
    assert store.apply([(NoteOrder(make_order()),)], durable=True) == [None]
    store.close()
    second.leave()


def test_a_name_is_asked_for_once_more_by_a_keeper_that_was_stopped_meanwhile(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own earlier lease on the name could not be given back, and has run out since."""
    took, asked = Leases._took, 0

    def slow(leases: Leases, what: Collection[str]) -> dict[str, int]:
        nonlocal asked
        asked += 1
        if asked > 1:
            return took(leases, what)
        time.sleep(LEASE_S + 1.2)
        return {}

    monkeypatch.setattr(Leases, "_took", slow)
    opened(PostgresHome(url, "a", LEASE_S)).close()


def test_two_keepers_with_one_name_are_told(url: str) -> None:
    store = opened(PostgresHome(url, "twin", 1.0))
    with pytest.raises(JournalBusy, match=r"Another keeper with the name twin.*cluster\.name"):
        opened(PostgresHome(url, "twin", 1.0))
    store.close()


def test_who_stops_with_the_turn_in_its_hands_loses_it(url: str) -> None:
    store = opened(PostgresHome(url, "a", LEASE_S))
    with Place(url).connect() as stopped:
        stopped.execute("BEGIN")
        stopped.execute(BOUNDS)
        stopped.execute(TURN)
        began = time.monotonic()
        assert store.apply([(NoteOrder(make_order()),)], durable=True) == [None]
        assert time.monotonic() - began < 5.0, "or the lock would have timed out"
        with pytest.raises(psycopg.Error):
            stopped.execute("COMMIT")
    store.close()


async def test_a_journal_is_waited_for_and_taken_over_with_what_is_in_it(url: str) -> None:
    told: list[str] = []
    order = make_order()
    attempt = make_attempt(order.address)

    found: list[Attempt] = []

    async def stand_by() -> None:
        async with Journal.open(PostgresHome(url, "b", LEASE_S), on_stand_by=told.append) as journal:
            found.extend(await journal.open_attempts())

    async with anyio.create_task_group() as tasks, Journal.open(PostgresHome(url, "a", LEASE_S)) as journal:
        tasks.start_soon(stand_by)
        await until(lambda: bool(told))
        await journal.commit(NoteOrder(order), AddAttempt(attempt))
        assert found == []
    assert found == [attempt]
    assert len(told) == 1
    assert told[0].endswith("is held by a.")


async def test_who_stands_by_outlives_a_restart_of_the_database() -> None:
    with PostgresServer.running() as server:
        store = opened(PostgresHome(server.url(), "a", LEASE_S))
        told: list[str] = []
        works = anyio.Event()

        async def stand_by() -> None:
            async with Journal.open(PostgresHome(server.url(), "b", LEASE_S), on_stand_by=told.append):
                works.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stand_by)
            await until(lambda: bool(told))
            server.stop()
            await until(lambda: any("can't be reached" in why for why in told))
            server.start()
            store.close()
            with anyio.fail_after(BOUND_S):
                await works.wait()


async def test_who_stands_by_can_be_stopped_at_any_time(url: str) -> None:
    store = opened(PostgresHome(url, "a", LEASE_S))
    told: list[str] = []

    async def stand_by() -> None:
        async with Journal.open(PostgresHome(url, "b", LEASE_S), on_stand_by=told.append):
            raise AssertionError("it is held")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stand_by)
        await until(lambda: bool(told))
        tasks.cancel_scope.cancel()
    assert {holder.holder for holder in PostgresHome(url).holders()} == {"a"}, "its name is given back"
    store.close()
