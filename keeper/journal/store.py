# ruff: noqa: S608  (the texts are put together from this module's constants; every value is a parameter)
"""Loading the rows that a group touches, and writing them back, in as few statements as there are kinds of rows.

Why in bulk: Python gives up its lock at every step of every statement, and gets it back from a busy event loop
only after a switch interval (5 ms). A thousand small statements beside a loop that is signing would take
seconds; a dozen large ones take as long as their work. So rows are loaded as one JSON value, and written by
statements with many rows of parameters, in chunks of powers of two so that few texts are ever prepared.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
from sqlite_utils import Database

from keeper.domain.attempts import AttemptKind, AttemptState
from keeper.domain.base58 import base58
from keeper.domain.orders import OrderState
from keeper.journal import ops as o
from keeper.journal.drafts import (
    FACT_COLUMNS,
    PATCH_COLUMNS,
    AttemptDraft,
    OrderDraft,
    PreparedDraft,
)
from keeper.journal.integers import to_stored, to_stored_opt
from keeper.journal.schema import BLOCKING_SQL
from keeper.journal.workspace import Rows

_MAX_PARAMETERS: Final = 32_000
"""SQLite's default limit is 32,766 in one statement."""

# 17 digits bring a double back exactly; json_array itself would write 15.
_ORDER_HEAD: Final = (
    "id, address, slot, state, reason, printf('%!.17g', triggered_at), trigger_price, trigger_slot, position, "
    "budget_used, printf('%!.17g', next_attempt_at), attempts_made, client_order_id, source, version, "
    "triggered_at IS NULL, next_attempt_at IS NULL"
)
_ORDER_HEAD_ALONE: Final = (
    "id, address, slot, state, reason, triggered_at, trigger_price, trigger_slot, position, "
    "budget_used, next_attempt_at, attempts_made, client_order_id, source, version, "
    "triggered_at IS NULL, next_attempt_at IS NULL"
)
_ORDERS: Final = f"""
    SELECT json_group_array(json_array({_ORDER_HEAD}))
    FROM orders WHERE address IN (SELECT value FROM json_each(?))
"""
_ORDERS_AND_FACTS: Final = f"""
    SELECT json_group_array(json_array({_ORDER_HEAD}, {", ".join(FACT_COLUMNS)}))
    FROM orders WHERE address IN (SELECT value FROM json_each(?))
"""
_FIRST_FACT: Final = 17
_ATTEMPTS: Final = """
    SELECT json_group_array(json_array(id, signature, order_address, kind, state))
    FROM attempts WHERE signature IN (SELECT value FROM json_each(?))
"""
_LIVE: Final = f"""
    SELECT json_group_array(json_array(order_address, signature))
    FROM attempts INDEXED BY one_live_attempt
    WHERE order_address IN (SELECT value FROM json_each(?))
        AND {BLOCKING_SQL}
"""
_ALONE: Final = {
    _ORDERS: f"SELECT {_ORDER_HEAD_ALONE} FROM orders WHERE address = ?",
    _ORDERS_AND_FACTS: f"SELECT {_ORDER_HEAD_ALONE}, {', '.join(FACT_COLUMNS)} FROM orders WHERE address = ?",
    _ATTEMPTS: "SELECT id, signature, order_address, kind, state FROM attempts WHERE signature = ?",
    _LIVE: f"""
        SELECT order_address, signature FROM attempts INDEXED BY one_live_attempt
        WHERE order_address = ? AND {BLOCKING_SQL}
    """,
}
"""The same for one key: a lone tick waits for it, and without the way through JSON it is quicker."""
_FEW: Final = 4
_PREPARED: Final = """
    SELECT json_group_array(json_array(id, idempotency_key, status, signature)) FROM prepared
    WHERE id IN (SELECT value FROM json_each(?1))
        OR (idempotency_key IS NOT NULL AND idempotency_key IN (SELECT value FROM json_each(?2)))
"""


