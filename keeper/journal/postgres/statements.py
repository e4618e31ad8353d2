# ruff: noqa: S608  (the texts are put together from this module's constants; every value is a parameter)
"""Loading the rows that a group touches, and writing them back: one statement a kind of rows, whatever their number.

Rows travel as arrays, a column each, so that a statement's text does not depend on how many there are and is prepared
once. All statements of a step go to the server together (libpq's pipeline): a commit takes two round trips.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import psycopg

from keeper.domain.attempts import AttemptKind, AttemptState
from keeper.journal.rows import (
    ATTEMPTS,
    CHANGE_COLUMNS,
    ORDER_COLUMNS,
    PREPARED,
    U64_COLUMNS,
    KnownAttempt,
    KnownPrepared,
    StoredOrder,
    Values,
    prepared_values,
)
from keeper.journal.sql import BLOCKING_SQL, columns_sql
from keeper.journal.touched import Rows, Wanted

Conn: TypeAlias = psycopg.Connection[tuple[Any, ...]]
Cursor: TypeAlias = psycopg.Cursor[tuple[Any, ...]]

_REALS: Final = frozenset(
    {
        "triggered_at", "first_seen_at", "updated_at", "signed_at", "sent_at", "confirmed_at", "finalized_at",
        "ended_at", "at",
    }
)  # fmt: skip
_INTEGERS: Final = U64_COLUMNS | {
    "order_type", "side", "leverage", "onchain_status", "expires_at", "version", "budget_used", "attempts_made",
    "closed", "number", "unit_limit", "order_ref",
}  # fmt: skip
_ORDERS: Final = f"SELECT {columns_sql(ORDER_COLUMNS)} FROM orders WHERE address = ANY (%s)"
_LIVE: Final = f"SELECT order_address, signature FROM attempts WHERE {BLOCKING_SQL} AND order_address = ANY (%s)"
_ATTEMPTS: Final = "SELECT id, signature, order_address, kind, state FROM attempts WHERE signature = ANY (%s)"
_PREPARED: Final = (
    "SELECT id, idempotency_key, status, signature FROM prepared WHERE id = ANY (%s) OR idempotency_key = ANY (%s)"
)


class Asked:
    """The wanted rows, asked for in a pipeline and not read yet."""

    def __init__(self, conn: Conn, wanted: Wanted) -> None:
        self._orders = conn.execute(_ORDERS, (list(wanted.orders),)) if wanted.orders else None
        self._live = conn.execute(_LIVE, (list(wanted.live),)) if wanted.live else None
        self._attempts = conn.execute(_ATTEMPTS, (list(wanted.attempts),)) if wanted.attempts else None
        self._prepared: Cursor | None = None
        if wanted.prepared or wanted.prepared_keys:
            self._prepared = conn.execute(_PREPARED, (list(wanted.prepared), list(wanted.prepared_keys)))

    def read(self, rows: Rows) -> None:
        """Put what was found into the rows."""
        for values in self._orders or ():
            order = StoredOrder(*values)
            rows.loaded[order.address] = rows.orders[order.address] = order
        for order_address, signature in self._live or ():
            rows.live[order_address] = signature
        for id_, signature, order_address, kind, state in self._attempts or ():
            rows.attempts[signature] = KnownAttempt(
                id_, signature, order_address, AttemptKind(kind), AttemptState(state), {}
            )
        for id_, key, status, signature in self._prepared or ():
            rows.prepared[id_] = KnownPrepared(id_, key, status, signature)
            if key is not None:
                rows.prepared_keys[key] = id_


def save(conn: Conn, rows: Rows) -> None:
    """Write what changed, under the open transaction. The order matters, as in SQLite's."""
    _save_orders(conn, rows)
    if rows.attempts:
        _save_moves(conn, rows)
    if rows.added:
        insert(conn, "attempts", ATTEMPTS.columns, [ATTEMPTS.values(attempt) for attempt in rows.added.values()])
    if rows.changes:
        insert(conn, "changes", CHANGE_COLUMNS, rows.change_writes())
    if rows.prepared or rows.meta or rows.spend:
        _save_rest(conn, rows)


def _save_orders(conn: Conn, rows: Rows) -> None:
    new, changed = rows.order_writes()
    if new:
        insert(conn, "orders", ORDER_COLUMNS, new)
    for columns, group in changed.items():
        _update(conn, "orders", columns, group)
    if rows.bumped:
        conn.execute("UPDATE orders SET version = version + 1 WHERE address = ANY (%s)", (list(rows.bumped),))


def _save_moves(conn: Conn, rows: Rows) -> None:
    gone, moved = rows.attempt_writes()
    if gone:
        conn.execute("DELETE FROM attempts WHERE id = ANY (%s)", (gone,))
    for columns, group in moved.items():
        _update(conn, "attempts", columns, group)


def _save_rest(conn: Conn, rows: Rows) -> None:
    for known in rows.prepared_writes():
        if known.dropped:
            conn.execute("DELETE FROM prepared WHERE id = %s", (known.id,))
        elif known.row is not None:
            insert(conn, "prepared", PREPARED.columns, [prepared_values(known)])
        elif known.moved:
            moved = (known.status, known.signature, known.id)
            conn.execute("UPDATE prepared SET status = %s, signature = %s WHERE id = %s", moved)
    for key, value in rows.meta.items():
        if value is None:
            conn.execute("DELETE FROM meta WHERE key = %s", (key,))
        else:
            conn.execute(
                "INSERT INTO meta VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
            )
    for day, lamports in rows.spend.items():
        conn.execute(
            "INSERT INTO daily_spend AS d VALUES (%s, %s) "
            "ON CONFLICT (day) DO UPDATE SET lamports = d.lamports + excluded.lamports",
            (day, lamports),
        )


def insert(conn: Conn, table: str, columns: tuple[str, ...], rows: Sequence[Values]) -> None:
    """Insert rows, by columns."""
    conn.execute(_insert_sql(table, columns), [list(column) for column in zip(*rows, strict=True)])


def _update(conn: Conn, table: str, columns: tuple[str, ...], rows: Sequence[Values]) -> None:
    """Update rows by id, which is each one's first value."""
    conn.execute(_update_sql(table, columns), [list(column) for column in zip(*rows, strict=True)])


@functools.cache
def _insert_sql(table: str, columns: tuple[str, ...]) -> str:
    arrays = ", ".join(f"%s::{_type(table, column)}[]" for column in columns)
    return f"INSERT INTO {table} ({columns_sql(columns)}) SELECT * FROM unnest({arrays})"


@functools.lru_cache(maxsize=1_024)
def _update_sql(table: str, columns: tuple[str, ...]) -> str:
    arrays = ", ".join(["%s::bigint[]", *(f"%s::{_type(table, column)}[]" for column in columns)])
    names = ", ".join(["id", *(f"c{n}" for n in range(len(columns)))])
    given = ", ".join(f"{columns_sql([column])} = new.c{n}" for n, column in enumerate(columns))
    return f"UPDATE {table} SET {given} FROM unnest({arrays}) AS new ({names}) WHERE {table}.id = new.id"


def _type(table: str, column: str) -> str:
    if column in ("wire", "message"):
        return "bytea"
    if column in _REALS or (column, table) == ("created_at", "prepared"):
        return "double precision"
    whole = column in _INTEGERS or (column in ("id", "created_at") and table != "prepared")
    return "bigint" if whole else "text"
