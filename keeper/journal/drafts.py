"""Rows as the writer works on them: loaded, changed by operations in memory, written back in bulk.

They hold what SQLite stores (base58, signed u64), so that nothing is converted that isn't looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Self

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState
from keeper.domain.base58 import base58
from keeper.domain.orders import Order, OrderState
from keeper.journal.integers import to_stored, to_stored_opt
from keeper.journal.records import PreparedRow
from keeper.journal.transitions import CLOSED_STATES


class _Draft:
    """A draft that is cheap to copy: no slots, since copying a dict is ten times faster than `copy.copy`."""

    def copy(self) -> Self:
        """A draft that can be changed without touching this one."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied


@dataclass
class OrderDraft(_Draft):
    """One row of `orders`. `facts` are the account's columns in the order of `FACT_COLUMNS`."""

    id: int
    address: str
    facts: tuple[int | str | None, ...] | None
    """None when no operation of the group looks at them."""
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
    new_facts: bool = False
    new_state: bool = False
    new_keys: bool = False
    """Which columns changed beside those that always do: the others are not written, nor their indexes."""

    @property
    def closed(self) -> bool:
        """Whether the state is terminal."""
        return self.state in CLOSED_STATES


FACT_COLUMNS: Final = (
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
    "user",
    "market",
)


def facts_of(order: Order) -> tuple[int | str | None, ...]:
    """An order account as stored, in the order of `FACT_COLUMNS`. ValueError when a number is no u64."""
    return (
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
        base58(order.user),
        base58(order.market),
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


@dataclass
class AttemptDraft(_Draft):
    """One row of `attempts`: `attempt` when it is new, else what is to be changed of the stored one."""

    id: int
    """0 while it is new: SQLite gives the id."""
    signature: str
    order: str
    kind: AttemptKind
    state: AttemptState
    attempt: Attempt | None = None
    patch: dict[str, Any] = field(default_factory=dict)
    moved: bool = False

    def copy(self) -> Self:
        """As every draft's; what is to be patched is its own."""
        copied = super().copy()
        copied.patch = dict(self.patch)
        return copied


@dataclass
class PreparedDraft(_Draft):
    """One row of `prepared`: `row` when it is new; for a stored one only its key, status and signature."""

    id: str
    key: str | None
    status: str
    signature: str | None = None
    row: PreparedRow | None = None
    moved: bool = False


@dataclass(frozen=True, slots=True)
class ChangeDraft:
    """A row for `changes`."""

    id: int
    order_ref: int
    state: OrderState
    reason: str
    at: float
    slot: int
