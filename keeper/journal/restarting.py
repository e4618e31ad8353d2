# ruff: noqa: S608  (the texts are put together from our own words; every value is a parameter)
"""What the journal is asked when a keeper begins to work, after a start or a takeover."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from solders.pubkey import Pubkey

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState
from keeper.domain.orders import OnchainStatus, OrderState
from keeper.journal.records import OrderRow
from keeper.journal.rows import ATTEMPTS, ORDER_COLUMNS, order_row
from keeper.journal.sql import BLOCKING_SQL, FOLLOWED_SQL, TRIED_SQL, columns_sql

_ATTEMPTS: Final = f"SELECT id, {columns_sql(ATTEMPTS.columns)} FROM attempts"
_TRIED: Final = (
    f"SELECT {columns_sql(ORDER_COLUMNS)} FROM orders INDEXED BY orders_state WHERE state = ? AND id > ? "
    f"AND (attempts_made > 0 OR budget_used > 0 OR state = '{OrderState.FAILED.value}') ORDER BY id LIMIT ?"
)


class RestartQueries:
    """Queries on one connection (`Queries`)."""

    def _all(self, sql: str, *args: object) -> list[tuple[Any, ...]]:
        raise NotImplementedError

    def open_attempts(self) -> list[Attempt]:
        """Every attempt that could still land or is not yet rooted, oldest first. A restart resolves these first."""
        rows = self._all(
            f"{_ATTEMPTS} INDEXED BY one_live_attempt WHERE {BLOCKING_SQL} "
            f"UNION ALL {_ATTEMPTS} INDEXED BY followed_attempts WHERE {FOLLOWED_SQL} ORDER BY id"
        )
        return [ATTEMPTS.record(row[1:]) for row in rows]

    def tried_since(self, since: float) -> list[tuple[Pubkey, float]]:
        """When (unix seconds) the keeper signed attempts of its own after `since`, with their orders, the first one
        first; of orders that have not ended, since they were first seen. What was not sent is left out.
        """
        rows = self._all(
            "SELECT a.signed_at, a.order_address FROM attempts a INDEXED BY attempts_kind "
            "CROSS JOIN orders o ON o.address = a.order_address "
            f"WHERE a.kind IN (?, ?) AND a.signed_at > ? AND a.state != ? AND a.{TRIED_SQL} "
            "AND o.closed = 0 AND a.signed_at >= o.first_seen_at",
            AttemptKind.EXECUTE.value,
            AttemptKind.RATCHET.value,
            since,
            AttemptState.DRY_RUN.value,
        )
        return [(Pubkey.from_string(address), signed_at) for signed_at, address in sorted(rows)]

    def seen_orders(self, states: Collection[OrderState]) -> list[Pubkey]:
        """The addresses of all orders in these states: what a restarted keeper has to look up on chain."""
        found: list[Pubkey] = []
        for state in sorted(states):
            rows = self._all("SELECT address FROM orders INDEXED BY orders_state WHERE state = ?", state)
            found.extend(Pubkey.from_string(address) for (address,) in rows)
        return found

    def expired_orders(self, since: float) -> list[Pubkey]:
        """The addresses of orders that were pending when last read, and called expired by the clock after `since`."""
        rows = self._all(
            "SELECT address FROM orders INDEXED BY orders_state WHERE state = ? AND onchain_status = ? "
            "AND updated_at > ?",
            OrderState.EXPIRED.value,
            int(OnchainStatus.PENDING),
            since,
        )
        return [Pubkey.from_string(address) for (address,) in rows]

    def tried_orders(self, states: Collection[OrderState], *, after: int = 0, limit: int = 500) -> list[OrderRow]:
        """Of the orders in these states those that were ever tried, and all that failed, by their numbers: at most
        `limit`, numbered higher than `after`. Of a million orders that simply rest none is read.
        """
        rows = [row for state in sorted(states) for row in self._all(_TRIED, state.value, after, limit)]
        return sorted(map(order_row, rows), key=lambda row: row.id)[:limit]
