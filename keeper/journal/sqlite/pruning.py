# ruff: noqa: S608  (the texts are put together from this module's constants; every value is a parameter)
"""Removing what is old and over, a little at a time."""

from __future__ import annotations

import time
from typing import Final

import msgspec
from sqlite_utils import Database

from keeper.journal.retention import Pruned, Retention
from keeper.journal.sqlite.queries import PRUNED_TO
from keeper.journal.sqlite.schema import ENDED_SQL, LIVE_SQL

_STEP: Final = 500
_DAY_S: Final = 86_400.0


def prune_step(db: Database, retention: Retention, now: float | None = None) -> Pruned:
    """Remove at most some hundred rows of each kind, in a transaction of its own. `now`: unix seconds."""
    at = time.time() if now is None else now
    history = at - retention.history_days * _DAY_S
    db.execute("BEGIN IMMEDIATE")
    orders, attempts = _ended_orders(db, history)
    attempts += _ended_attempts(db, history)
    prepared = 0
    unsigned = "prepared INDEXED BY prepared_unsigned WHERE status = 'prepared' AND"
    for which, hours in (("prepared WHERE", retention.prepared_hours), (unsigned, retention.unsigned_hours)):
        prepared += db.execute(
            f"DELETE FROM prepared WHERE id IN (SELECT id FROM {which} created_at < ? ORDER BY created_at LIMIT ?)",
            (at - hours * 3_600.0, _STEP),
        ).rowcount
    oldest_day = time.strftime("%Y-%m-%d", time.gmtime(at - retention.spend_days * _DAY_S))
    db.execute("DELETE FROM daily_spend WHERE day < ?", (oldest_day,))
    db.execute("COMMIT")
    return Pruned(orders, attempts, prepared, done=not (orders or attempts or prepared))


def _ended_orders(db: Database, before: float) -> tuple[int, int]:
    """Ended orders that nothing happened to since: they go with their attempts and their history."""
    rows = db.execute(
        f"SELECT id, address FROM orders o INDEXED BY orders_ended WHERE closed = 1 AND updated_at < ? "
        f"AND NOT EXISTS (SELECT 1 FROM attempts WHERE order_address = o.address AND state IN ({LIVE_SQL})) "
        "ORDER BY updated_at LIMIT ?",
        (before, _STEP),
    ).fetchall()
    if not rows:
        return 0, 0
    ids = msgspec.json.encode([id_ for id_, _ in rows]).decode()
    addresses = msgspec.json.encode([address for _, address in rows]).decode()
    (pruned_to,) = db.execute(
        "SELECT MAX(id) FROM changes WHERE order_ref IN (SELECT value FROM json_each(?))", (ids,)
    ).fetchone()
    if pruned_to is not None:
        # A stream that resumes from before this can't be given every change any more, and is told so.
        db.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE "
            "SET value = MAX(CAST(value AS INTEGER), CAST(excluded.value AS INTEGER))",
            (PRUNED_TO, str(pruned_to)),
        )
    attempts = db.execute(
        "DELETE FROM attempts WHERE order_address IN (SELECT value FROM json_each(?))", (addresses,)
    ).rowcount
    # The changes go with them, by their foreign key.
    orders = db.execute("DELETE FROM orders WHERE id IN (SELECT value FROM json_each(?))", (ids,)).rowcount
    return orders, attempts


def _ended_attempts(db: Database, before: float) -> int:
    """Ended attempts of orders that go on: a trailing stop is moved for as long as it rests.

    The order keeps its highest attempt number, so that the count goes on.
    """
    return db.execute(
        f"DELETE FROM attempts WHERE id IN (SELECT id FROM attempts INDEXED BY attempts_ended WHERE signed_at < ? "
        f"AND state IN ({ENDED_SQL}) ORDER BY signed_at LIMIT ?)",
        (before, _STEP),
    ).rowcount
