"""The journal's rows as the commands show them: flat, with decimals as strings and times in UTC."""

from __future__ import annotations

import datetime
from collections.abc import Collection
from typing import Any, Final

from keeper.domain.attempts import Attempt
from keeper.domain.decimals import decimal
from keeper.domain.orders import OrderState
from keeper.journal import Journal

ORDER_COLUMNS: Final = ["order", "type", "side", "size", "trigger", "state", "reason"]
ATTEMPT_COLUMNS: Final = ["signed_at", "order", "kind", "number", "state", "fate", "error", "signature"]
FAILURE_COLUMNS: Final = ["order", "type", "state", "error", "attempts", "reason"]
BELOW: Final = frozenset({"order", "error", "signature", "reason"})
"""Columns that stand under their row in a narrow terminal."""


async def orders(journal: Journal, states: Collection[OrderState] | None, limit: int) -> list[dict[str, Any]]:
    """Orders, newest first."""
    page = await journal.orders(states=states, limit=limit)
    rows = []
    for row in page.items:
        order = row.order
        rows.append(
            {
                "order": str(order.address),
                "user": str(order.user),
                "market": str(order.market),
                "type": order.order_type.word,
                "side": order.side.word,
                "size": decimal(order.size_1e6),
                "trigger": decimal(order.stop_price_1e6 or order.price_1e6),
                "state": row.state.value,
                "onchain_status": order.status.word,
                "reason": row.reason,
                "position": None if row.position is None else str(row.position),
                "updated_at": utc(row.updated_at),
            }
        )
    return rows


async def executions(journal: Journal, limit: int) -> list[dict[str, Any]]:
    """The keeper's attempts, newest first."""
    page = await journal.executions(limit=limit)
    return [_attempt(attempt) for attempt in page.items]


async def failures(journal: Journal, limit: int) -> list[dict[str, Any]]:
    """Orders that could not be executed, each with its last error and its history."""
    rows = []
    for failure in await journal.failures(limit=limit):
        last = next((a for a in reversed(failure.attempts) if a.error_name), None)
        order = failure.order
        rows.append(
            {
                "order": str(order.address) if order else str(failure.attempts[0].order),
                "type": order.order.order_type.word if order else None,
                "state": order.state.value if order else None,
                "error": last.error_name if last else None,
                "attempts": len(failure.attempts),
                "reason": order.reason if order else "",
                "history": [
                    {"at": utc(change.at), "state": change.state.value, "reason": change.reason}
                    for change in failure.changes
                ],
                "signatures": [str(attempt.signature) for attempt in failure.attempts],
            }
        )
    return rows


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "signed_at": utc(attempt.signed_at),
        "order": str(attempt.order),
        "kind": attempt.kind.value,
        "number": attempt.number,
        "state": attempt.state.value,
        "fate": None if attempt.fate is None else attempt.fate.value,
        "error": attempt.error_name,
        "detail": attempt.error_detail,
        "trigger_price": None if attempt.trigger_price_1e6 is None else decimal(attempt.trigger_price_1e6),
        "fee_lamports": attempt.fee_lamports,
        "position": None if attempt.position is None else str(attempt.position),
        "signature": str(attempt.signature),
    }


def utc(seconds: float) -> str:
    """Unix seconds as ISO 8601 in UTC, to the millisecond."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="milliseconds")
