# ruff: noqa: S608  (the texts are put together from this module's constants; every value is a parameter)
"""What is asked of the journal. Each query uses an index, and looks at no more rows than it gives back, or nearly.

Lists come newest first, in pages: the cursor is the last row's place in the index, so a page costs the same
wherever it is. They are written out per state where several states are asked for, since each state's rows lie in
order in the index and the union of them, cut at the page's length, is cheap.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState, Fate
from keeper.domain.orders import OnchainStatus, OrderState, OrderType
from keeper.journal.paging import cursor_of, order_sources, page_limit, read_cursor
from keeper.journal.records import ChangePage, ChangeRow, FailureRow, OrderRow, Page, PreparedRow
from keeper.journal.restarting import RestartQueries
from keeper.journal.rows import ATTEMPTS, CHANGES, ORDER_COLUMNS, PREPARED, order_row, prepared_row
from keeper.journal.sql import TRIED_SQL, Connection, columns_sql, json_list
from keeper.journal.ways import WayQueries

PRUNED_TO: Final = "changes_pruned_to"
"""The `meta` key of the highest change id that retention removed."""
MARKET_NAME: Final = "market:"
"""Before a market's address: the `meta` key of its name."""
_CHANGES_LOOKED_AT: Final = 4_000

_ORDERS: Final = f"SELECT {columns_sql(ORDER_COLUMNS)} FROM orders"
_ATTEMPTS: Final = f"SELECT id, {columns_sql(ATTEMPTS.columns)} FROM attempts"
_PREPARED: Final = f"SELECT {columns_sql(PREPARED.columns)} FROM prepared"
_CHANGES: Final = 'SELECT c.id, o.address, o."user", o.market, c.state, c.reason, c.at, c.slot FROM'

_LOOKED_AT: Final = 1_000
"""So many rows a page looks at for what no index tells."""
BAD_FATES: Final = frozenset(
    {
        Fate.TRANSIENT,
        Fate.REFUSED,
        Fate.MISCONFIGURED,
        Fate.NO_POSITION,
        Fate.CANNOT_PAY,
        Fate.MARKET_PAUSED,
    }
)
"""Ends that an operator wants to see: the order wanted to be executed and was not. A lost race, a price that moved
back, or an order that had expired are not among them."""


