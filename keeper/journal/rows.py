"""The journal's rows: one model an entity, from which columns, statements and parsing follow in every store.

A row is held as it is stored: addresses and signatures in base58, times in unix seconds, words of enumerations as
text. A u64 is held as the signed number with the same 64 bits, because a database's integers end at 2**63 - 1: no value
is rounded, and below 2**63, which is every sane price and size, the number reads as it is. Comparisons of such columns
are made on the decoded numbers.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec.structs import astuple
from solders.pubkey import Pubkey
from solders.signature import Signature

from keeper.domain.attempts import Attempt, AttemptKind, AttemptState
from keeper.domain.base58 import base58
from keeper.domain.orders import Order, OrderState
from keeper.domain.ways import WayRow
from keeper.journal.records import ChangeRow, OrderRow, PreparedRow
from keeper.journal.transitions import CLOSED_STATES

Record = TypeVar("Record", bound=tuple[Any, ...])
Values = tuple[Any, ...]

TABLES: Final = ("orders", "attempts", "attempt_ways", "changes", "prepared", "daily_spend", "meta")
U64_COLUMNS: Final = frozenset(
    {
        "size", "price", "stop_price", "trailing_distance", "filled_size", "order_id", "slot", "trigger_price",
        "trigger_slot", "last_valid_block_height", "unit_price", "seen_slot", "fee_lamports", "tip_lamports",
    }
)  # fmt: skip
"""The columns that hold u64, in whichever table."""

STATES: Final = {state.value: state for state in OrderState}
"""An enum's constructor takes twenty times as long as a look into a table."""

_SIGN: Final = 1 << 63
_SPAN: Final = 1 << 64
_UNIT: Final = re.compile("_(1e6|ppm|micro_lamports)$")
"""What a field's name has and its column's has not."""


def to_stored(value: int) -> int:
    """The signed number that holds this u64. ValueError when it isn't one."""
    if not 0 <= value < _SPAN:
        raise ValueError(f"{value} is not an unsigned 64-bit number")
    return value - _SPAN if value >= _SIGN else value


def from_stored(value: int) -> int:
    """The u64 that `to_stored` stored."""
    return value + _SPAN if value < 0 else value


def exported(row: dict[str, Any]) -> dict[str, Any]:
    """A row by its columns, for JSON: u64 are plain numbers. (msgspec writes bytes as base64 by itself.)"""
    for column in U64_COLUMNS & row.keys():
        row[column] = None if row[column] is None else from_stored(row[column])
    return row


_address = functools.lru_cache(maxsize=4_096)(Pubkey.from_string)
"""Many rows have their user and market in common: reading base58 costs more than looking it up."""


def _from_text(kind: type, text: str) -> Pubkey | Signature:
    return _address(text) if kind is Pubkey else Signature.from_string(text)


class Codec(Generic[Record]):
    """Named tuples of the domain to a table's values and back. The columns are the fields, without their units."""

    def __init__(self, record: type[Record], **renamed: str) -> None:
        self._record = record
        fields = record.__match_args__  # type: ignore[attr-defined]
        self.columns: Final[tuple[str, ...]] = tuple(renamed.get(field, _UNIT.sub("", field)) for field in fields)
        self._u64 = [place for place, column in enumerate(self.columns) if column in U64_COLUMNS]

    def values(self, record: Record) -> Values:
        """The record's row. ValueError when a number is no u64."""
        values: Values = msgspec.to_builtins(record, enc_hook=base58, builtin_types=(bytes,))
        return _with_u64(values, self._u64, to_stored)

    def record(self, values: Values) -> Record:
        """The record that is stored as these values, in the columns' order."""
        values = _with_u64(values, self._u64, from_stored)
        record: Record = msgspec.convert(values, self._record, dec_hook=_from_text, builtin_types=(bytes,))
        return record


def _with_u64(values: Values, places: Sequence[int], change: Callable[[int], int]) -> Values:
    """The values, those of the places changed that are not the same stored and read: nearly none."""
    for place in places:
        if (value := values[place]) is not None and not 0 <= value < _SIGN:
            break
    else:
        return values
    known = enumerate(values)
    return tuple(change(value) if n in places and value is not None else value for n, value in known)


