# ruff: noqa: S608  (the texts are put together from this module's constants; every value is a parameter)
"""What is asked of the journal. Each query uses an index, and looks at no more rows than it gives back, or nearly.

Lists come newest first, in pages: the cursor is the last row's place in the index, so a page costs the same
wherever it is. They are written out per state where several states are asked for, since each state's rows lie in
order in the index and the union of them, cut at the page's length, is cheap.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
from solders.pubkey import Pubkey
from solders.signature import Signature
from sqlite_utils import Database

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState, Fate
from keeper.domain.orders import OnchainStatus, Order, OrderState, OrderType, Side
from keeper.errors import JournalError
from keeper.journal.integers import from_stored, from_stored_opt
from keeper.journal.records import (
    ChangePage,
    ChangeRow,
    FailureRow,
    OrderRow,
    Page,
    PreparedKind,
    PreparedRow,
    PreparedStatus,
    Source,
)
from keeper.journal.schema import BLOCKING_SQL, FOLLOWED_SQL
from keeper.journal.transitions import CLOSED_STATES

MAX_PAGE: Final = 1_000
PRUNED_TO: Final = "changes_pruned_to"
"""The `meta` key of the highest change id that retention removed."""
_ALL: Final = frozenset(OrderState)
_RARE: Final = (CLOSED_STATES - {OrderState.FILLED}) | {OrderState.FAILED}
_CHANGES_LOOKED_AT: Final = 4_000
_CLOCKS_DIFFER_S: Final = 60
"""By so much may this machine's clock and the chain's differ."""

_ORDER_COLUMNS: Final = (
    "address, user, market, order_type, side, size, price, stop_price, trailing_distance, leverage, onchain_status, "
    "created_at, expires_at, filled_size, order_id, slot, id, state, reason, source, first_seen_at, updated_at, "
    "version, client_order_id, triggered_at, trigger_price, trigger_slot, position, budget_used, next_attempt_at, "
    "attempts_made"
)
_ATTEMPT_COLUMNS: Final = (
    "signature, kind, order_address, wire, blockhash, last_valid_block_height, state, number, signed_at, "
    "trigger_price, trigger_slot, unit_limit, unit_price, sent_at, seen_slot, confirmed_at, finalized_at, ended_at, "
    "fate, error_name, error_program, error_detail, fee_lamports, position, id"
)
_CHANGE_COLUMNS: Final = "c.id, o.address, o.user, o.market, c.state, c.reason, c.at, c.slot"
_PREPARED_COLUMNS: Final = (
    "id, kind, order_address, user, market, message, blockhash, last_valid_block_height, created_at, arguments, "
    "idempotency_key, body_hash, client_order_id, status, signature"
)

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


class Queries:
    """The queries, on one connection, for one thread at a time. Blocking: the Journal runs them in threads."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def close(self) -> None:
        """Close the connection."""
        self._db.conn.close()

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
        row = self._one(f"SELECT {_ORDER_COLUMNS} FROM orders WHERE address = ?", str(address))
        return None if row is None else _order(row)

    def orders_at(self, addresses: Iterable[Pubkey]) -> dict[Pubkey, OrderRow]:
        """Those of these orders that the journal knows, in one query: a page's worth."""
        rows = self._all(
            f"SELECT {_ORDER_COLUMNS} FROM orders WHERE address IN (SELECT value FROM json_each(?))",
            _json_words({str(address) for address in addresses}),
        )
        return {row.address: row for row in map(_order, rows)}

    def orders(
        self,
        *,
        user: Pubkey | None = None,
        market: Pubkey | None = None,
        states: Collection[OrderState] | None = None,
        client_order_id: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[OrderRow]:
        """Orders that fit every given filter, those first seen last first. `states` None: all.

        Raises JournalError for a cursor that this journal did not give.
        """
        limit = _limit(limit)
        wanted = frozenset(OrderState) if states is None else frozenset(states)
        (before,) = _cursor(cursor, int) or (None,)
        sources, fixed = _order_sources(user, market, client_order_id, wanted)
        conditions = [text for text, _ in fixed]
        values = [value for _, value in fixed]
        if before is not None:
            conditions.append("id < ?")
            values.append(before)
        parts, args = [], []
        for index, source, source_values in sources:
            parts.append(f"orders {index} WHERE {' AND '.join([source, *conditions])} ORDER BY id DESC LIMIT ?")
            args += [*source_values, *values, limit + 1]
        if not parts:
            return Page((), None)
        if len(parts) == 1:
            rows = self._all(f"SELECT {_ORDER_COLUMNS} FROM {parts[0]}", *args)
        else:
            # The numbers first: of the rows that each part gives, most are not on the page.
            numbers = " UNION ALL ".join(f"SELECT id FROM (SELECT id FROM {part})" for part in parts)
            rows = self._all(
                f"SELECT {_ORDER_COLUMNS} FROM orders WHERE id IN "
                f"(SELECT id FROM ({numbers}) ORDER BY id DESC LIMIT ?) ORDER BY id DESC",
                *args,
                limit + 1,
            )
        items = tuple(_order(row) for row in rows[:limit])
        return Page(items, _encode_cursor(items[-1].id) if len(rows) > limit else None)

    def seen_orders(self, states: Collection[OrderState]) -> list[Pubkey]:
        """The addresses of all orders in these states: what a restarted keeper has to look up on chain."""
        found: list[Pubkey] = []
        for state in sorted(states):
            rows = self._all("SELECT address FROM orders INDEXED BY orders_state WHERE state = ?", state)
            found.extend(Pubkey.from_string(address) for (address,) in rows)
        return found

    def counts_by_state(self) -> dict[OrderState, int]:
        """How many orders are in each state; every state is there."""
        counts = dict.fromkeys(OrderState, 0)
        for state, n in self._all("SELECT state, n FROM order_counts"):
            counts[OrderState(state)] = n
        return counts

    # --- attempts

    def attempt(self, signature: Signature) -> Attempt | None:
        """One attempt."""
        row = self._one(f"SELECT {_ATTEMPT_COLUMNS} FROM attempts WHERE signature = ?", str(signature))
        return None if row is None else _attempt(row)

    def open_attempts(self) -> list[Attempt]:
        """Every attempt that could still land or is not yet rooted, oldest first. A restart resolves these first."""
        rows = self._all(
            f"SELECT {_ATTEMPT_COLUMNS} FROM attempts INDEXED BY one_live_attempt "
            f"WHERE {BLOCKING_SQL} "
            f"UNION ALL SELECT {_ATTEMPT_COLUMNS} FROM attempts INDEXED BY followed_attempts "
            f"WHERE {FOLLOWED_SQL} ORDER BY id"
        )
        return [_attempt(row) for row in rows]

    def tried_since(self, since: float) -> list[tuple[Pubkey, float]]:
        """When (unix seconds) the keeper signed attempts of its own after `since`, with their orders, the first one
        first; of orders that have not ended, since they were made. Dry runs' are left out: nothing was sent for them.
        """
        rows = self._all(
            "SELECT a.signed_at, a.order_address FROM attempts a INDEXED BY attempts_kind "
            "CROSS JOIN orders o ON o.address = a.order_address "
            "WHERE a.kind IN (?, ?) AND a.signed_at > ? AND a.state != ? AND o.closed = 0 "
            "AND a.signed_at >= o.created_at - ?",
            AttemptKind.EXECUTE.value,
            AttemptKind.RATCHET.value,
            since,
            AttemptState.DRY_RUN.value,
            _CLOCKS_DIFFER_S,
        )
        return [(Pubkey.from_string(address), signed_at) for signed_at, address in sorted(rows)]

    def attempts_of(self, address: Pubkey) -> list[Attempt]:
        """An order's attempts, oldest first."""
        rows = self._all(f"SELECT {_ATTEMPT_COLUMNS} FROM attempts WHERE order_address = ? ORDER BY id", str(address))
        return [_attempt(row) for row in rows]

    def explained(self, addresses: Sequence[Pubkey]) -> dict[Pubkey, Fate]:
        """Of which of these orders one of the keeper's own executions tells how it ended: it landed, and its fate says
        as what. An execution from before the order was made (`created_at` is the chain's clock, and clocks differ) is
        one at another order that was at its address.
        """
        ends = (Fate.EXECUTED.value, Fate.NO_POSITION.value, Fate.EXPIRED_ORDER.value)
        rows = self._all(
            "SELECT a.order_address, a.fate FROM json_each(?1) wanted "
            "CROSS JOIN attempts a INDEXED BY attempts_order ON a.order_address = wanted.value "
            "JOIN orders o ON o.address = a.order_address "
            "WHERE a.kind = ?2 AND a.state IN (?3, ?4) AND a.fate IN (?5, ?6, ?7) AND a.signed_at >= o.created_at - ?8",
            msgspec.json.encode([str(address) for address in addresses]).decode(),
            AttemptKind.EXECUTE.value,
            AttemptState.CONFIRMED.value,
            AttemptState.FINALIZED.value,
            *ends,
            _CLOCKS_DIFFER_S,
        )
        return {Pubkey.from_string(address): Fate(fate) for address, fate in rows}

    def last_attempt_number(self, address: Pubkey) -> int:
        """The highest attempt number that the order ever had, also of attempts that retention removed; else 0."""
        row = self._one(
            "SELECT MAX(COALESCE((SELECT attempts_made FROM orders WHERE address = ?1), 0), "
            "COALESCE((SELECT MAX(number) FROM attempts WHERE order_address = ?1), 0))",
            str(address),
        )
        assert row is not None
        return int(row[0])

    def executions(
        self,
        *,
        since: float | None = None,
        outcome: Fate | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[Attempt]:
        """Attempts at executing orders, signed last first. `since`: unix seconds; `outcome`: only this end."""
        limit = _limit(limit)
        conditions, values = ["kind = ?"], [AttemptKind.EXECUTE.value]  # type: list[str], list[object]
        index = "attempts_kind"
        if outcome is not None:
            index = "attempts_fate"
            conditions.append("fate = ?")
            values.append(outcome.value)
        if since is not None:
            conditions.append("signed_at >= ?")
            values.append(since)
        place = _cursor(cursor, float, int)
        if place is not None:
            conditions.append("(signed_at, id) < (?, ?)")
            values.extend(place)
        rows = self._all(
            f"SELECT {_ATTEMPT_COLUMNS} FROM attempts INDEXED BY {index} WHERE {' AND '.join(conditions)} "
            "ORDER BY signed_at DESC, id DESC LIMIT ?",
            *values,
            limit + 1,
        )
        items = tuple(_attempt(row) for row in rows[:limit])
        more = len(rows) > limit
        return Page(items, _encode_cursor(rows[limit - 1][8], rows[limit - 1][24]) if more else None)

    def failures(self, *, limit: int = 25) -> list[FailureRow]:
        """Orders in state failed, then orders with an attempt that ended badly; the latest first, each once."""
        limit = _limit(limit)
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
            "WHERE fate = ? ORDER BY signed_at DESC LIMIT ?)"
            for _ in BAD_FATES
        )
        args = [value for fate in sorted(BAD_FATES) for value in (fate.value, limit)]
        for address, _ in self._all(f"{per_fate} ORDER BY signed_at DESC", *args):
            if len(addresses) >= limit:
                break
            addresses.setdefault(address)
        keys = [Pubkey.from_string(address) for address in addresses]
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
            f"SELECT {_CHANGE_COLUMNS} FROM orders o JOIN changes c ON c.order_ref = o.id "
            "WHERE o.address = ? ORDER BY c.id",
            str(address),
        )
        return [_change(row) for row in rows]

    def changes_after(
        self, after: int, *, limit: int = 250, user: Pubkey | None = None, market: Pubkey | None = None
    ) -> ChangePage:
        """Changes with a higher id than `after`, oldest first.

        A filter that fits little does not make the query long: it looks at some thousand changes at most, and
        `last_id` says how far. Ask again from there until it equals `last_change_id`.
        """
        limit = _limit(limit)
        # First: what is committed between this and the query below was not looked at, and is not said to be.
        newest = max(self.last_change_id(), after)
        horizon = min(newest, after + (limit if user is None and market is None else _CHANGES_LOOKED_AT))
        conditions, values = ["c.id > ?", "c.id <= ?"], [after, horizon]  # type: list[str], list[object]
        for column, key in (("user", user), ("market", market)):
            if key is not None:
                conditions.append(f"o.{column} = ?")
                values.append(str(key))
        rows = self._all(
            # CROSS JOIN keeps the order: the changes by id outside, each one's order inside.
            f"SELECT {_CHANGE_COLUMNS} FROM changes c CROSS JOIN orders o ON o.id = c.order_ref "
            f"WHERE {' AND '.join(conditions)} ORDER BY c.id LIMIT ?",
            *values,
            limit,
        )
        changes = tuple(_change(row) for row in rows)
        last = changes[-1].id if len(changes) == limit else horizon
        if not changes and last < newest:
            # A hole that retention left: skip it in one step.
            row = self._one("SELECT MIN(id) FROM changes WHERE id > ?", last)
            if row is not None and row[0] is not None:
                last = row[0] - 1
        return ChangePage(changes, last, after < int(self.meta(PRUNED_TO) or 0))

    def last_change_id(self) -> int:
        """The newest change's id; 0 when there never was one."""
        row = self._one("SELECT seq FROM sqlite_sequence WHERE name = 'changes'")
        return 0 if row is None else int(row[0])

    # --- prepared transactions, and the rest

    def prepared(self, prepared_id: str) -> PreparedRow | None:
        """One prepared transaction."""
        row = self._one(f"SELECT {_PREPARED_COLUMNS} FROM prepared WHERE id = ?", prepared_id)
        return None if row is None else _prepared(row)

    def prepared_by_key(self, key: str) -> PreparedRow | None:
        """The prepared transaction that was made under an idempotency key."""
        row = self._one(f"SELECT {_PREPARED_COLUMNS} FROM prepared WHERE idempotency_key = ?", key)
        return None if row is None else _prepared(row)

    def prepared_of(self, address: Pubkey) -> list[PreparedRow]:
        """What was prepared for an order, oldest first."""
        rows = self._all(
            f"SELECT {_PREPARED_COLUMNS} FROM prepared WHERE order_address = ? ORDER BY created_at", str(address)
        )
        return [_prepared(row) for row in rows]

    def spent(self, day: str) -> int:
        """Lamports spent on a day (`YYYY-MM-DD`, UTC)."""
        row = self._one("SELECT lamports FROM daily_spend WHERE day = ?", day)
        return 0 if row is None else int(row[0])

    def meta(self, key: str) -> str | None:
        """The value under a key."""
        row = self._one("SELECT value FROM meta WHERE key = ?", key)
        return None if row is None else str(row[0])


