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
from keeper.journal.postgres.dialect import postgres_sql
from keeper.journal.rows import (
    ORDER_COLUMNS,
    U64_COLUMNS,
    KnownAttempt,
    KnownPrepared,
    StoredOrder,
    Values,
)
from keeper.journal.sql import BLOCKING_SQL, columns_sql
from keeper.journal.touched import Rows, Wanted

Conn: TypeAlias = psycopg.Connection[tuple[Any, ...]]
Cursor: TypeAlias = psycopg.Cursor[tuple[Any, ...]]

_REALS: Final = frozenset(
    {
        "triggered_at", "first_seen_at", "updated_at", "signed_at", "sent_at", "confirmed_at", "finalized_at",
        "ended_at", "at", "answered_at",
    }
)  # fmt: skip
_INTEGERS: Final = U64_COLUMNS | {
    "order_type", "side", "leverage", "onchain_status", "expires_at", "version", "budget_used", "attempts_made",
    "closed", "number", "unit_limit", "order_ref", "posted_published_at", "sends",
}  # fmt: skip
_ORDERS: Final = f"SELECT {columns_sql(ORDER_COLUMNS)} FROM orders WHERE address = ANY (%s)"
_LIVE: Final = f"SELECT order_address, signature FROM attempts WHERE {BLOCKING_SQL} AND order_address = ANY (%s)"
_ATTEMPTS: Final = "SELECT id, signature, order_address, kind, state FROM attempts WHERE signature = ANY (%s)"
_PREPARED: Final = (
    "SELECT id, idempotency_key, status, signature FROM prepared WHERE id = ANY (%s) OR idempotency_key = ANY (%s)"
)
_META: Final = "SELECT key, value FROM meta WHERE key = ANY (%s)"


class Asked:
    """The wanted rows, asked for in a pipeline and not read yet."""

    def __init__(self, conn: Conn, wanted: Wanted) -> None:
        self._orders = conn.execute(_ORDERS, (list(wanted.orders),)) if wanted.orders else None
        self._live = conn.execute(_LIVE, (list(wanted.live),)) if wanted.live else None
        self._attempts = conn.execute(_ATTEMPTS, (list(wanted.attempts),)) if wanted.attempts else None
        self._prepared: Cursor | None = None
        if wanted.prepared or wanted.prepared_keys:
            self._prepared = conn.execute(_PREPARED, (list(wanted.prepared), list(wanted.prepared_keys)))
        self._meta = conn.execute(_META, (list(wanted.meta),)) if wanted.meta else None

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
        rows.meta.update(self._meta or ())


class PostgresWriting:
    """See Writing."""

    def __init__(self, conn: Conn) -> None:
        self._conn = conn

    def execute(self, sql: str, args: Any = (), /) -> object:
        """See Writing."""
        return self._conn.execute(postgres_sql(sql), args)

    def insert(self, table: str, columns: tuple[str, ...], rows: Sequence[Values], then: str = "") -> None:
        """See Writing."""
        self._conn.execute(_insert_sql(table, columns, then), [list(column) for column in zip(*rows, strict=True)])

    def update(self, table: str, columns: tuple[str, ...], rows: Sequence[Values]) -> None:
        """See Writing."""
        self._conn.execute(_update_sql(table, columns), [list(column) for column in zip(*rows, strict=True)])


@functools.cache
def _insert_sql(table: str, columns: tuple[str, ...], then: str) -> str:
    arrays = ", ".join(f"%s::{_type(table, column)}[]" for column in columns)
    return f"INSERT INTO {table} ({columns_sql(columns)}) SELECT * FROM unnest({arrays}) {then}".rstrip()


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
