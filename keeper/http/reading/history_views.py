"""What the keeper did, as it travels: executions with their latency, failures with their reasons."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from keeper.domain.attempts import Attempt
from keeper.domain.decimals import decimal
from keeper.http.models import ExecutionView, FailureView, OrderTypeWord, SideWord
from keeper.http.ports import Desk
from keeper.http.reading.views import attempt_view
from keeper.journal.records import FailureRow, OrderRow


def execution_view(attempt: Attempt, row: OrderRow | None, desk: Desk) -> ExecutionView:
    """One of the keeper's attempts, with what its order is."""
    return ExecutionView(
        **msgspec.structs.asdict(attempt_view(attempt)),
        **_terms(row, desk),
        order=str(attempt.order),
        latency_ms=_latency_ms(attempt, row),
    )


def failure_view(failure: FailureRow, desk: Desk) -> FailureView:
    """An order that could not be executed, with its attempts."""
    row = failure.order
    return FailureView(
        order=str(failure.attempts[0].order if row is None else row.address),
        status=None if row is None else row.state,
        reason="" if row is None else row.reason,
        **_terms(row, desk),
        attempts=[attempt_view(attempt) for attempt in failure.attempts],
    )


def _terms(row: OrderRow | None, desk: Desk) -> dict[str, Any]:
    if row is None:
        return {"market": None, "order_type": None, "side": None, "size": None}
    market = desk.market(row.order.market)
    return {
        "market": None if market is None else market.symbol,
        "order_type": cast(OrderTypeWord, row.order.order_type.word),
        "side": cast(SideWord, row.order.side.word),
        "size": decimal(row.order.size_1e6),
    }


def _latency_ms(attempt: Attempt, row: OrderRow | None) -> int | None:
    """None too when the order was triggered again since: the journal keeps the last time."""
    if row is None or row.triggered_at is None or attempt.confirmed_at is None:
        return None
    if row.triggered_at > attempt.signed_at:
        return None
    return round((attempt.confirmed_at - row.triggered_at) * 1_000)