def _order_sources(
    user: Pubkey | None, market: Pubkey | None, client_order_id: str | None, states: frozenset[OrderState]
) -> tuple[list[tuple[str, str, list[object]]], list[tuple[str, object]]]:
    """Where the rows come from, in the order of their id: (index, the condition it serves, its values) each, and
    the conditions that are left to be looked at row by row.
    """
    rest: list[tuple[str, object]] = []
    if market is not None:
        rest.append(("market = ?", str(market)))
    if client_order_id is not None:
        if user is not None:
            rest.append(("user = ?", str(user)))
        if states != _ALL:
            rest.append(("state IN (SELECT value FROM json_each(?))", _json_words(states)))
        return [("INDEXED BY orders_client_id", "client_order_id = ?", [client_order_id])], rest
    living, closed = states - CLOSED_STATES, states & CLOSED_STATES
    whole = living in (frozenset(), _ALL - CLOSED_STATES) and closed in (frozenset(), CLOSED_STATES)
    if user is None and market is None and states == _ALL:
        return [("NOT INDEXED", "id > ?", [0])], rest
    if user is None and market is not None and not whole:
        return _market_sources(states, str(market)), []
    if user is None and market is None:
        return [("INDEXED BY orders_state", "state = ?", [state.value]) for state in sorted(states)], rest
    if not whole:
        rest.append(("state IN (SELECT value FROM json_each(?))", _json_words(states)))
    columns = [("user", user), ("market", market)]
    given = [(column, str(key)) for column, key in columns if key is not None]
    index = f"INDEXED BY orders_{'_'.join(column for column, _ in given)}"
    where = " AND ".join(f"{column} = ?" for column, _ in given)
    values = [value for _, value in given]
    classes = [flag for flag, some in ((0, living), (1, closed)) if some]
    return [(index, f"{where} AND closed = ?", [*values, flag]) for flag in classes], [
        condition for condition in rest if condition[0] != "market = ?"
    ]


