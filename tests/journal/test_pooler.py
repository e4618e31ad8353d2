"""The journal by way of a pooler in transaction mode: no session is the keeper's for longer than a transaction."""

from __future__ import annotations

import contextlib
import time

import pytest

from keeper.domain.errors import DuplicateAttempt, JournalError, StandBy
from keeper.domain.orders import OrderState
from keeper.journal import AddAttempt, Journal, NoteOrder, NoteState, home_of
from tests.journal.journal_making import make_attempt, make_order
from tests.support import BOUND_S, pgbouncer
from tests.support.pgbouncer import pooled_database

if why := pgbouncer.missing():
    pytest.skip(why, allow_module_level=True)

from keeper.journal.postgres.connection import Database, Place
from keeper.journal.postgres.home import PostgresHome
from tests.support.postgres import fresh_database, server

pytestmark = pytest.mark.anyio


@pytest.fixture
def url() -> str:
    return pooled_database()


def test_statements_are_prepared_where_the_session_is_the_keepers_alone(url: str) -> None:
    for place, prepares in ((url, False), (fresh_database(), True)):
        with contextlib.closing(Database(Place(place))) as db:
            assert (db.conn.prepare_threshold is not None) == prepares


async def test_a_journal_works_through_a_pooler(url: str) -> None:
    """So often that psycopg would prepare each statement, in sessions that take turns."""
    async with Journal.open(url) as journal:
        orders = [make_order() for _ in range(30)]
        for order in orders:
            attempt = make_attempt(order.address)
            await journal.commit(NoteOrder(order), AddAttempt(attempt))
            with pytest.raises(DuplicateAttempt):
                await journal.commit(AddAttempt(make_attempt(order.address)))
            assert journal.post(NoteState(order.address, OrderState.EXECUTING, "It is sent."))
            await journal.commit()
            assert [one.signature for one in await journal.attempts_of(order.address)] == [attempt.signature]
        assert len(await journal.open_attempts()) == len(orders)
    home = home_of(url)
    assert home.verify() == []
    assert sum(b'"table":"orders"' in line for line in home.export()) == len(orders)
    async with Journal.open(url) as journal:
        assert len(await journal.open_attempts()) == len(orders)


def test_a_service_is_handed_over_through_a_pooler(url: str) -> None:
    first, second = PostgresHome(url, "a", 1.5), PostgresHome(url, "b", 1.5)
    store = first.open_store(lambda: None)
    for _ in range(10):
        with pytest.raises(StandBy, match="held by a"):
            second.open_store(lambda: None)
    until_s = time.monotonic() + 3.0  # two leases: it is renewed through whichever session comes
    while time.monotonic() < until_s:
        assert store.apply([(NoteOrder(make_order()),)], durable=True) == [None]
    assert store.trouble is None
    store.close()
    until_s = time.monotonic() + BOUND_S
    while True:
        with contextlib.suppress(StandBy):
            second.open_store(lambda: None).close()
            break
        assert time.monotonic() < until_s


def test_a_pooler_that_knows_no_transactions_is_refused(url: str) -> None:
    with (
        pgbouncer.pooling(server(), "statement") as folder,
        pytest.raises(JournalError, match=r"pool_mode = transaction"),
    ):
        home_of(pgbouncer.url("postgres", folder)).open_store(lambda: None)
