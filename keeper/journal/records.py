"""What the journal's rows are to the rest of the keeper: frozen, in the domain's types."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.attempts import Attempt
from keeper.domain.orders import Order, OrderState

T = TypeVar("T")


class Source(enum.StrEnum):
    """Who told the keeper of an order first."""

    CHAIN = "chain"
    API = "api"


class PreparedKind(enum.StrEnum):
    """What an unsigned transaction that was handed to a user does."""

    PLACE = "place"
    CANCEL = "cancel"
    AMEND = "amend"
    """Cancels one order and places another, both or neither."""


class PreparedStatus(enum.StrEnum):
    """What became of an unsigned transaction that was handed to a user."""

    PREPARED = "prepared"
    """Handed out; the signed one has not come back."""
    SUBMITTED = "submitted"
    """It came back signed, passed every check, and is journaled as an attempt."""
    LANDED = "landed"
    FAILED = "failed"
    """The chain refused it."""
    EXPIRED = "expired"
    """It never came back, or can no longer land."""


class OrderRow(NamedTuple):
    """An order: its account's facts, and what the keeper made of it.

    `order.slot` 0 means that nothing was seen on chain yet; the facts are then those of the user's request.
    `version` rises with each visible change of the order or its attempts (an ETag is made of it). `budget_used`
    is the retry budget. Times are unix seconds by this machine's clock.
    """

    id: int
    order: Order
    state: OrderState
    reason: str
    source: Source
    first_seen_at: float
    updated_at: float
    version: int
    client_order_id: str | None = None
    triggered_at: float | None = None
    trigger_price_1e6: int | None = None
    trigger_slot: int | None = None
    position: Pubkey | None = None
    budget_used: int = 0
    attempts_made: int = 0

    @property
    def address(self) -> Pubkey:
        """The order account's address."""
        return self.order.address


class ChangeRow(NamedTuple):
    """One change of one order's state or reason. `id` rises by one from change to change, without gaps."""

    id: int
    order: Pubkey
    user: Pubkey
    market: Pubkey
    state: OrderState
    reason: str
    at: float
    slot: int


@dataclass(frozen=True, slots=True)
class ChangePage:
    """Changes after an id. Everything up to `last_id` was looked at: ask again from there.

    `gap` is true when changes after the asked id were already removed by retention: a reader that wants every
    change has to begin again with a snapshot.
    """

    changes: tuple[ChangeRow, ...]
    last_id: int
    gap: bool


class PreparedRow(NamedTuple):
    """An unsigned transaction that was handed to a user.

    `message` is the exact message bytes that were handed out, `arguments` what it was prepared with, as JSON types.
    A relayed transaction is checked against both. `body_hash` is the request's, for the Idempotency-Key rules. `order`
    is the one that it places, else the first that it cancels; `cancels` are all that it cancels.
    """

    id: str
    kind: PreparedKind
    order: Pubkey
    user: Pubkey
    market: Pubkey
    message: bytes
    blockhash: str
    last_valid_block_height: int
    created_at: float
    arguments: dict[str, Any]
    idempotency_key: str | None = None
    body_hash: str | None = None
    client_order_id: str | None = None
    status: PreparedStatus = PreparedStatus.PREPARED
    signature: Signature | None = None
    cancels: tuple[Pubkey, ...] = ()


@dataclass(frozen=True, slots=True)
class FailureRow:
    """An order that the keeper could not execute, with its whole history, oldest first."""

    order: OrderRow | None
    """None when its attempts are known but the order is not (a journal that `verify` complains about)."""
    attempts: tuple[Attempt, ...]
    changes: tuple[ChangeRow, ...]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows, and the opaque cursor that asks for those after them; None when there are no more."""

    items: tuple[T, ...]
    cursor: str | None
