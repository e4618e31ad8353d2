"""Connections to PostgreSQL: what libpq is told, what a server has to promise, and errors in words for an operator."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import psycopg
from psycopg import conninfo, errors
from psycopg.pq import TransactionStatus

from keeper.domain.errors import JournalError
from keeper.journal.postgres.dialect import postgres_sql

LEAST_VERSION: Final = 150_000
"""Tested is 18. 14 and older have other rules for the rights in a new database."""

_DEFAULTS: Final = {
    "connect_timeout": "5",
    "application_name": "keeper",
    "target_session_attrs": "read-write",
    # A network that is cut off says nothing: libpq would wait for two hours.
    "keepalives_idle": "2",
    "keepalives_interval": "1",
    "keepalives_count": "3",
    "tcp_user_timeout": "4000",
}
"""What the URL may say otherwise. Times are in seconds, the last in milliseconds."""


BOUNDS: Final = (
    "SELECT set_config('idle_in_transaction_session_timeout', '3000', true), set_config('lock_timeout', '5000', true), "
    "set_config('statement_timeout', '10000', true)"
)
"""In milliseconds, and for one transaction, since a pooler may give the next one another session. The first ends the
turn of a keeper that was stopped, or cut off, while it had it.
"""
TURN: Final = "SELECT next_order_id, next_change_id FROM keeper_journal FOR UPDATE"
"""Wait for the turn, which ends with the transaction; what is read after it is what the writer before it left."""


class Place:
    """A database, by its URL. The URL holds the password: it is in no repr and no message."""

    def __init__(self, url: str) -> None:
        try:
            given = conninfo.conninfo_to_dict(url)
            if "@" in str(given.get("host", "")):
                raise psycopg.ProgrammingError("an @ in a password is written %40")
        except psycopg.Error:
            # libpq's message quotes what it did not understand, which may be a part of the password.
            raise JournalError(
                "journal.url is no URL of a PostgreSQL database. Write it as docs/scale.md does."
            ) from None
        parameters = _DEFAULTS | {key: str(value) for key, value in given.items()}
        self._conninfo = conninfo.make_conninfo("", **parameters)
        hosts, ports = str(given.get("host", "")).split(","), str(given.get("port", "")).split(",")
        if len(ports) == len(hosts):
            hosts = [f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=True)]
        self.name: Final = f"postgresql://{','.join(hosts)}/{given.get('dbname', '')}"

    def __repr__(self) -> str:
        return f"Place({self.name})"

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection in autocommit."""
        conn: psycopg.Connection[tuple[Any, ...]] = psycopg.connect(self._conninfo, autocommit=True)
        try:
            if conn.execute("SELECT pg_backend_pid()").fetchone() != (conn.info.backend_pid,):
                # Who answers is not who was connected to: a pooler, whose next transaction may be in another session,
                # where no statement of this one is prepared. Nothing else of the keeper's outlives a transaction.
                conn.prepare_threshold = None
        except BaseException:
            conn.close()
            raise
        return conn


class Database:
    """One connection, made anew when it has broken; for one thread at a time.

    It is a `keeper.journal.sql.Connection`: `execute` takes SQLite's dialect, `run` takes PostgreSQL's.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self.name: Final = place.name
        self._conn = place.connect()

    @property
    def conn(self) -> psycopg.Connection[tuple[Any, ...]]:
        """The connection as it is, or a new one if it has broken. Raises psycopg's errors."""
        if self._conn.closed:
            self._conn.close()
            self._conn = self._place.connect()
        return self._conn

    def execute(self, sql: str, args: Any = (), /) -> psycopg.Cursor[tuple[Any, ...]]:
        """Run one of the journal's statements, in SQLite's dialect. A question that meets a broken connection is asked
        once more: the server was started again since.
        """
        sql = postgres_sql(sql)
        try:
            return self.conn.execute(sql, args)
        except psycopg.OperationalError:
            if not self._conn.closed or not sql.startswith("SELECT") or self._inside:
                raise
            return self.conn.execute(sql, args)

    _inside = False
    """Whether a transaction is open, of which a broken connection loses the first part."""

    def run(self, sql: str, args: Any = (), /) -> psycopg.Cursor[tuple[Any, ...]]:
        """Run a statement in PostgreSQL's own words."""
        return self.conn.execute(sql, args)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All that runs inside commits together, or nothing of it."""
        with self.conn.transaction():
            self._inside = True
            try:
                yield
            finally:
                self._inside = False

    def rollback(self) -> None:
        """End an open transaction, if there is one."""
        if not self._conn.closed and self._conn.info.transaction_status != TransactionStatus.IDLE:
            with contextlib.suppress(psycopg.Error):
                self._conn.execute("ROLLBACK")

    def close(self) -> None:
        """Let go of it."""
        self._conn.close()


def take_turn(db: Database) -> None:
    """Wait for the writers' turn, in an open transaction."""
    db.run(BOUNDS)
    db.run(TURN)


def require_safe(db: Database) -> None:
    """JournalError when the server is too old, or may lose what it said was durable (promise 1)."""
    if db.conn.info.server_version < LEAST_VERSION:
        raise JournalError(
            f"The server of {db.name} is PostgreSQL {db.conn.info.parameter_status('server_version')}. "
            f"The keeper needs {LEAST_VERSION // 10_000} or later."
        )
    for setting in ("fsync", "full_page_writes", "synchronous_commit"):
        row: Any = db.run("SELECT current_setting(%s)", (setting,)).fetchone()
        if row[0] == "off":
            raise JournalError(
                f"The server of {db.name} has {setting} off: after a power cut it would not know of transactions that "
                f"were sent. Set {setting} = on."
            )


def passes(error: psycopg.Error) -> bool:
    """Whether it is about the server as it is now, which stops, starts, fails over or has too much to do."""
    passing = (psycopg.OperationalError, errors.ReadOnlySqlTransaction, errors.IdleInTransactionSessionTimeout)
    return isinstance(error, passing)


def explain(name: str, error: BaseException) -> str:
    """One sentence on what is wrong with the journal, one on what to do."""
    text = " ".join(str(error).split()).removesuffix(".")
    match error:
        case JournalError():
            return str(error)
        case errors.InsufficientPrivilege():
            return (
                f"The keeper's role may not do its work in {name} ({text}). "
                "Make it the owner of the database, or grant it CREATE and USAGE on the schema."
            )
        case errors.ReadOnlySqlTransaction():
            return f"The server of {name} only reads ({text}). Name the primary in journal.url."
        case errors.DiskFull():
            return f"The disk of the server of {name} is full. Make room: a keeper that runs goes on by itself."
        case errors.LockNotAvailable() | errors.QueryCanceled():
            return f"The journal {name} is held by another session ({text}). The keeper keeps trying."
        case errors.UndefinedTable():
            return f"There is no journal in {name}. Start the keeper once, or set the right journal.url."
        case psycopg.OperationalError() if "password authentication" in text or "no pg_hba.conf" in text:
            return f"The server of {name} does not let the keeper in ({text}). Check the user and the password."
        case psycopg.OperationalError() if "pooling mode" in text:
            return f"The pooler before {name} gives no transactions ({text}). Set its pool_mode = transaction."
        case psycopg.OperationalError():
            return f"The journal {name} can't be reached ({text}). A keeper that runs goes on when it is back."
    return f"The journal {name} failed: {text}."