def _market_sources(states: frozenset[OrderState], market: str) -> list[tuple[str, str, list[object]]]:
    """One market's orders in these states. Nearly all that rest are open and most that ended are filled, so that these
    are found among the market's, less those that an index has in a state that is not wanted; of the moving states there
    are few; and the rest have that index, whose condition SQLite recognises only in a query that says the word.
    """
    sources: list[tuple[str, str, list[object]]] = []
    for usual, closed in ((OrderState.OPEN, False), (OrderState.FILLED, True)):
        wanted = {state for state in states if (state in CLOSED_STATES) is closed}
        if usual not in wanted:
            sources += [_rarer_source(state, market) for state in sorted(wanted)]
            continue
        where, values = "market = ? AND closed = ?", [market, closed]
        others = [rare for rare in sorted(_RARE - wanted) if (rare in CLOSED_STATES) is closed]
        if others:
            neither = " UNION ALL ".join(
                f"SELECT id FROM orders INDEXED BY orders_market_rare WHERE market = ? AND state = '{rare.value}'"
                for rare in others
            )
            where, values = f"{where} AND id NOT IN ({neither})", [*values, *[market] * len(others)]
        where += " AND state IN (SELECT value FROM json_each(?))"
        sources.append(("INDEXED BY orders_market", where, [*values, _json_words(wanted)]))
    return sources


