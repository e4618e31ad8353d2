"""Writing back the rows that a group touched: the same statements for every store, in SQLite's dialect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec

from keeper.journal.rows import ATTEMPTS, CHANGE_COLUMNS, ORDER_COLUMNS, PREPARED, WAYS, Values, prepared_values
from keeper.journal.sql import json_list
from keeper.journal.touched import Rows

_ADDED_UP: Final = (
    "ON CONFLICT (signature, way) DO UPDATE SET sends = attempt_ways.sends + excluded.sends, "
    "answer = COALESCE(excluded.answer, attempt_ways.answer), "
    "detail = CASE WHEN excluded.answer IS NULL THEN attempt_ways.detail ELSE excluded.detail END, "
    "answered_at = COALESCE(excluded.answered_at, attempt_ways.answered_at)"
)
"""What `WayRow.and_then` does."""


class Writing(Protocol):
    """What runs statements under the open transaction, and has its own ones for many rows."""

    def execute(self, sql: str, args: Any = (), /) -> object:
        """Run one statement, in SQLite's dialect."""
        ...

    def insert(self, table: str, columns: tuple[str, ...], rows: Sequence[Values], then: str = "") -> None:
        """Insert rows, by columns; `then` says what to do about one that is there already."""
        ...

    def update(self, table: str, columns: tuple[str, ...], rows: Sequence[Values]) -> None:
        """Update rows by id, which is each one's first value."""
        ...


def save(to: Writing, rows: Rows) -> None:
    """Write what changed.

    The order matters: orders before the changes that refer to them, and attempts that end before new ones begin,
    so that an order's old attempt makes room in the index before the next one takes its place.
    """
    _save_orders(to, rows)
    if rows.attempts:
        _save_moves(to, rows)
    if rows.added:
        to.insert("attempts", ATTEMPTS.columns, [ATTEMPTS.values(attempt) for attempt in rows.added.values()])
    if rows.changes:
        to.insert("changes", CHANGE_COLUMNS, rows.change_writes())
    if rows.ways:
        to.insert("attempt_ways", WAYS.columns, [WAYS.values(row) for row in rows.ways.values()], _ADDED_UP)
    if rows.prepared or rows.meta or rows.spend:
        _save_rest(to, rows)


def _save_orders(to: Writing, rows: Rows) -> None:
    new, changed = rows.order_writes()
    if new:
        to.insert("orders", ORDER_COLUMNS, new)
    for columns, group in changed.items():
        to.update("orders", columns, group)
    if rows.bumped:
        bumped = "UPDATE orders SET version = version + 1 WHERE address IN (SELECT value FROM json_each(?))"
        to.execute(bumped, (json_list(rows.bumped),))


def _save_moves(to: Writing, rows: Rows) -> None:
    gone, moved = rows.attempt_writes()
    if gone:
        ids = msgspec.json.encode(gone).decode()
        to.execute("DELETE FROM attempts WHERE id IN (SELECT CAST(value AS INTEGER) FROM json_each(?))", (ids,))
    for columns, group in moved.items():
        to.update("attempts", columns, group)


def _save_rest(to: Writing, rows: Rows) -> None:
    for known in rows.prepared_writes():
        if known.dropped:
            to.execute("DELETE FROM prepared WHERE id = ?", (known.id,))
        elif known.row is not None:
            to.insert("prepared", PREPARED.columns, [prepared_values(known)])
        elif known.moved:
            moved = (known.status, known.signature, known.id)
            to.execute("UPDATE prepared SET status = ?, signature = ? WHERE id = ?", moved)
    for key, value in rows.meta.items():
        if value is None:
            to.execute("DELETE FROM meta WHERE key = ?", (key,))
        else:
            written = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
            to.execute(written, (key, value))
    for day, lamports in rows.spend.items():
        to.execute(
            "INSERT INTO daily_spend AS d VALUES (?, ?) "
            "ON CONFLICT (day) DO UPDATE SET lamports = d.lamports + excluded.lamports",
            (day, lamports),
        )
