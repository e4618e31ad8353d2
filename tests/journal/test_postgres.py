"""The journal in PostgreSQL: what only this store promises. What all stores promise is in test_store_contract."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keeper.domain.errors import JournalBusy, JournalError, JournalVersion
from keeper.domain.orders import OrderState
from keeper.journal import (
    AddAttempt,
    AddPrepared,
    Journal,
    NoteOrder,
    NoteState,
    PreparedKind,
    SetMeta,
    copy_to_postgres,
    home_of,
)
from keeper.journal.rows import PREPARED, KnownPrepared, prepared_values
from tests.journal.journal_making import key, make_attempt, make_cancel, make_order, make_prepared
from tests.support import until
from tests.support.postgres import fresh_database, kill, missing

if why := missing():
    pytest.skip(why, allow_module_level=True)

import psycopg
from psycopg import conninfo

from keeper.demo.postgres import PostgresServer
from keeper.journal.postgres import connection, schema

pytestmark = pytest.mark.anyio


@pytest.fixture
def url() -> str:
    return fresh_database()


@pytest.fixture
def admin(url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with psycopg.connect(url, autocommit=True) as conn:
        yield conn


async def test_a_journal_of_version_4_comes_forward_whole(url: str, admin: psycopg.Connection[Any]) -> None:
    (version, statements), *_ = schema.MIGRATIONS
    assert version == 4
    for statement in statements:
        admin.execute(statement.encode())
    before = make_cancel("before", key())
    values = prepared_values(KnownPrepared("before", None, "prepared", None, before))
    row = dict(zip(PREPARED.columns, values, strict=True))
    del row["cancels"]
    names, places = ", ".join(f'"{name}"' for name in row), ", ".join(["%s"] * len(row))
    admin.execute(f"INSERT INTO prepared ({names}) VALUES ({places})".encode(), list(row.values()))
    amend = make_prepared("after", kind=PreparedKind.AMEND, cancels=(key(),))
    async with Journal.open(url) as journal:
        assert await journal.prepared("before") == before
        await journal.commit(AddPrepared(amend))
        assert await journal.prepared("after") == amend


def test_a_url_shows_no_password() -> None:
    home = home_of("postgresql://keeper:hunter2@db1:5433,db2:5432/quant?application_name=k&sslmode=require")
    assert home.name == "postgresql://db1:5433,db2:5432/quant"
    assert "hunter2" not in repr(home)
    for broken in ("postgresql://keeper:more@hunter2@db/quant", "postgresql://k:hunter2@db/quant?no_such=1"):
        with pytest.raises(JournalError, match=r"journal\.url is no URL") as caught:
            home_of(broken).inspect()
        assert "hunter2" not in repr(caught.value)
    with pytest.raises(JournalError, match="can't be reached") as caught:
        home_of("postgresql://keeper:hunter2@127.0.0.1:1/quant").open_store(lambda: None)
    assert "hunter2" not in f"{caught.value!r} {caught.value.__cause__!r}"


def _durability_off(admin: psycopg.Connection[Any], url: str) -> str:
    admin.execute(f"ALTER DATABASE {admin.info.dbname} SET synchronous_commit = off")
    return url


def _without_rights(admin: psycopg.Connection[Any], url: str) -> str:
    role = f"poor_{admin.info.dbname}"
    admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'hunter2'")
    return str(conninfo.make_conninfo(url, user=role, password="hunter2"))


def _somebody_elses(admin: psycopg.Connection[Any], url: str) -> str:
    admin.execute("CREATE TABLE orders (pizza text)")
    return url


def _newer(admin: psycopg.Connection[Any], url: str) -> str:
    home_of(url).open_store(lambda: None).close()
    admin.execute("UPDATE keeper_journal SET version = 99")
    return url


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_durability_off, "synchronous_commit off"),
        (_without_rights, "may not do its work"),
        (_somebody_elses, "no keeper's"),
        (_newer, "newer keeper"),
    ],
)
def test_what_a_start_refuses(
    admin: psycopg.Connection[Any], url: str, spoil: Callable[[psycopg.Connection[Any], str], str], says: str
) -> None:
    spoilt = conninfo.conninfo_to_dict(spoil(admin, url))
    given = f"postgresql://{spoilt['user']}@/{spoilt['dbname']}?host={spoilt['host']}"
    if "password" in spoilt:
        given = given.replace("@", f":{spoilt['password']}@")
    with pytest.raises(JournalError, match=says) as caught:
        home_of(given).open_store(lambda: None)
    assert "hunter2" not in repr(caught.value)
    assert isinstance(caught.value, JournalVersion) == (spoil is _newer)


def test_a_server_that_is_too_old_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LEAST_VERSION", 990_000)
    with pytest.raises(JournalError, match="needs 99 or later"):
        home_of(url).open_store(lambda: None)


def test_a_server_without_fsync_is_refused() -> None:
    with PostgresServer.running() as server:
        server.stop()
        server.start(fsync="off")
        with pytest.raises(JournalError, match="fsync off"):
            home_of(server.url()).open_store(lambda: None)


async def test_a_journal_outlives_its_server(url: str) -> None:
    """While the server is gone nothing commits; when it is back the journal goes on by itself, and readers too."""
    with PostgresServer.running() as server:
        async with Journal.open(server.url()) as journal:
            order, other = make_order(), make_order()
            await journal.commit(NoteOrder(order))
            kill(server)
            with pytest.raises(JournalError, match="can't be reached"):
                await journal.commit(NoteOrder(other))
            assert not journal.healthy
            assert journal.post(NoteState(order.address, OrderState.FAILED, "Noted while it was gone."))
            server.start()
            await until(lambda: journal.healthy)
            await journal.commit(NoteOrder(other))
            row = await journal.order(order.address)
            assert row is not None
            assert row.state is OrderState.FAILED
            assert await journal.order(other.address) is not None
        assert home_of(server.url()).verify() == []


async def test_a_sqlite_journal_is_copied_whole_and_only_into_an_empty_one(tmp_path: Path, url: str) -> None:
    path = tmp_path / "j.db"
    orders = [make_order(size_1e6=2**64 - 1 - n) for n in range(5)]
    async with Journal.open(path) as journal:
        for order in orders:
            await journal.commit(NoteOrder(order), AddAttempt(make_attempt(order.address)))
        await journal.commit(SetMeta("paused", "by an operator: é"), AddPrepared(make_prepared("p")))
        with pytest.raises(JournalBusy):
            copy_to_postgres(path, url)
        last = journal.last_change_id
    counts = copy_to_postgres(path, url)
    assert (counts["orders"], counts["attempts"], counts["prepared"]) == (5, 5, 1)
    copied = home_of(url)
    assert copied.verify() == []
    rows = [json.loads(line) for line in home_of(path).export()]
    for row in rows:
        row.pop("next_attempt_at", None)  # of version 1, and long empty
    assert [json.loads(line) for line in copied.export()] == rows
    with pytest.raises(JournalError, match="Copy to an empty one"):
        copy_to_postgres(path, url)
    async with Journal.open(url) as journal:
        assert journal.last_change_id == last
        another = make_order()
        await journal.commit(NoteOrder(another), AddAttempt(make_attempt(another.address)))
        assert [change.id for change in await journal.changes_of(another.address)] == [last + 1]
