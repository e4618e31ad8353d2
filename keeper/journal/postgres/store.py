# ruff: noqa: S608  (the texts are put together from our own words; every value is a parameter)
"""The PostgreSQL store: one writing connection, one commit a group, and writers of several keepers that take turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import psycopg
from psycopg import errors

from keeper.domain.base58 import base58
from keeper.domain.errors import JournalError, LeaseLost
from keeper.journal.applying import refused
from keeper.journal.looking import NAME, SERVICE, Holder
from keeper.journal.ops import AddAttempt, Intend, Launched, NoteOrder, Op
from keeper.journal.postgres.connection import BOUNDS, TURN, Database, explain
from keeper.journal.postgres.leases import FENCE, Leases
from keeper.journal.postgres.statements import Asked, Conn, Cursor, PostgresWriting
from keeper.journal.pruning import prune_step
from keeper.journal.queries import PRUNED_TO
from keeper.journal.retention import Pruned, Retention
from keeper.journal.rows import TABLES, Values
from keeper.journal.saving import save
from keeper.journal.sql import columns_sql
from keeper.journal.store import StoreBusy, one_by_one, refusal
from keeper.journal.touched import Rows, Wanted

_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
_UNSYNCED: Final = "SELECT set_config('synchronous_commit', 'off', true)"
"""The next durable commit flushes the same log, and with it all that was written before."""
_IDS: Final = "UPDATE keeper_journal SET next_order_id = %s, next_change_id = %s"


class PostgresStore:
    """A `Store` in a database. See `Home.open_store`."""

    commit_s: float | None = None
    """See Store: unknown, so that no commit is made on the event loop's thread, which a network may hold up."""
    wants_turn = False
    """See Store."""

    def __init__(self, db: Database, leases: Leases, on_news: Callable[[], None], on_close: Callable[[], None]) -> None:
        self._db = db
        self._leases = leases
        self._on_close = on_close
        leases.tell(on_news)
        row: Any = self._db.run("SELECT next_change_id FROM keeper_journal").fetchone()
        self._next_change_id = int(row[0])

    @property
    def trouble(self) -> str | None:
        """See Store: the lease ran out, or was lost."""
        return self._leases.trouble

    @property
    def lost(self) -> str | None:
        """See Store."""
        return self._leases.lost

    @property
    def moved(self) -> str | None:
        """See Store."""
        return self._leases.moved

    @property
    def working_on(self) -> frozenset[str] | None:
        """See Store."""
        return None if SERVICE in self._leases.terms else frozenset(self._leases.terms)

    @property
    def holders(self) -> tuple[Holder, ...]:
        """See Store."""
        return self._leases.held

    @property
    def lapsed(self) -> bool:
        """See Store."""
        return self._leases.lapsed

    @property
    def last_change_id(self) -> int:
        """See Store."""
        return self._next_change_id - 1

    def apply(self, callers: Sequence[Sequence[Op]], *, durable: bool, waits: bool = True) -> list[JournalError | None]:
        """See Store."""
        if not waits:
            raise StoreBusy
        try:
            return self._applied(callers, durable)
        except LeaseLost:
            # A busy machine renewed too late, perhaps, and nobody took over: then it is taken anew.
            self._leases.renew()
            if self._leases.lapsed:
                raise
            return self._applied(callers, durable)

    def _refused(self, rows: Rows, ops: Sequence[Op], now: float) -> JournalError | None:
        """Also what is about an order of a market on which another keeper works."""
        if (mine := self.working_on) is not None:
            for order, market in _markets(rows, ops):
                if market not in mine:
                    return JournalError(f"The market {market} of the order {order} is not {self._leases.name}'s.")
        return refused(rows, ops, now)

    def _applied(self, callers: Sequence[Sequence[Op]], durable: bool) -> list[JournalError | None]:
        try:
            try:
                return self._in_one(callers, durable)
            except Exception as error:
                self._db.rollback()
                if not _is_refusal(error):
                    raise
            # The database refused what the rows in memory allowed: each caller is tried alone, so that only the one
            # that it was about fails.
            return self._one_by_one(callers, durable)
        except BaseException:
            self._db.rollback()
            raise

    def _begin(self, conn: Conn, *, durable: bool) -> tuple[Cursor, Cursor]:
        """Ask for the turn, and which leases still run."""
        conn.execute(_BEGIN)
        conn.execute(BOUNDS)
        if not durable:
            conn.execute(_UNSYNCED)
        turn = conn.execute(TURN)
        return turn, conn.execute(FENCE, (self._leases.life,))

    def _ids(self, begun: tuple[Cursor, Cursor]) -> tuple[int, int]:
        """The next ids. LeaseLost when another keeper may write by now (the fence), whatever this one believes."""
        turn, fence = begun
        row = turn.fetchone()
        if row is None:
            raise JournalError("The table keeper_journal is empty: the journal was damaged.")
        if fence.fetchone() != (self._leases.believed,):
            raise LeaseLost(f"A lease of {self._leases.name} is over ({self._leases.believed}): nothing was written.")
        return int(row[0]), int(row[1])

    def _in_one(self, callers: Sequence[Sequence[Op]], durable: bool) -> list[JournalError | None]:
        conn, wanted = self._db.conn, Wanted()
        for ops in callers:
            wanted.of(ops)
        with conn.pipeline():
            begun = self._begin(conn, durable=durable)
            asked = Asked(conn, wanted)
            rows = Rows(*self._ids(begun))
            asked.read(rows)
            ids = (rows.next_order_id, rows.next_change_id)
            now = time.time()
            found = [self._refused(rows, ops, now) for ops in callers]
            save(PostgresWriting(conn), rows)
            if ids != (rows.next_order_id, rows.next_change_id):
                conn.execute(_IDS, (rows.next_order_id, rows.next_change_id))
            conn.execute("COMMIT")
        self._next_change_id = rows.next_change_id
        return found

    def _one_by_one(self, callers: Sequence[Sequence[Op]], durable: bool) -> list[JournalError | None]:
        conn = self._db.conn
        found, ids = one_by_one(
            callers,
            self._ids(self._begin(conn, durable=durable)),
            execute=conn.execute,
            load=lambda wanted, rows: Asked(conn, wanted).read(rows),
            save=partial(save, PostgresWriting(conn)),
            refused=self._refused,
            refused_with=_refused_with,
        )
        conn.execute(_IDS, ids)
        conn.execute("COMMIT")
        _, self._next_change_id = ids
        return found

    def fill(self, rows_of: Callable[[str, Sequence[str]], Iterable[Values]]) -> dict[str, int]:
        """Take in every row of another journal, in one transaction; how many each table has. JournalError when there
        are rows already.
        """
        counts: dict[str, int] = {}
        with self._db.transaction():
            self._take_turn()
            self._db.run("DELETE FROM meta WHERE starts_with(key, %s)", (NAME,))  # what keepers say of themselves
            for table in TABLES:
                first = self._db.run(f"SELECT * FROM {table} LIMIT 1")
                if first.fetchone() is not None:
                    raise JournalError(f"The journal {self._db.name} has {table} already. Copy to an empty one.")
                columns = [column.name for column in first.description or ()]
                counts[table] = 0
                copying = f"COPY {table} ({columns_sql(columns)}) FROM STDIN"
                with self._db.conn.cursor() as cursor, cursor.copy(copying) as copy:
                    for row in rows_of(table, columns):
                        copy.write_row(row)
                        counts[table] += 1
                there: Any = self._db.run(f"SELECT count(*) FROM {table}").fetchone()
                if there[0] != counts[table]:
                    raise JournalError(f"Of {counts[table]} {table} {there[0]} arrived.")
            self._db.run(
                "SELECT setval(pg_get_serial_sequence('attempts', 'id'), (SELECT max(id) FROM attempts) + 1, false)"
            )
            self._db.run(
                "UPDATE keeper_journal SET next_order_id = 1 + (SELECT coalesce(max(id), 0) FROM orders), "
                "next_change_id = 1 + greatest((SELECT coalesce(max(id), 0) FROM changes), "
                "(SELECT coalesce(max(value::bigint), 0) FROM meta WHERE key = %s))",
                (PRUNED_TO,),
            )
        return counts

    def prune(self, retention: Retention, now: float | None) -> Pruned:
        """See Store."""
        with self._db.transaction():
            self._take_turn()
            return prune_step(self._db, retention, now)

    def probe(self) -> None:
        """See Store."""
        self._db.rollback()
        with self._db.transaction():
            self._take_turn()
            self._db.run(
                "INSERT INTO meta VALUES ('probed_at', %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (str(time.time()),),
            )

    def _take_turn(self) -> None:
        self._db.run(BOUNDS)
        turn = self._db.run(TURN)
        self._ids((turn, self._db.run(FENCE, (self._leases.life,))))

    def explain(self, error: BaseException) -> str:
        """See Store."""
        return explain(self._db.name, error)

    def tidy(self, *, idle: bool) -> None:
        """See Store: the server does its own."""

    def close(self) -> None:
        """See Store."""
        self._db.close()
        self._on_close()


def _markets(rows: Rows, ops: Sequence[Op]) -> Iterator[tuple[str, str]]:
    """The orders that operations act on, each with its market. What became of an attempt is any keeper's to say: its
    order's address may have another market's order by now.
    """
    for op in ops:
        if isinstance(op, (Intend, NoteOrder, Launched)):
            yield base58(op.order.address), base58(op.order.market)
        elif isinstance(op, AddAttempt) and (known := rows.orders.get(base58(op.attempt.order))) is not None:
            yield known.address, known.market


def _table(error: Exception) -> str | None:
    """The table in which a row would have been the second of its kind."""
    return error.diag.table_name if isinstance(error, errors.UniqueViolation) else None


def _refused_with(error: Exception) -> JournalError | None:
    return refusal(error, _table(error)) if _is_refusal(error) else None


def _is_refusal(error: Exception) -> bool:
    """Whether it is about one row (a broken rule, a number that does not fit), as opposed to a bad server."""
    if isinstance(error, psycopg.Error):
        return isinstance(error, (psycopg.IntegrityError, psycopg.DataError))
    return not isinstance(error, (OSError, MemoryError, JournalError))