def _rarer_source(state: OrderState, market: str) -> tuple[str, str, list[object]]:
    if state in _RARE:
        return "INDEXED BY orders_market_rare", f"market = ? AND state = '{state.value}'", [market]
    return "INDEXED BY orders_state", "state = ? AND market = ?", [state.value, market]


def _json_words(words: Iterable[str]) -> str:
    return msgspec.json.encode(sorted(words)).decode()


def _limit(limit: int) -> int:
    if not 1 <= limit <= MAX_PAGE:
        raise JournalError(f"A page has 1 to {MAX_PAGE} rows, not {limit}.")
    return limit


def _encode_cursor(*place: float) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def _cursor(cursor: str | None, *types: type) -> tuple[Any, ...] | None:
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return tuple(msgspec.json.decode(raw, type=tuple[types]))  # type: ignore[valid-type]
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise JournalError("The cursor is not one of this journal's.") from None


_shared_key = functools.lru_cache(maxsize=4_096)(Pubkey.from_string)
"""An address that many rows have in common: reading base58 costs more than looking it up."""


def _key(text: str | None) -> Pubkey | None:
    return None if text is None else Pubkey.from_string(text)


# An enum's constructor takes twenty times as long as a look into a table.
_TYPES: Final = tuple(OrderType)
_SIDES: Final = tuple(Side)
_STATUSES: Final = tuple(OnchainStatus)
_STATES: Final = {state.value: state for state in OrderState}
_SOURCES: Final = {source.value: source for source in Source}
_KINDS: Final = {kind.value: kind for kind in AttemptKind}
_ATTEMPT_STATES: Final = {state.value: state for state in AttemptState}
_FATES: Final = {fate.value: fate for fate in Fate}


