# ruff: noqa: S608  (the texts are put together from our own words; every value is a parameter)
"""What the journal is asked when a keeper begins to work, after a start or a takeover: of all markets, or of the orders
in those alone that `markets` names.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from solders.pubkey import Pubkey

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState
from keeper.domain.orders import OnchainStatus, OrderState
from keeper.journal.records import OrderRow
from keeper.journal.rows import ATTEMPTS, ORDER_COLUMNS, order_row
from keeper.journal.sql import BLOCKING_SQL, FOLLOWED_SQL, TRIED_SQL, columns_sql, json_list

_ATTEMPTS: Final = f"SELECT id, {columns_sql(ATTEMPTS.columns)} FROM attempts"
_AMONG: Final = "IN (SELECT value FROM json_each(?))"
_OF_MARKETS: Final = f"AND (SELECT market FROM orders WHERE address = order_address) {_AMONG}"
"""Of attempts: the journal knows the order of each."""
_TRIED: Final = (
    f"SELECT {columns_sql(ORDER_COLUMNS)} FROM orders INDEXED BY orders_state WHERE state = ? AND id > ? "
    f"AND (attempts_made > 0 OR budget_used > 0 OR state = '{OrderState.FAILED.value}')"
)
_PAGE: Final = "ORDER BY id LIMIT ?"


class RestartQueries:
    """Queries on one connection (`Queries`)."""

    def _all(self, sql: str, *args: object) -> list[tuple[Any, ...]]:
        raise NotImplementedError

    def open_attempts(self, *, markets: Collection[Pubkey] | None = None) -> list[Attempt]:
        """Every attempt that could still land or is not yet rooted, oldest first. A restart resolves these first."""
        of_markets, words = _named(_OF_MARKETS, markets)
        rows = self._all(
            f"{_ATTEMPTS} INDEXED BY one_live_attempt WHERE {BLOCKING_SQL}{of_markets} "
            f"UNION ALL {_ATTEMPTS} INDEXED BY followed_attempts WHERE {FOLLOWED_SQL}{of_markets} ORDER BY id",
            *words,
            *words,
        )
        return [ATTEMPTS.record(row[1:]) for row in rows]

    def tried_since(self, since: float, *, markets: Collection[Pubkey] | None = None) -> list[tuple[Pubkey, float]]:
        """When (unix seconds) the keeper signed attempts of its own after `since`, with their orders, the first one
        first; of orders that have not ended, since they were first seen. What was not sent is left out.
        """
        of_markets, words = _named(f"AND o.market {_AMONG}", markets)
        rows = self._all(
            "SELECT a.signed_at, a.order_address FROM attempts a INDEXED BY attempts_kind "
            "CROSS JOIN orders o ON o.address = a.order_address "
            f"WHERE a.kind IN (?, ?) AND a.signed_at > ? AND a.state != ? AND a.{TRIED_SQL} "
            f"AND o.closed = 0 AND a.signed_at >= o.first_seen_at{of_markets}",
            AttemptKind.EXECUTE.value,
            AttemptKind.RATCHET.value,
            since,
            AttemptState.DRY_RUN.value,
            *words,
        )
        return [(Pubkey.from_string(address), signed_at) for signed_at, address in sorted(rows)]

    def seen_orders(self, states: Collection[OrderState], *, markets: Collection[Pubkey] | None = None) -> list[Pubkey]:
        """The addresses of all orders in these states: what a restarted keeper has to look up on chain."""
        found: list[Pubkey] = []
        if markets is not None:
            for closed in sorted({state.terminal for state in states}):
                rows = self._all(
                    f"SELECT address FROM orders INDEXED BY orders_market WHERE market {_AMONG} AND closed = ? "
                    f"AND state {_AMONG}",
                    json_list(map(str, markets)),
                    int(closed),
                    json_list(states),
                )
                found.extend(Pubkey.from_string(address) for (address,) in rows)
            return found
        for state in sorted(states):
            rows = self._all("SELECT address FROM orders INDEXED BY orders_state WHERE state = ?", state)
            found.extend(Pubkey.from_string(address) for (address,) in rows)
        return found

    def expired_orders(self, since: float, *, markets: Collection[Pubkey] | None = None) -> list[Pubkey]:
        """The addresses of orders that were pending when last read, and called expired by the clock after `since`."""
        if markets is None:
            rows = self._all(
                "SELECT address FROM orders INDEXED BY orders_state WHERE state = ? AND onchain_status = ? "
                "AND updated_at > ?",
                OrderState.EXPIRED.value,
                int(OnchainStatus.PENDING),
                since,
            )
        else:
            rows = self._all(
                # The word itself: SQLite recognises the index's condition in nothing else.
                f"SELECT address FROM orders INDEXED BY orders_market_rare WHERE market {_AMONG} "
                f"AND state = '{OrderState.EXPIRED.value}' AND onchain_status = ? AND updated_at > ?",
                json_list(map(str, markets)),
                int(OnchainStatus.PENDING),
                since,
            )
        return [Pubkey.from_string(address) for (address,) in rows]

    def tried_orders(
        self,
        states: Collection[OrderState],
        *,
        markets: Collection[Pubkey] | None = None,
        after: int = 0,
        limit: int = 500,
    ) -> list[OrderRow]:
        """Of the orders in these states those that were ever tried, and all that failed, by their numbers: at most
        `limit`, numbered higher than `after`. Of a million orders that simply rest none is read.
        """
        of_markets, words = _named(f"AND market {_AMONG}", markets)
        sql = f"{_TRIED}{of_markets} {_PAGE}"
        rows = [row for state in sorted(states) for row in self._all(sql, state.value, after, *words, limit)]
        return sorted(map(order_row, rows), key=lambda row: row.id)[:limit]


def _named(condition: str, markets: Collection[Pubkey] | None) -> tuple[str, list[str]]:
    """The condition and its value, where markets are named."""
    return ("", []) if markets is None else (f" {condition}", [json_list(map(str, markets))])