def load(db: Database, groups: Iterable[Sequence[o.Op]], rows: Rows) -> None:
    """Read what the operations are going to look at into `rows`, under the open transaction."""
    orders: dict[str, None] = {}
    noted: dict[str, None] = {}
    attempts: dict[str, None] = {}
    adding: dict[str, None] = {}
    prepared: dict[str, None] = {}
    keys: dict[str, None] = {}
    for ops in groups:
        for op in ops:
            match op:
                case o.NoteOrder():
                    noted[base58(op.order.address)] = None
                case o.NoteState() | o.UseBudget() | o.ResetBudget():
                    orders[base58(op.address)] = None
                case o.AddAttempt():
                    order = base58(op.attempt.order)
                    orders[order] = adding[order] = attempts[base58(op.attempt.signature)] = None
                case o.Intend():
                    order = base58(op.order.address)
                    noted[order] = adding[order] = attempts[base58(op.attempt.signature)] = None
                case o.MoveAttempt():
                    attempts[base58(op.signature)] = None
                case o.AddPrepared():
                    prepared[op.prepared.id] = None
                    if op.prepared.idempotency_key is not None:
                        keys[op.prepared.idempotency_key] = None
                case o.MovePrepared():
                    prepared[op.id] = None
                case o.SetMeta() | o.AddSpend():
                    pass
    if attempts:
        for id_, signature, order, kind, state in _found(db, _ATTEMPTS, attempts):
            rows.attempts[signature] = AttemptDraft(id_, signature, order, AttemptKind(kind), AttemptState(state))
    if adding:
        for order, signature in _found(db, _LIVE, adding):
            rows.live[order] = signature
    # Facts are loaded only for the orders that are compared with new ones.
    bare = [address for address in orders if address not in noted]
    for sql, addresses in ((_ORDERS_AND_FACTS, noted), (_ORDERS, bare)):
        if addresses:
            for row in _found(db, sql, addresses):
                draft = _order_draft(row)
                rows.orders[draft.address] = draft
    if prepared or keys:
        for id_, key, status, signature in _json(db, _PREPARED, prepared, keys):
            rows.prepared[id_] = PreparedDraft(id_, key, status, signature)
            if key is not None:
                rows.prepared_keys[key] = id_


def _found(db: Database, sql: str, keys: Collection[str]) -> Any:
    if len(keys) > _FEW:
        return _json(db, sql, keys)
    alone = _ALONE[sql]
    return [row for key in keys for row in db.conn.execute(alone, (key,)).fetchall()]


def _json(db: Database, sql: str, *keys: Iterable[str]) -> Any:
    arguments = [msgspec.json.encode(list(some)).decode() for some in keys]
    (text,) = db.execute(sql, arguments).fetchone()
    return msgspec.json.decode(text)


def _order_draft(row: Sequence[Any]) -> OrderDraft:
    return OrderDraft(
        id=row[0],
        address=row[1],
        facts=tuple(row[_FIRST_FACT:]) or None,
        slot=row[2],
        state=OrderState(row[3]),
        reason=row[4],
        triggered_at=None if row[15] else float(row[5]),
        trigger_price=row[6],
        trigger_slot=row[7],
        position=row[8],
        budget_used=row[9],
        next_attempt_at=None if row[16] else float(row[10]),
        attempts_made=row[11],
        client_order_id=row[12],
        source=row[13],
        version=row[14],
    )


def save(db: Database, rows: Rows) -> None:
    """Write what changed, under the open transaction.

    The order matters: orders before the changes that refer to them, and attempts that end before new ones begin,
    so that an order's old attempt makes room in the index before the next one takes its place.
    """
    _save_orders(db, rows)
    _save_attempts(db, rows)
    if rows.changes:
        _insert(
            db,
            "changes",
            ("id", "order_ref", "state", "reason", "at", "slot"),
            [(c.id, c.order_ref, c.state.value, c.reason, c.at, c.slot) for c in rows.changes],
        )
    _save_prepared(db, rows)
    for key, value in rows.meta.items():
        if value is None:
            db.execute("DELETE FROM meta WHERE key = ?", (key,))
        else:
            db.execute(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (key, value),
            )
    for day, lamports in rows.spend.items():
        db.execute(
            "INSERT INTO daily_spend VALUES (?, ?) "
            "ON CONFLICT (day) DO UPDATE SET lamports = lamports + excluded.lamports",
            (day, lamports),
        )


# --- orders

_ALWAYS: Final = (
    "slot",
    "reason",
    "triggered_at",
    "trigger_price",
    "trigger_slot",
    "position",
    "budget_used",
    "next_attempt_at",
    "attempts_made",
    "updated_at",
    "version",
)
_KEYS: Final = ("client_order_id", "closed")
_NEW: Final = ("id", *_ALWAYS, *FACT_COLUMNS, "state", *_KEYS, "address", "source", "first_seen_at")


def _save_orders(db: Database, rows: Rows) -> None:
    new: list[tuple[Any, ...]] = []
    changed: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    for draft in rows.orders.values():
        if draft is None or not draft.dirty:
            continue
        rows.bumped.pop(draft.address, None)
        always = (
            draft.id,
            draft.slot,
            draft.reason,
            draft.triggered_at,
            draft.trigger_price,
            draft.trigger_slot,
            draft.position,
            draft.budget_used,
            draft.next_attempt_at,
            draft.attempts_made,
            draft.updated_at,
            draft.version,
        )
        facts = draft.facts or ()
        state = (draft.state.value,)
        keys = (draft.client_order_id, int(draft.closed))
        if draft.is_new:
            new.append((*always, *facts, *state, *keys, draft.address, draft.source, draft.first_seen_at))
            continue
        columns: tuple[str, ...] = _ALWAYS
        values: tuple[Any, ...] = always
        if draft.new_facts:
            columns, values = columns + FACT_COLUMNS, values + facts
        if draft.new_state:
            columns, values = (*columns, "state"), values + state
        if draft.new_keys:
            columns, values = columns + _KEYS, values + keys
        changed.setdefault(columns, []).append(values)
    _insert(db, "orders", _NEW, new)
    for columns, group in changed.items():
        _update(db, "orders", columns, group)
    if rows.bumped:
        db.execute(
            "UPDATE orders SET version = version + 1 WHERE address IN (SELECT value FROM json_each(?))",
            (msgspec.json.encode(list(rows.bumped)).decode(),),
        )