def _order(row: tuple[Any, ...]) -> OrderRow:
    return OrderRow(
        row[16],
        Order(
            Pubkey.from_string(row[0]),
            _shared_key(row[1]),
            _shared_key(row[2]),
            _TYPES[row[3]],
            _SIDES[row[4]],
            from_stored(row[5]),
            from_stored(row[6]),
            from_stored(row[7]),
            from_stored(row[8]),
            row[9],
            _STATUSES[row[10]],
            row[11],
            row[12],
            from_stored(row[13]),
            from_stored_opt(row[14]),
            from_stored(row[15]),
        ),
        _STATES[row[17]],
        row[18],
        _SOURCES[row[19]],
        row[20],
        row[21],
        row[22],
        row[23],
        row[24],
        from_stored_opt(row[25]),
        from_stored_opt(row[26]),
        _key(row[27]),
        row[28],
        row[29],
        row[30],
    )


def _attempt(row: tuple[Any, ...]) -> Attempt:
    return Attempt(
        signature=Signature.from_string(row[0]),
        kind=_KINDS[row[1]],
        order=Pubkey.from_string(row[2]),
        wire=row[3],
        blockhash=row[4],
        last_valid_block_height=from_stored(row[5]),
        state=_ATTEMPT_STATES[row[6]],
        number=row[7],
        signed_at=row[8],
        trigger_price_1e6=from_stored_opt(row[9]),
        trigger_slot=from_stored_opt(row[10]),
        unit_limit=row[11],
        unit_price_micro_lamports=from_stored_opt(row[12]),
        sent_at=row[13],
        seen_slot=from_stored_opt(row[14]),
        confirmed_at=row[15],
        finalized_at=row[16],
        ended_at=row[17],
        fate=None if row[18] is None else _FATES[row[18]],
        error_name=row[19],
        error_program=row[20],
        error_detail=row[21],
        fee_lamports=from_stored_opt(row[22]),
        position=_key(row[23]),
    )


def _change(row: tuple[Any, ...]) -> ChangeRow:
    return ChangeRow(
        id=row[0],
        order=Pubkey.from_string(row[1]),
        user=_shared_key(row[2]),
        market=_shared_key(row[3]),
        state=_STATES[row[4]],
        reason=row[5],
        at=row[6],
        slot=from_stored(row[7]),
    )


def _prepared(row: tuple[Any, ...]) -> PreparedRow:
    return PreparedRow(
        id=row[0],
        kind=PreparedKind(row[1]),
        order=Pubkey.from_string(row[2]),
        user=Pubkey.from_string(row[3]),
        market=Pubkey.from_string(row[4]),
        message=row[5],
        blockhash=row[6],
        last_valid_block_height=from_stored(row[7]),
        created_at=row[8],
        arguments=msgspec.json.decode(row[9]),
        idempotency_key=row[10],
        body_hash=row[11],
        client_order_id=row[12],
        status=PreparedStatus(row[13]),
        signature=None if row[14] is None else Signature.from_string(row[14]),
    )
