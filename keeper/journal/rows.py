"""The journal's rows: one model an entity, from which columns, statements and parsing follow in every store.

A row is held as it is stored: addresses and signatures in base58, times in unix seconds, words of enumerations as
text. Its fields are the table's columns, in this order. A u64 is held as the signed number with the same 64 bits,
because a database's integers end at 2**63 - 1: no value is rounded, and below 2**63, which is every sane price and
size, the number reads as it is. Comparisons of such columns are made on the decoded numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec.structs import astuple
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState, Fate
from keeper.domain.base58 import base58
from keeper.domain.orders import OnchainStatus, Order, OrderState, OrderType, Side
from keeper.journal.records import ChangeRow, OrderRow, PreparedKind, PreparedRow, PreparedStatus, Source
from keeper.journal.transitions import CLOSED_STATES

Values = tuple[Any, ...]

_SIGN: Final = 1 << 63
_SPAN: Final = 1 << 64


def to_stored(value: int) -> int:
    """The signed number that holds this u64. ValueError when it isn't one."""
    if not 0 <= value < _SPAN:
        raise ValueError(f"{value} is not an unsigned 64-bit number")
    return value - _SPAN if value >= _SIGN else value


def from_stored(value: int) -> int:
    """The u64 that `to_stored` stored."""
    return value + _SPAN if value < 0 else value


def from_stored_opt(value: int | None) -> int | None:
    """As `from_stored`; NULL is None."""
    return None if value is None else from_stored(value)


def _u64s(*numbers: int) -> tuple[int, ...]:
    """As `to_stored`, for several at once: nearly all are small."""
    if min(numbers) >= 0 and max(numbers) < _SIGN:
        return numbers
    return tuple(to_stored(number) for number in numbers)


class StoredOrder(msgspec.Struct):
    """A row of `orders`: the account's facts, and what the keeper made of it. `closed` says that the state is terminal;
    `id` 0 that the store has yet to give it one.
    """

    id: int
    address: str
    user: str
    market: str
    order_type: int
    side: int
    size: int
    price: int
    stop_price: int
    trailing_distance: int
    leverage: int
    filled_size: int
    order_id: int | None
    created_at: int
    expires_at: int
    onchain_status: int
    slot: int
    state: str
    closed: int
    reason: str
    triggered_at: float | None
    trigger_price: int | None
    trigger_slot: int | None
    position: str | None
    budget_used: int
    attempts_made: int
    client_order_id: str | None
    source: str
    first_seen_at: float
    updated_at: float
    version: int

    def set_state(self, state: OrderState) -> None:
        """Set the state, and with it whether the order is closed."""
        self.state = state.value
        self.closed = 1 if state in CLOSED_STATES else 0

    def identity(self) -> Values:
        """What an order's account keeps for life: all but its stop, which a ratchet moves, its fill and its status."""
        return (
            self.created_at, self.user, self.market, self.order_type, self.side, self.size, self.price,
            self.trailing_distance, self.leverage, self.order_id, self.expires_at,
        )  # fmt: skip

    def take_facts(self, order: Order) -> bool:
        """Take the account's facts in; whether any was different. ValueError when a number is no u64."""
        before = astuple(self)
        self.user, self.market = base58(order.user), base58(order.market)
        self.order_type, self.side, self.leverage = int(order.order_type), int(order.side), order.leverage
        self.size, self.price, self.stop_price = _u64s(order.size_1e6, order.price_1e6, order.stop_price_1e6)
        self.trailing_distance, self.filled_size, self.slot = _u64s(
            order.trailing_distance_ppm, order.filled_size_1e6, order.slot
        )
        self.order_id = None if order.order_id is None else _u64s(order.order_id)[0]
        self.created_at, self.expires_at, self.onchain_status = order.created_at, order.expires_at, int(order.status)
        return before[_FACTS] != astuple(self)[_FACTS]