# --- attempts

_ATTEMPT_NEW: Final = (
    "signature",
    "kind",
    "order_address",
    "wire",
    "blockhash",
    "last_valid_block_height",
    "state",
    "number",
    "signed_at",
    "trigger_price",
    "trigger_slot",
    "unit_limit",
    "unit_price",
    *PATCH_COLUMNS,
)


def _save_attempts(db: Database, rows: Rows) -> None:
    new: list[tuple[Any, ...]] = []
    moved: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    for draft in rows.attempts.values():
        if draft is None:
            continue
        if draft.attempt is not None:
            new.append(_attempt_row(draft))
        elif draft.moved:
            columns = ("state", *draft.patch)
            moved.setdefault(columns, []).append((draft.id, draft.state.value, *draft.patch.values()))
    for columns, group in moved.items():
        _update(db, "attempts", columns, group)
    _insert(db, "attempts", _ATTEMPT_NEW, new)


def _attempt_row(draft: AttemptDraft) -> tuple[Any, ...]:
    attempt = draft.attempt
    assert attempt is not None
    stored = {
        "sent_at": attempt.sent_at,
        "seen_slot": to_stored_opt(attempt.seen_slot),
        "confirmed_at": attempt.confirmed_at,
        "finalized_at": attempt.finalized_at,
        "ended_at": attempt.ended_at,
        "fate": attempt.fate,
        "error_name": attempt.error_name,
        "error_program": attempt.error_program,
        "error_detail": attempt.error_detail,
        "fee_lamports": to_stored_opt(attempt.fee_lamports),
        "position": None if attempt.position is None else base58(attempt.position),
        **draft.patch,
    }
    return (
        draft.signature,
        attempt.kind.value,
        draft.order,
        attempt.wire,
        attempt.blockhash,
        to_stored(attempt.last_valid_block_height),
        draft.state.value,
        attempt.number,
        attempt.signed_at,
        to_stored_opt(attempt.trigger_price_1e6),
        to_stored_opt(attempt.trigger_slot),
        attempt.unit_limit,
        to_stored_opt(attempt.unit_price_micro_lamports),
        *(stored[column] for column in PATCH_COLUMNS),
    )


# --- prepared transactions


def _save_prepared(db: Database, rows: Rows) -> None:
    for draft in rows.prepared.values():
        if draft is None:
            continue
        row = draft.row
        if row is not None:
            db.execute(
                "INSERT INTO prepared (id, kind, idempotency_key, body_hash, order_address, user, market, message, "
                "arguments, client_order_id, blockhash, last_valid_block_height, created_at, status, signature) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    row.id,
                    row.kind.value,
                    row.idempotency_key,
                    row.body_hash,
                    str(row.order),
                    str(row.user),
                    str(row.market),
                    row.message,
                    msgspec.json.encode(row.arguments).decode(),
                    row.client_order_id,
                    row.blockhash,
                    to_stored(row.last_valid_block_height),
                    row.created_at,
                    draft.status,
                    draft.signature,
                ),
            )
        elif draft.moved:
            db.execute(
                "UPDATE prepared SET status = ?, signature = ? WHERE id = ?",
                (draft.status, draft.signature, draft.id),
            )


# --- statements with many rows


def _insert(db: Database, table: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    for chunk in _chunks(rows, len(columns)):
        db.execute(_insert_sql(table, columns, len(chunk)), [value for row in chunk for value in row])


def _update(db: Database, table: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """Update rows by id, which is each one's first value."""
    for chunk in _chunks(rows, len(columns) + 1):
        sql = _update_sql(table, columns, len(chunk))
        db.execute(sql, [value for row in chunk for value in row])


def _chunks(rows: list[tuple[Any, ...]], width: int) -> Iterator[list[tuple[Any, ...]]]:
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
def _insert_sql(table: str, columns: tuple[str, ...], count: int) -> str:
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * count)}"


@functools.cache
def _update_sql(table: str, columns: tuple[str, ...], count: int) -> str:
    if count == 1:
        # By far the most frequent, and without the detour over a table of one row twice as fast.
        alone = ", ".join(f"{column} = ?{n}" for n, column in enumerate(columns, start=2))
        return f"UPDATE {table} SET {alone} WHERE id = ?1"
    row = f"({', '.join('?' * (len(columns) + 1))})"
    values = ", ".join([row] * count)
    assignments = ", ".join(f"{column} = new.column{n}" for n, column in enumerate(columns, start=2))
    return f"UPDATE {table} SET {assignments} FROM (VALUES {values}) AS new WHERE {table}.id = new.column1"
