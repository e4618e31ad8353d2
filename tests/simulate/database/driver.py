"""psycopg's connection, as far as the keeper uses it, at a simulated server: the keeper's own homes, stores and leases
of PostgreSQL run over it as they are.

A statement takes a way there and a way back, outside of a pipeline; in one, the turn and the COMMIT do. While a client
is cut off neither arrives, and after four seconds it gives the connection up: by then a COMMIT has happened, or not.
"""

from __future__ import annotations

import contextlib
import random
import re
import sqlite3
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Final

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus

from tests.simulate.database.server import Client, Lost, Server, Session, Waited, World
from tests.simulate.database.words import arguments, each_sql, sqlite_sql

_WAY_S: Final = (0.000_1, 0.002)
_GIVES_UP_S: Final = 4.0
"""`tcp_user_timeout` of `keeper.journal.postgres.connection`."""
_LOOKS_S: Final = 0.25
_REFUSED_SQL: Final = re.compile(r"UNIQUE constraint failed: (\w+)\.")
_READS: Final = ("SELECT", "WITH")


class _UniqueViolation(errors.UniqueViolation):
    """With the one word of the diagnosis that is asked for."""

    def __init__(self, text: str, table: str) -> None:
        super().__init__(text)
        self._table = table

    @property
    def diag(self) -> Any:
        return SimpleNamespace(table_name=self._table)


class Cursor:
    """What a statement gave."""

    def __init__(self, rows: list[Any], columns: list[str] | None = None, count: int = -1) -> None:
        self._rows = iter(rows)
        self.rowcount = count
        self.description = [SimpleNamespace(name=name) for name in columns or ()]

    def __iter__(self) -> Iterator[Any]:
        return self._rows

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        return list(self._rows)