ORDERS: Final = Codec(Order, status="onchain_status")
"""An order's account: the first columns of its row, after the id."""
ATTEMPTS: Final = Codec(Attempt, order="order_address")
"""Attempts; the store gives the id, which is not among these columns."""
WAYS: Final = Codec(WayRow)
"""By which ways attempts were sent."""
CHANGES: Final = Codec(ChangeRow)
"""Changes, with their orders' address, user and market."""
PREPARED: Final = Codec(PreparedRow, order="order_address")
CHANGE_COLUMNS: Final = ("id", "order_ref", "state", "reason", "at", "slot")


class StoredOrder(msgspec.Struct):
    """A row of `orders`: the account's facts, and what the keeper made of it. `closed` says that the state is terminal;
    `id` 0 that the store has yet to give it one. Its fields are the columns, in the order of OrderRow's.
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
    onchain_status: int
    created_at: int
    expires_at: int
    filled_size: int
    order_id: int | None
    slot: int
    state: str
    reason: str
    source: str
    first_seen_at: float
    updated_at: float
    version: int = 1
    client_order_id: str | None = None
    triggered_at: float | None = None
    trigger_price: int | None = None
    trigger_slot: int | None = None
    position: str | None = None
    budget_used: int = 0
    attempts_made: int = 0
    closed: int = 0

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
        """Take the account's facts in; whether any but the slot was different. ValueError when a number is no u64."""
        before, facts = astuple(self)[_FACTS], ORDERS.values(order)
        if before != facts:
            for column, value in zip(ORDERS.columns, facts, strict=True):
                setattr(self, column, value)
        return before[:-1] != facts[:-1]


ORDER_COLUMNS: Final = StoredOrder.__struct_fields__
_FACTS: Final = slice(1, 1 + len(ORDERS.columns))
_U64_OF_ORDERS: Final = [place for place, column in enumerate(ORDER_COLUMNS) if column in U64_COLUMNS]

order_values: Final[Callable[[StoredOrder], Values]] = astuple
"""An order's row."""


def order_row(values: Values) -> OrderRow:
    """An order, from its columns in their order."""
    known = _with_u64(values, _U64_OF_ORDERS, from_stored)
    nested = (known[0], known[_FACTS], *known[_FACTS.stop : -1])
    return msgspec.convert(nested, OrderRow, dec_hook=_from_text)


class KnownAttempt(msgspec.Struct):
    """What of a stored attempt decides whether it may move, and what is to be changed of it (`patch`, by column).
    `disarmed`: its row goes.
    """

    id: int
    signature: str
    order_address: str
    kind: AttemptKind
    state: AttemptState
    patch: dict[str, Any]
    disarmed: bool = False


class KnownPrepared(msgspec.Struct):
    """What of a prepared transaction decides whether it may move. `row` is set when it is new."""

    id: str
    key: str | None
    status: str
    signature: str | None = None
    row: PreparedRow | None = None
    moved: bool = False
    dropped: bool = False


class NewChange(msgspec.Struct, frozen=True):
    """A row for `changes`."""

    id: int
    order: str
    state: str
    reason: str
    at: float
    slot: int


def moved_value(column: str, value: Any) -> Any:
    """A `MoveAttempt` field as its column holds it."""
    if column == "position":
        return base58(value)
    return to_stored(value) if column in U64_COLUMNS else value


_JSON: Final = tuple(PREPARED.columns.index(column) for column in ("arguments", "cancels"))
"""The columns of a prepared transaction that hold more than one value, as JSON."""


def prepared_values(known: KnownPrepared) -> Values:
    """A new prepared transaction's row."""
    assert known.row is not None
    row = dict(zip(PREPARED.columns, PREPARED.values(known.row), strict=True))
    row |= {"status": known.status, "signature": known.signature}
    return _changed(tuple(row.values()), lambda value: msgspec.json.encode(value).decode())


def prepared_row(values: Values) -> PreparedRow:
    """A prepared transaction, from its columns in their order."""
    return PREPARED.record(_changed(values, msgspec.json.decode))


def _changed(values: Values, change: Callable[[Any], Any]) -> Values:
    return tuple(change(value) if n in _JSON else value for n, value in enumerate(values))