ORDER_COLUMNS: Final = StoredOrder.__struct_fields__
_FACTS: Final = slice(ORDER_COLUMNS.index("user"), ORDER_COLUMNS.index("slot"))
ATTEMPT_COLUMNS: Final = (
    "id", "signature", "kind", "order_address", "wire", "blockhash", "last_valid_block_height", "state", "number",
    "signed_at", "trigger_price", "trigger_slot", "unit_limit", "unit_price", "sent_at", "seen_slot", "confirmed_at",
    "finalized_at", "ended_at", "fate", "error_name", "error_program", "error_detail", "fee_lamports", "position",
)  # fmt: skip
CHANGE_COLUMNS: Final = ("id", "order_ref", "state", "reason", "at", "slot")
PREPARED_COLUMNS: Final = (
    "id", "kind", "idempotency_key", "body_hash", "order_address", "user", "market", "message", "arguments",
    "client_order_id", "blockhash", "last_valid_block_height", "created_at", "status", "signature",
)  # fmt: skip

U64_COLUMNS: Final = {
    "orders": frozenset(
        {"size", "price", "stop_price", "trailing_distance", "filled_size", "order_id", "slot", "trigger_price"}
    )
    | {"trigger_slot"},
    "attempts": frozenset({"last_valid_block_height", "trigger_price", "trigger_slot", "unit_price", "seen_slot"})
    | {"fee_lamports"},
    "changes": frozenset({"slot"}),
    "prepared": frozenset({"last_valid_block_height"}),
    "daily_spend": frozenset[str](),
    "meta": frozenset[str](),
}
"""The tables, and which of their columns hold u64."""


class KnownAttempt(msgspec.Struct):
    """What of a stored attempt decides whether it may move, and what is to be changed of it (`patch`, by column)."""

    id: int
    signature: str
    order_address: str
    kind: AttemptKind
    state: AttemptState
    patch: dict[str, Any]


class KnownPrepared(msgspec.Struct):
    """What of a prepared transaction decides whether it may move. `row` is set when it is new."""

    id: str
    key: str | None
    status: str
    signature: str | None = None
    row: PreparedRow | None = None
    moved: bool = False


class NewChange(msgspec.Struct, frozen=True):
    """A row for `changes`."""

    id: int
    order: str
    state: str
    reason: str
    at: float
    slot: int


# --- from the domain's types to values


def attempt_values(a: Attempt) -> Values:
    """A new attempt's row, but for its id, which the store gives."""
    price, trigger_slot, unit_price, height = a[9], a[10], a[12], a.last_valid_block_height
    seen_slot, fee = a.seen_slot, a.fee_lamports
    height, price, trigger_slot, unit_price, seen, paid = _u64s(
        height, price or 0, trigger_slot or 0, unit_price or 0, seen_slot or 0, fee or 0
    )
    return (
        base58(a.signature), a.kind.value, base58(a.order), a.wire, a.blockhash, height, a.state.value, a.number,
        a.signed_at, None if a[9] is None else price, None if a[10] is None else trigger_slot, a.unit_limit,
        None if a[12] is None else unit_price, a.sent_at, None if seen_slot is None else seen, a.confirmed_at,
        a.finalized_at, a.ended_at, a.fate, a.error_name, a.error_program, a.error_detail,
        None if fee is None else paid, None if a.position is None else base58(a.position),
    )  # fmt: skip


def moved_value(column: str, value: Any) -> Any:
    """A `MoveAttempt` field as its column holds it."""
    if column == "position":
        return base58(value)
    return to_stored(value) if column in ("seen_slot", "fee_lamports") else value


def prepared_values(known: KnownPrepared) -> Values:
    """A new prepared transaction's row."""
    p = known.row
    assert p is not None
    return (
        p.id, p.kind.value, p.idempotency_key, p.body_hash, str(p.order), str(p.user), str(p.market), p.message,
        msgspec.json.encode(p.arguments).decode(), p.client_order_id, p.blockhash,
        to_stored(p.last_valid_block_height), p.created_at, known.status, known.signature,
    )  # fmt: skip


order_values: Final[Callable[[StoredOrder], Values]] = astuple
"""An order's row."""

# --- from values to the domain's types

_shared_key = functools.lru_cache(maxsize=4_096)(Pubkey.from_string)
"""An address that many rows have in common: reading base58 costs more than looking it up."""