class Driven:
    """In psycopg's connection's place. Raises psycopg's errors."""

    def __init__(self, server: Server, client: Client, world: World, dice: random.Random) -> None:
        self._server, self._client, self._world, self._dice = server, client, world, dice
        self.closed = False
        self._piped = False
        self._way()
        try:
            self._session: Session = server.connect(client)
        except Lost as lost:
            self.closed = True
            raise psycopg.OperationalError(f"connection failed: {lost}") from None
        self.info = _Info(self)

    @property
    def inside(self) -> bool:
        """Whether a transaction is open, as far as the client knows."""
        return self._session.inside

    def __enter__(self) -> Driven:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()

    def close(self) -> None:
        self.closed = True
        with self._server.lock:
            self._server.end(self._session, "the client has left")

    def execute(self, sql: str, args: Any = ()) -> Cursor:
        text = " ".join(sql.split())
        if self.closed:
            raise psycopg.OperationalError("the connection is closed")
        goes = not self._piped or text.endswith("FOR UPDATE") or text == "COMMIT"
        try:
            if goes:
                self._way()
            with self._server.lock:
                self._client.gone()
                self._server.heard(self._session)
                found = self._run(text, args)
            if goes and not text.startswith("SELECT"):
                self._way()
        except Lost as lost:
            raise self._broken(str(lost)) from None
        except Waited as waited:
            raise errors.LockNotAvailable(str(waited)) from None
        except sqlite3.Error as error:
            raise _translated(error) from error
        except OverflowError as error:
            raise errors.NumericValueOutOfRange("bigint out of range") from error
        return found

    @contextlib.contextmanager
    def pipeline(self) -> Iterator[None]:
        self._piped = True
        try:
            yield
        finally:
            self._piped = False

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        self.execute("BEGIN")
        try:
            yield
        except BaseException:
            if not self.closed:
                with contextlib.suppress(psycopg.Error):
                    self.execute("ROLLBACK")
            raise
        self.execute("COMMIT")

    @contextlib.contextmanager
    def cursor(self, name: str = "") -> Iterator[_ServerCursor]:
        yield _ServerCursor(self)

    # -- the way

    def _way(self) -> None:
        """One way of a statement, or of its answer."""
        self._client.gone()
        self._world.sleep(self._dice.uniform(*_WAY_S))
        until = self._world.now() + _GIVES_UP_S
        while self._client.cut:
            if self._world.now() >= until or not self._world.may_wait():
                raise self._broken("server closed the connection unexpectedly: Connection timed out")
            self._world.sleep(_LOOKS_S)
            self._client.gone()
        self._client.gone()

    def _broken(self, why: str) -> psycopg.Error:
        self.closed = True
        kind: type[psycopg.Error] = psycopg.OperationalError
        if "idle-in-transaction" in why:
            kind = errors.IdleInTransactionSessionTimeout
        return kind(f"consuming input failed: {why}")

    # -- what is asked

    def _run(self, text: str, args: Any) -> Cursor:
        server, session = self._server, self._session
        word = text.partition(" ")[0]
        match word:
            case "BEGIN":
                session.inside, session.durable = True, True
                if text.endswith("READ ONLY"):
                    session.rows.execute("BEGIN")
            case "COMMIT":
                self._commit()
            case "ROLLBACK" if text == "ROLLBACK":
                server.rollback(session)
            case "SELECT" if "set_config(" in text:
                session.durable = session.durable and "synchronous_commit" not in text
            case "SELECT" if "current_setting(" in text:
                return Cursor([("on",)])
            case "SELECT" if "to_regclass(" in text:
                return Cursor([(args[0] in ("keeper_journal", "orders", "attempts"),)])
            case "SELECT" if "pg_database_size" in text:
                return Cursor([(0,)])
            case _:
                return self._ask(text, args)
        return Cursor([])

    def _commit(self) -> None:
        client, server = self._client, self._server
        torn = None
        if client.torn_in is not None and self._session.wrote:
            client.torn_in -= 1
            if client.torn_in <= 0:
                client.torn_in, torn = None, self._dice.random() < 0.5
        client.on_commit(True)
        client.gone()
        if torn is False:
            server.counts["connections torn before a COMMIT"] += 1
            server.end(self._session, "server closed the connection unexpectedly")
            raise Lost("server closed the connection unexpectedly")
        server.commit(self._session)
        client.on_commit(False)
        client.gone()
        if torn:
            server.counts["answers to a COMMIT lost"] += 1
            server.end(self._session, "server closed the connection unexpectedly")
            raise Lost("server closed the connection unexpectedly")

    def _ask(self, text: str, args: Any) -> Cursor:
        server, session = self._server, self._session
        if " leases" in text or (args and isinstance(args, tuple) and str(args[0]).startswith("keeper:")):
            rows = server.ask_leases(session, sqlite_sql(text), arguments(args))
            return Cursor(rows, count=len(rows))
        alone = False
        if text.endswith("FOR UPDATE"):
            server.take_turn(session)
        elif not text.startswith(_READS) and not session.rows.in_transaction:
            server.take_turn(session)
            alone = not session.inside
        if "unnest(" in text:
            found = session.rows.executemany(each_sql(text), list(zip(*args, strict=True)))
            return Cursor([], count=found.rowcount)
        found = session.rows.execute(sqlite_sql(text), arguments(args))
        columns = [column[0] for column in found.description or ()]
        cursor = Cursor(found.fetchall(), columns, found.rowcount)
        if alone:
            server.commit(session)
        return cursor


class _Info:
    server_version = 180_000

    def __init__(self, conn: Driven) -> None:
        self._conn = conn

    @property
    def transaction_status(self) -> TransactionStatus:
        return TransactionStatus.INTRANS if self._conn.inside else TransactionStatus.IDLE

    def parameter_status(self, name: str) -> str:
        return "18"


class _ServerCursor:
    """A cursor of its own, to be read from."""

    def __init__(self, conn: Driven) -> None:
        self._conn = conn
        self._found = Cursor([])

    def execute(self, sql: str, args: Any = ()) -> None:
        self._found = self._conn.execute(sql, args)

    @property
    def description(self) -> Any:
        return self._found.description

    def __iter__(self) -> Iterator[Any]:
        return iter(self._found)


def _translated(error: sqlite3.Error) -> psycopg.Error:
    text = str(error)
    if found := _REFUSED_SQL.search(text):
        return _UniqueViolation(text, found[1])
    match error:
        case sqlite3.IntegrityError():
            return errors.CheckViolation(text)
        case sqlite3.OperationalError() if "No space left" in text:
            return errors.DiskFull(text)
        case sqlite3.DataError():
            return errors.DataException(text)
    return psycopg.ProgrammingError(f"the simulated server does not understand: {text}")