class Queries(RestartQueries, WayQueries):
    """The queries, on one connection, for one thread at a time. Blocking: the Journal runs them in threads."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def _all(self, sql: str, *args: object) -> list[tuple[Any, ...]]:
        return self._db.execute(sql, args).fetchall()

    def _one(self, sql: str, *args: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._db.execute(sql, args).fetchone()
        return row

    @contextlib.contextmanager
    def one_moment(self) -> Iterator[None]:
        """Queries inside all see the journal as it is at the first of them."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("COMMIT")

    # --- orders

    def order(self, address: Pubkey) -> OrderRow | None:
        """One order."""
        row = self._one(f"{_ORDERS} WHERE address = ?", str(address))
        return None if row is None else order_row(row)

    def orders_at(self, addresses: Iterable[Pubkey]) -> dict[Pubkey, OrderRow]:
        """Those of these orders that the journal knows, in one query: a page's worth."""
        rows = self._all(
            f"{_ORDERS} WHERE address IN (SELECT value FROM json_each(?))",
            json_list({str(address) for address in addresses}),
        )
        return {row.address: row for row in map(order_row, rows)}

    def orders(
        self,
        *,
        user: Pubkey | None = None,
        market: Pubkey | None = None,
        order_type: OrderType | None = None,
        states: Collection[OrderState] | None = None,
        client_order_id: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[OrderRow]:
        """Orders that fit every given filter, those first seen last first. `states` None: all.

        No index has the types: of one of them a page may be short, and its cursor goes on where the looking ended.

        Raises ForeignCursor for a cursor that this journal did not give.
        """
        limit = page_limit(limit)
        looked_at = limit if order_type is None else max(limit, _LOOKED_AT)
        wanted = frozenset(OrderState) if states is None else frozenset(states)
        (before,) = read_cursor(cursor, int) or (None,)
        sources, fixed = order_sources(user, market, client_order_id, wanted)
        conditions = [text for text, _ in fixed]
        values = [value for _, value in fixed]
        if before is not None:
            conditions.append("id < ?")
            values.append(before)
        parts, args = [], []
        for index, source, source_values in sources:
            parts.append(f"orders {index} WHERE {' AND '.join([source, *conditions])} ORDER BY id DESC LIMIT ?")
            args += [*source_values, *values, looked_at + 1]
        if not parts:
            return Page((), None)
        if len(parts) == 1:
            rows = self._all(f"{_ORDERS[: -len(' orders')]} {parts[0]}", *args)
        else:
            # The numbers first: of the rows that each part gives, most are not on the page.
            numbers = " UNION ALL ".join(f"SELECT id FROM (SELECT id FROM {part}) AS part" for part in parts)
            rows = self._all(
                f"{_ORDERS} WHERE id IN (SELECT id FROM ({numbers}) AS e ORDER BY id DESC LIMIT ?) ORDER BY id DESC",
                *args,
                looked_at + 1,
            )
        found = [order_row(row) for row in rows[:looked_at]]
        items = tuple(row for row in found if order_type in (None, row.order.order_type))[:limit]
        last = items[-1] if len(items) == limit else found[-1] if found else None
        more = len(rows) > looked_at or (last is not None and last is not found[-1])
        return Page(items, cursor_of(last.id) if last is not None and more else None)

    def counts_by_state(self) -> dict[OrderState, int]:
        """How many orders are in each state; every state is there."""
        counts = dict.fromkeys(OrderState, 0)
        for state, n in self._all("SELECT state, n FROM order_counts"):
            counts[OrderState(state)] = n
        return counts

    # --- attempts

    def attempt(self, signature: Signature) -> Attempt | None:
        """One attempt."""
        row = self._one(f"{_ATTEMPTS} WHERE signature = ?", str(signature))
        return None if row is None else ATTEMPTS.record(row[1:])

    def attempts_of(self, address: Pubkey) -> list[Attempt]:
        """An order's attempts, oldest first. One that is armed is none yet."""
        rows = self._all(f"{_ATTEMPTS} WHERE order_address = ? AND {TRIED_SQL} ORDER BY id", str(address))
        return [ATTEMPTS.record(row[1:]) for row in rows]

    def explained(self, addresses: Sequence[Pubkey]) -> dict[Pubkey, Fate]:
        """Of which of these orders one of the keeper's own executions tells how it ended: it landed, and its fate says
        as what. An execution that was signed before the order was first seen was meant for another that was at its
        address; it may have met this one all the same, and then the order's row was concluded from it.
        """
        ends = (Fate.EXECUTED.value, Fate.NO_POSITION.value, Fate.EXPIRED_ORDER.value)
        rows = self._all(
            "SELECT a.order_address, a.fate FROM attempts a INDEXED BY attempts_order "
            "CROSS JOIN orders o ON o.address = a.order_address "
            "WHERE a.order_address IN (SELECT value FROM json_each(?)) "
            "AND a.kind = ? AND a.state IN (?, ?) AND a.fate IN (?, ?, ?) "
            "AND (a.signed_at >= o.first_seen_at OR a.position = o.position "
            # Its account says that it is filled, and the keeper that it failed: that is the alarm.
            "OR (a.fate = ? AND o.state = ? AND o.onchain_status = ?))",
            json_list(map(str, addresses)),
            AttemptKind.EXECUTE.value,
            AttemptState.CONFIRMED.value,
            AttemptState.FINALIZED.value,
            *ends,
            Fate.NO_POSITION.value,
            OrderState.FAILED.value,
            OnchainStatus.FILLED.value,
        )
        return {Pubkey.from_string(address): Fate(fate) for address, fate in rows}

    def executions(
        self,
        *,
        since: float | None = None,
        outcome: Fate | None = None,
        market: Pubkey | None = None,
        order_type: OrderType | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[Attempt]:
        """Attempts at executing orders, signed last first, none that is armed. `since`: unix seconds; `outcome`: only
        this end. Of one market or type a page may be short, as of `orders`.
        """
        limit = page_limit(limit)
        every = market is None and order_type is None
        looked_at = limit if every else max(limit, _LOOKED_AT)
        conditions, values = ["kind = ?", TRIED_SQL], [AttemptKind.EXECUTE.value]  # type: list[str], list[object]
        index = "attempts_kind"
        if outcome is not None:
            index = "attempts_fate"
            conditions.append("fate = ?")
            values.append(outcome.value)
        if since is not None:
            conditions.append("signed_at >= ?")
            values.append(since)
        place = read_cursor(cursor, float, int)
        if place is not None:
            conditions.append("(signed_at, id) < (?, ?)")
            values.extend(place)
        rows = self._all(
            f"{_ATTEMPTS} INDEXED BY {index} WHERE {' AND '.join(conditions)} ORDER BY signed_at DESC, id DESC LIMIT ?",
            *values,
            looked_at + 1,
        )
        found = [(row[0], ATTEMPTS.record(row[1:])) for row in rows[:looked_at]]
        if every:
            chosen = found
        else:
            fitting = self._of(market, order_type, {attempt.order for _, attempt in found})
            chosen = [each for each in found if each[1].order in fitting][:limit]
        last = chosen[-1] if len(chosen) == limit else found[-1] if found else None
        more = len(rows) > looked_at or (last is not None and last is not found[-1])
        items = tuple(attempt for _, attempt in chosen)
        return Page(items, cursor_of(last[1].signed_at, last[0]) if last is not None and more else None)

    def _of(self, market: Pubkey | None, order_type: OrderType | None, addresses: Iterable[Pubkey]) -> set[Pubkey]:
        """Those of these orders that are of the market and the type."""
        return {
            address
            for address, row in self.orders_at(addresses).items()
            if market in (None, row.order.market) and order_type in (None, row.order.order_type)
        }

    def failures(
        self, *, market: Pubkey | None = None, order_type: OrderType | None = None, limit: int = 25
    ) -> list[FailureRow]:
        """Orders in state failed, then orders with an execution that ended badly; the latest first, each once. What
        became of a transaction of the user's own is no failure of the keeper's.
        """
        wanted = page_limit(limit)
        every = market is None and order_type is None
        limit = limit if every else max(limit, _LOOKED_AT)
        addresses = dict.fromkeys(
            address
            for (address,) in self._all(
                "SELECT address FROM orders INDEXED BY orders_state WHERE state = ? ORDER BY id DESC LIMIT ?",
                OrderState.FAILED.value,
                limit,
            )
        )
        per_fate = " UNION ALL ".join(
            "SELECT * FROM (SELECT order_address, signed_at FROM attempts INDEXED BY attempts_fate "
            f"WHERE fate = ? AND kind = '{AttemptKind.EXECUTE.value}' ORDER BY signed_at DESC LIMIT ?) AS part"
            for _ in BAD_FATES
        )
        args = [value for fate in sorted(BAD_FATES) for value in (fate.value, limit)]
        for address, _ in self._all(f"{per_fate} ORDER BY signed_at DESC", *args):
            if len(addresses) >= limit:
                break
            addresses.setdefault(address)
        keys = [Pubkey.from_string(address) for address in addresses]
        if not every:
            fitting = self._of(market, order_type, keys)
            keys = [key for key in keys if key in fitting][:wanted]
        orders = self.orders_at(keys)
        return [
            FailureRow(
                order=orders.get(key),
                attempts=tuple(self.attempts_of(key)),
                changes=tuple(self.changes_of(key)),
            )
            for key in keys
        ]

    # --- changes

    def changes_of(self, address: Pubkey) -> list[ChangeRow]:
        """An order's history, oldest first."""
        rows = self._all(
            f"{_CHANGES} orders o JOIN changes c ON c.order_ref = o.id WHERE o.address = ? ORDER BY c.id",
            str(address),
        )
        return [CHANGES.record(row) for row in rows]

    def changes_after(
        self, after: int, *, limit: int = 250, user: Pubkey | None = None, market: Pubkey | None = None
    ) -> ChangePage:
        """Changes with a higher id than `after`, oldest first.

        A filter that fits little does not make the query long: it looks at some thousand changes at most, and
        `last_id` says how far. Ask again from there until it equals `last_change_id`.
        """
        limit = page_limit(limit)
        # First: what is committed between this and the query below was not looked at, and is not said to be.
        newest = max(self.last_change_id(), after)
        horizon = min(newest, after + (limit if user is None and market is None else _CHANGES_LOOKED_AT))
        conditions, values = ["c.id > ?", "c.id <= ?"], [after, horizon]  # type: list[str], list[object]
        for column, key in (('o."user"', user), ("o.market", market)):
            if key is not None:
                conditions.append(f"{column} = ?")
                values.append(str(key))
        rows = self._all(
            # CROSS JOIN keeps the order: the changes by id outside, each one's order inside.
            f"{_CHANGES} changes c CROSS JOIN orders o ON o.id = c.order_ref "
            f"WHERE {' AND '.join(conditions)} ORDER BY c.id LIMIT ?",
            *values,
            limit,
        )
        changes = tuple(CHANGES.record(row) for row in rows)
        last = changes[-1].id if len(changes) == limit else horizon
        if not changes and last < newest:
            # A hole that retention left: skip it in one step.
            row = self._one("SELECT MIN(id) FROM changes WHERE id > ?", last)
            if row is not None and row[0] is not None:
                last = row[0] - 1
        return ChangePage(changes, last, after < int(self.meta(PRUNED_TO) or 0))

    def last_change_id(self) -> int:
        """The newest change's id; 0 when there never was one."""
        row = self._one("SELECT MAX(id), (SELECT value FROM meta WHERE key = ?) FROM changes", PRUNED_TO)
        assert row is not None
        return max(row[0] or 0, int(row[1] or 0))  # retention may have removed the newest

    # --- prepared transactions, and the rest

    def prepared(self, prepared_id: str) -> PreparedRow | None:
        """One prepared transaction."""
        row = self._one(f"{_PREPARED} WHERE id = ?", prepared_id)
        return None if row is None else prepared_row(row)

    def prepared_by_key(self, key: str) -> PreparedRow | None:
        """The prepared transaction that was made under an idempotency key."""
        row = self._one(f"{_PREPARED} WHERE idempotency_key = ?", key)
        return None if row is None else prepared_row(row)

    def prepared_of(self, address: Pubkey) -> list[PreparedRow]:
        """What was prepared for an order, oldest first."""
        rows = self._all(f"{_PREPARED} WHERE order_address = ? ORDER BY created_at", str(address))
        return [prepared_row(row) for row in rows]

    def spent(self, day: str) -> int:
        """Lamports spent on a day (`YYYY-MM-DD`, UTC)."""
        row = self._one("SELECT lamports FROM daily_spend WHERE day = ?", day)
        return 0 if row is None else int(row[0])

    def market_names(self) -> dict[Pubkey, str]:
        """The names of the markets that a keeper has seen."""
        rows = self._all("SELECT key, value FROM meta WHERE substr(key, 1, ?) = ?", len(MARKET_NAME), MARKET_NAME)
        return {Pubkey.from_string(key.removeprefix(MARKET_NAME)): name for key, name in rows}

    def meta(self, key: str) -> str | None:
        """The value under a key."""
        row = self._one("SELECT value FROM meta WHERE key = ?", key)
        return None if row is None else str(row[0])
