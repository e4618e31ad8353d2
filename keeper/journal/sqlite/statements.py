# ruff: noqa: S608  (the texts are put together from this module's constants; every value is a parameter)
"""Loading the rows that a group touches, and writing them back, in as few statements as there are kinds of rows.

Why in bulk: Python gives up its lock at every step of every statement, and gets it back from a busy event loop
only after a switch interval (5 ms). A thousand small statements beside a loop that is signing would take
seconds; a dozen large ones take as long as their work. So rows are loaded as one JSON value, and written by
statements with many rows of parameters, in chunks of powers of two so that few texts are ever prepared.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

import msgspec
from sqlite_utils import Database

from keeper.domain.attempts import AttemptKind, AttemptState
from keeper.journal.rows import (
    ORDER_COLUMNS,
    KnownAttempt,
    KnownPrepared,
    StoredOrder,
    Values,
)
from keeper.journal.sql import BLOCKING_SQL
from keeper.journal.touched import Rows, Wanted

_MAX_PARAMETERS: Final = 32_000
"""SQLite's default limit is 32,766 in one statement."""
_FEW: Final = 4

_REALS: Final = frozenset({"triggered_at", "first_seen_at", "updated_at"})
_REAL_PLACES: Final = tuple(i for i, column in enumerate(ORDER_COLUMNS) if column in _REALS)
_ORDER_SQL: Final = ", ".join(ORDER_COLUMNS)
# 17 digits bring a double back exactly; json_array itself would write 15.
_ORDER_JSON: Final = ", ".join(
    f"iif({column} IS NULL, NULL, printf('%!.17g', {column}))" if column in _REALS else column
    for column in ORDER_COLUMNS
)
_LIVE_FROM: Final = f"FROM attempts INDEXED BY one_live_attempt WHERE {BLOCKING_SQL} AND order_address"
_ATTEMPT_SQL: Final = "id, signature, order_address, kind, state"
_ONE: Final = {
    "orders": f"SELECT {_ORDER_SQL} FROM orders WHERE address = ?",
    "live": f"SELECT order_address, signature {_LIVE_FROM} = ?",
    "attempts": f"SELECT {_ATTEMPT_SQL} FROM attempts WHERE signature = ?",
}
"""The statements for one key: a lone tick waits for them, and without the way through JSON they are quicker."""
_MANY: Final = {
    "orders": f"SELECT json_group_array(json_array({_ORDER_JSON})) FROM orders "
    "WHERE address IN (SELECT value FROM json_each(?))",
    "live": f"SELECT json_group_array(json_array(order_address, signature)) {_LIVE_FROM} "
    "IN (SELECT value FROM json_each(?))",
    "attempts": f"SELECT json_group_array(json_array({_ATTEMPT_SQL})) FROM attempts "
    "WHERE signature IN (SELECT value FROM json_each(?))",
}
_PREPARED: Final = """
    SELECT json_group_array(json_array(id, idempotency_key, status, signature)) FROM prepared
    WHERE id IN (SELECT value FROM json_each(?1))
        OR (idempotency_key IS NOT NULL AND idempotency_key IN (SELECT value FROM json_each(?2)))
"""


def load(db: Database, wanted: Wanted, rows: Rows) -> None:
    """Read the wanted rows, under the open transaction."""
    if wanted.orders:
        many = len(wanted.orders) > _FEW
        for values in _found(db, "orders", wanted.orders):
            if many:
                for place in _REAL_PLACES:
                    values[place] = None if values[place] is None else float(values[place])
            order = StoredOrder(*values)
            rows.loaded[order.address] = rows.orders[order.address] = order
    if wanted.live:
        rows.live.update(_found(db, "live", wanted.live))
    if wanted.attempts:
        for id_, signature, order_address, kind, state in _found(db, "attempts", wanted.attempts):
            rows.attempts[signature] = KnownAttempt(
                id_, signature, order_address, AttemptKind(kind), AttemptState(state), {}
            )
    if wanted.prepared or wanted.prepared_keys:
        for id_, key, status, signature in _json(db, _PREPARED, wanted.prepared, wanted.prepared_keys):
            rows.prepared[id_] = KnownPrepared(id_, key, status, signature)
            if key is not None:
                rows.prepared_keys[key] = id_
    for key in wanted.meta:
        rows.meta.update(db.conn.execute("SELECT key, value FROM meta WHERE key = ?", (key,)).fetchall())


def _found(db: Database, what: str, keys: Collection[str]) -> Any:
    if len(keys) > _FEW:
        return _json(db, _MANY[what], keys)
    sql, found = _ONE[what], []
    for key in keys:
        found += db.conn.execute(sql, (key,)).fetchall()
    return found


def _json(db: Database, sql: str, *keys: Collection[str]) -> Any:
    arguments = [msgspec.json.encode(list(some)).decode() for some in keys]
    (text,) = db.conn.execute(sql, arguments).fetchone()
    return msgspec.json.decode(text)


class SqliteWriting:
    """See Writing."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def execute(self, sql: str, args: Any = (), /) -> object:
        """See Writing."""
        return self._db.conn.execute(sql, args)

    def insert(self, table: str, columns: tuple[str, ...], rows: Sequence[Values], then: str = "") -> None:
        """See Writing."""
        if len(rows) == 1:
            self.execute(_insert_sql(table, columns, 1, then), rows[0])
            return
        for chunk in _chunks(rows, len(columns)):
            self.execute(_insert_sql(table, columns, len(chunk), then), [value for row in chunk for value in row])

    def update(self, table: str, columns: tuple[str, ...], rows: Sequence[Values]) -> None:
        """See Writing."""
        if len(rows) == 1:
            self.execute(_update_sql(table, columns, 1), rows[0])
            return
        for chunk in _chunks(rows, len(columns) + 1):
            self.execute(_update_sql(table, columns, len(chunk)), [value for row in chunk for value in row])


def _chunks(rows: Sequence[Values], width: int) -> Iterator[Sequence[Values]]:
    """Cut into powers of two, largest first: at most ten different lengths, so ten prepared statements a table."""
    start, size = 0, 512
    while size * width > _MAX_PARAMETERS:
        size //= 2
    while start < len(rows):
        while size > len(rows) - start:
            size //= 2
        yield rows[start : start + size]
        start += size


@functools.cache
def _insert_sql(table: str, columns: tuple[str, ...], count: int, then: str) -> str:
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * count)} {then}".rstrip()


@functools.lru_cache(maxsize=1_024)
def _update_sql(table: str, columns: tuple[str, ...], count: int) -> str:
    if count == 1:
        # By far the most frequent, and without the detour over a table of one row twice as fast.
        alone = ", ".join(f"{column} = ?{n}" for n, column in enumerate(columns, start=2))
        return f"UPDATE {table} SET {alone} WHERE id = ?1"
    row = f"({', '.join('?' * (len(columns) + 1))})"
    values = ", ".join([row] * count)
    assignments = ", ".join(f"{column} = new.column{n}" for n, column in enumerate(columns, start=2))
    return f"UPDATE {table} SET {assignments} FROM (VALUES {values}) AS new WHERE {table}.id = new.column1"
