# ruff: noqa: S608  (the texts are put together from this module's constants; every value is a parameter)
"""Removing what is old and over, a little at a time."""

from __future__ import annotations

import time
from typing import Final

from keeper.journal.queries import PRUNED_TO
from keeper.journal.retention import Pruned, Retention
from keeper.journal.sql import ENDED_SQL, LIVE_SQL, Connection, json_list

_STEP: Final = 500
_DAY_S: Final = 86_400.0


def prune_step(db: Connection, retention: Retention, now: float | None = None) -> Pruned:
    """Remove at most some hundred rows of each kind, under the open transaction. `now`: unix seconds."""
    at = time.time() if now is None else now
    history = at - retention.history_days * _DAY_S
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
    return Pruned(orders, attempts, prepared, done=not (orders or attempts or prepared))


def _ended_orders(db: Connection, before: float) -> tuple[int, int]:
    """Ended orders that nothing happened to since: they go with their attempts and their history."""
    rows = db.execute(
        f"SELECT address FROM orders o INDEXED BY orders_ended WHERE closed = 1 AND updated_at < ? "
        f"AND NOT EXISTS (SELECT 1 FROM attempts WHERE order_address = o.address AND state IN ({LIVE_SQL})) "
        "ORDER BY updated_at LIMIT ?",
        (before, _STEP),
    ).fetchall()
    if not rows:
        return 0, 0
    addresses = json_list(address for (address,) in rows)
    those = "IN (SELECT value FROM json_each(?))"
    newest, known = db.execute(
        f"SELECT MAX(id), (SELECT value FROM meta WHERE key = ?) FROM changes "
        f"WHERE order_ref IN (SELECT id FROM orders WHERE address {those})",
        (PRUNED_TO, addresses),
    ).fetchone()
    if newest is not None:
        # A stream that resumes from before this can't be given every change any more, and is told so.
        db.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (PRUNED_TO, str(max(newest, int(known or 0)))),
        )
    their_ways = f"signature IN (SELECT signature FROM attempts WHERE order_address {those})"
    db.execute(f"DELETE FROM attempt_ways WHERE {their_ways}", (addresses,))
    attempts = db.execute(f"DELETE FROM attempts WHERE order_address {those}", (addresses,)).rowcount
    # The changes go with them, by their foreign key.
    orders = db.execute(f"DELETE FROM orders WHERE address {those}", (addresses,)).rowcount
    return orders, attempts


def _ended_attempts(db: Connection, before: float) -> int:
    """Ended attempts of orders that go on: a trailing stop is moved for as long as it rests.

    The order keeps its highest attempt number, so that the count goes on.
    """
    old = f"FROM attempts INDEXED BY attempts_ended WHERE signed_at < ? AND state IN ({ENDED_SQL})"
    these = f"{old} ORDER BY signed_at, id LIMIT ?"
    db.execute(f"DELETE FROM attempt_ways WHERE signature IN (SELECT signature {these})", (before, _STEP))
    return db.execute(f"DELETE FROM attempts WHERE id IN (SELECT id {these})", (before, _STEP)).rowcount