# An enum's constructor takes twenty times as long as a look into a table.
_TYPES: Final = tuple(OrderType)
_SIDES: Final = tuple(Side)
_STATUSES: Final = tuple(OnchainStatus)
STATES: Final = {state.value: state for state in OrderState}
_SOURCES: Final = {source.value: source for source in Source}
_KINDS: Final = {kind.value: kind for kind in AttemptKind}
_ATTEMPT_STATES: Final = {state.value: state for state in AttemptState}
_FATES: Final = {fate.value: fate for fate in Fate}


def _key(text: str | None) -> Pubkey | None:
    return None if text is None else Pubkey.from_string(text)


def order_row(values: Values) -> OrderRow:
    """An order, from its columns in their order."""
    (
        row_id, address, user, market, order_type, side, size, price, stop_price, distance, leverage, filled_size,
        order_id, created_at, expires_at, status, slot, state, _, reason, triggered_at, trigger_price, trigger_slot,
        position, budget_used, attempts_made, client_order_id, source, first_seen_at, updated_at,
        version,
    ) = values  # fmt: skip
    order = Order(
        Pubkey.from_string(address),
        _shared_key(user),
        _shared_key(market),
        _TYPES[order_type],
        _SIDES[side],
        from_stored(size),
        from_stored(price),
        from_stored(stop_price),
        from_stored(distance),
        leverage,
        _STATUSES[status],
        created_at,
        expires_at,
        from_stored(filled_size),
        from_stored_opt(order_id),
        from_stored(slot),
    )
    return OrderRow(
        row_id,
        order,
        STATES[state],
        reason,
        _SOURCES[source],
        first_seen_at,
        updated_at,
        version,
        client_order_id,
        triggered_at,
        from_stored_opt(trigger_price),
        from_stored_opt(trigger_slot),
        _key(position),
        budget_used,
        attempts_made,
    )


def attempt_row(values: Values) -> Attempt:
    """An attempt, from its columns in their order."""
    (
        _, signature, kind, order, wire, blockhash, height, state, number, signed_at, trigger_price, trigger_slot,
        unit_limit, unit_price, sent_at, seen_slot, confirmed_at, finalized_at, ended_at, fate, error_name,
        error_program, error_detail, fee_lamports, position,
    ) = values  # fmt: skip
    return Attempt(
        Signature.from_string(signature),
        _KINDS[kind],
        Pubkey.from_string(order),
        wire,
        blockhash,
        from_stored(height),
        _ATTEMPT_STATES[state],
        number,
        signed_at,
        from_stored_opt(trigger_price),
        from_stored_opt(trigger_slot),
        unit_limit,
        from_stored_opt(unit_price),
        sent_at,
        from_stored_opt(seen_slot),
        confirmed_at,
        finalized_at,
        ended_at,
        None if fate is None else _FATES[fate],
        error_name,
        error_program,
        error_detail,
        from_stored_opt(fee_lamports),
        _key(position),
    )


def change_row(values: Values) -> ChangeRow:
    """A change, from: id, its order's address, user and market, state, reason, at, slot."""
    change_id, order, user, market, state, reason, at, slot = values
    return ChangeRow(
        change_id,
        Pubkey.from_string(order),
        _shared_key(user),
        _shared_key(market),
        STATES[state],
        reason,
        at,
        from_stored(slot),
    )


def prepared_row(values: Values) -> PreparedRow:
    """A prepared transaction, from its columns in their order."""
    (
        row_id, kind, key, body_hash, order, user, market, message, arguments, client_order_id, blockhash, height,
        created_at, status, signature,
    ) = values  # fmt: skip
    return PreparedRow(
        id=row_id,
        kind=PreparedKind(kind),
        order=Pubkey.from_string(order),
        user=Pubkey.from_string(user),
        market=Pubkey.from_string(market),
        message=message,
        blockhash=blockhash,
        last_valid_block_height=from_stored(height),
        created_at=created_at,
        arguments=msgspec.json.decode(arguments),
        idempotency_key=key,
        body_hash=body_hash,
        client_order_id=client_order_id,
        status=PreparedStatus(status),
        signature=None if signature is None else Signature.from_string(signature),
    )
