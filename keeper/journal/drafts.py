"""Rows as the writer works on them: loaded, changed by operations in memory, written back in bulk.

They hold what SQLite stores (base58, signed u64), so that nothing is converted that isn't looked at.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Final

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState
from keeper.domain.orders import Order, OrderState
from keeper.journal.integers import to_stored, to_stored_opt
from keeper.journal.records import PreparedRow
from keeper.journal.transitions import CLOSED_STATES


@dataclass(slots=True)
class OrderDraft:
    """One row of `orders`. `facts` are the account's columns in the order of `FACT_COLUMNS`."""

    id: int
    address: str
    facts: tuple[int | str | None, ...]
    slot: int
    state: OrderState
    reason: str
    triggered_at: float | None
    trigger_price: int | None
    trigger_slot: int | None
    position: str | None
    budget_used: int
    next_attempt_at: float | None
    attempts_made: int
    client_order_id: str | None
    source: str
    version: int
    first_seen_at: float = 0.0
    """Only for a new row: it never changes."""
    updated_at: float = 0.0
    is_new: bool = False
    dirty: bool = False
    """Whether the row has to be written."""
    was_closed: bool = False
    """Whether the stored row is closed, to know if its indexes change."""
    rekeyed: bool = False
    """Whether user, market or client_order_id changed."""

    @property
    def closed(self) -> bool:
        """Whether the state is terminal."""
        return self.state in CLOSED_STATES

    def copy(self) -> OrderDraft:
        """A draft that can be changed without touching this one."""
        return copy.copy(self)


FACT_COLUMNS: Final = (
    "user",
    "market",
    "order_type",
    "side",
    "size",
    "price",
    "stop_price",
    "trailing_distance",
    "leverage",
    "filled_size",
    "order_id",
    "created_at",
    "expires_at",
    "onchain_status",
)


def facts_of(order: Order) -> tuple[int | str | None, ...]:
    """An order account as stored, in the order of `FACT_COLUMNS`. ValueError when a number is no u64."""
    return (
        str(order.user),
        str(order.market),
        int(order.order_type),
        int(order.side),
        to_stored(order.size_1e6),
        to_stored(order.price_1e6),
        to_stored(order.stop_price_1e6),
        to_stored(order.trailing_distance_ppm),
        order.leverage,
        to_stored(order.filled_size_1e6),
        to_stored_opt(order.order_id),
        order.created_at,
        order.expires_at,
        int(order.status),
    )


PATCH_COLUMNS: Final = (
    "sent_at",
    "seen_slot",
    "confirmed_at",
    "finalized_at",
    "ended_at",
    "fate",
    "error_name",
    "error_program",
    "error_detail",
    "fee_lamports",
    "position",
)
"""What `MoveAttempt` may fill in, beside the state."""


@dataclass(slots=True)
class AttemptDraft:
    """One row of `attempts`: `attempt` when it is new, else what is to be changed of the stored one."""

    signature: str
    order: str
    kind: AttemptKind
    state: AttemptState
    attempt: Attempt | None = None
    patch: dict[str, Any] = field(default_factory=dict)
    moved: bool = False

    def copy(self) -> AttemptDraft:
        """A draft that can be changed without touching this one."""
        copied = copy.copy(self)
        copied.patch = dict(self.patch)
        return copied


@dataclass(slots=True)
class PreparedDraft:
    """One row of `prepared`: `row` when it is new; for a stored one only its key, status and signature."""

    id: str
    key: str | None
    status: str
    signature: str | None = None
    row: PreparedRow | None = None
    moved: bool = False

    def copy(self) -> PreparedDraft:
        """A draft that can be changed without touching this one."""
        return copy.copy(self)


@dataclass(frozen=True, slots=True)
class ChangeDraft:
    """A row for `changes`."""

    id: int
    order_ref: int
    state: OrderState
    reason: str
    at: float
    slot: int
