"""From the domain's records to what travels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from keeper.domain.attempts import Attempt
from keeper.domain.decimals import decimal
from keeper.domain.orders import Order, OrderState, OrderType
from keeper.http.models import (
    AttemptError,
    AttemptView,
    OrderDetail,
    OrderSummary,
    OrderTypeWord,
    OrderView,
    PostedPrice,
    SideWord,
)
from keeper.http.ports import Desk
from keeper.journal.records import OrderRow

_RESTING = frozenset({OrderState.OPEN, OrderState.TRIGGERED})


def _price(value: int | None) -> str | None:
    return decimal(value) if value else None


def _terms(order: Order, desk: Desk, client_order_id: str | None) -> dict[str, object]:
    market = desk.market(order.market)
    trailing = order.order_type is OrderType.TRAILING_STOP
    return {
        "user": str(order.user),
        "market": None if market is None else market.symbol,
        "market_address": str(order.market),
        "order_type": cast(OrderTypeWord, order.order_type.word),
        "side": cast(SideWord, order.side.word),
        "size": decimal(order.size_1e6),
        "trigger_price": _price(order.stop_price_1e6),
        "limit_price": _price(order.price_1e6),
        "trailing_distance": decimal(order.trailing_distance_ppm) if trailing else None,
        "leverage": order.leverage,
        "expires_at": order.expires_at or None,
        "order_id": None if order.order_id is None else str(order.order_id),
        "client_order_id": client_order_id,
    }


def summary_of(order: Order, desk: Desk, client_order_id: str | None) -> OrderSummary:
    """An order's terms, in words."""
    return OrderSummary(**_terms(order, desk, client_order_id))  # type: ignore[arg-type]


def order_view(row: OrderRow, desk: Desk, named: str | None = None) -> OrderView:
    """An order in a list. `named` is the client_order_id that its reader asked for."""
    return OrderView(**_view(row, desk, named))  # type: ignore[arg-type]


def order_detail(row: OrderRow, attempts: Sequence[Attempt], desk: Desk) -> OrderDetail:
    """An order with its attempts."""
    return OrderDetail(**_view(row, desk, None), attempts=[attempt_view(a) for a in attempts])  # type: ignore[arg-type]


def _view(row: OrderRow, desk: Desk, named: str | None) -> dict[str, object]:
    """Orders are everybody's to read; what their users call them is theirs, and told to who says it first."""
    order = _newest(row, desk)
    seen = order.slot > 0
    return {
        **_terms(order, desk, row.client_order_id if named == row.client_order_id else None),
        "order": str(order.address),
        "status": row.state,
        "status_reason": _reason(row, desk),
        "onchain_status": order.status.word if seen else None,
        "triggered_at": row.triggered_at,
        "triggered_price": _price(row.trigger_price_1e6),
        "triggered_slot": row.trigger_slot,
        "position": None if row.position is None else str(row.position),
        "slot": order.slot if seen else None,
        "created_at": order.created_at if seen else None,
        "updated_at": row.updated_at,
        "attempts_made": row.attempts_made,
    }


def _newest(row: OrderRow, desk: Desk) -> Order:
    """The book's facts when they are newer: the journal's notes follow a moment later."""
    known = desk.order(row.address)
    return known if known is not None and known.slot > row.order.slot else row.order


def _reason(row: OrderRow, desk: Desk) -> str:
    """The decision's own words for an order that rests; they are newer than the journal's."""
    return (desk.why(row.address) if row.state in _RESTING else "") or row.reason


def attempt_view(attempt: Attempt) -> AttemptView:
    """One attempt; never its bytes, which are the user's or the keeper's signed transaction."""
    error = None
    if attempt.error_name is not None:
        error = AttemptError(name=attempt.error_name, program=attempt.error_program, detail=attempt.error_detail)
    posted = None
    if attempt.posted_from is not None:
        posted = PostedPrice(
            feed=str(attempt.posted_from),
            price=_price(attempt.trigger_price_1e6),
            slot=attempt.trigger_slot,
            published_at=attempt.posted_published_at,
        )
    return AttemptView(
        signature=str(attempt.signature),
        kind=attempt.kind,
        number=attempt.number,
        state=attempt.state,
        fate=attempt.fate,
        error=error,
        trigger_price=_price(attempt.trigger_price_1e6),
        trigger_slot=attempt.trigger_slot,
        posted=posted,
        signed_at=attempt.signed_at,
        sent_at=attempt.sent_at,
        slot=attempt.seen_slot,
        confirmed_at=attempt.confirmed_at,
        finalized_at=attempt.finalized_at,
        fee_lamports=attempt.fee_lamports,
        tip_lamports=attempt.tip_lamports,
    )
