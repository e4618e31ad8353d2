"""Orders packed into fixed-size records: 144 bytes an order, whoever owns it and whatever its market.

An `Order` with its three public keys and a dozen Python integers takes about 900 bytes; a million of them would
not fit beside anything else. So the book keeps bytes and builds an `Order` when somebody asks for one. Records lie
in pages of a few hundred KB rather than in one array, because growing one array copies all of it on some systems.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from typing import Final

from solders.pubkey import Pubkey

from keeper.domain.orders import OnchainStatus, Order, OrderFields, OrderType, Side

_LAYOUT: Final = struct.Struct("<32s32sIBBBBqqQQQQQQQ")
# address, user, market's number, type, side, leverage, flags, created, expires, size, price, stop, distance,
# filled, order id, slot. What an account keeps for life comes first and the slot last, so that "the same order"
# and "the same but for the slot" are comparisons of bytes.
_SIZE: Final = _LAYOUT.size
_TERMS: Final = struct.Struct("<IBB2x8xq8xQQQ")
_TERMS_AT: Final = 64
_IDENTITY_SIZE: Final = 80
_SLOT: Final = struct.Struct("<Q")
_SLOT_AT: Final = _SIZE - _SLOT.size
_WHOLE: Final = struct.Struct(f"{_SIZE}s")
_PAGE_BITS: Final = 12
_PAGE_ROWS: Final = 1 << _PAGE_BITS
_PAGE_MASK: Final = _PAGE_ROWS - 1

_HAS_ID: Final = 1
_TYPES: Final = tuple(OrderType)
_SIDES: Final = tuple(Side)


def pack(address: bytes, order: Order, market: int) -> bytes:
    """The order's record, `market` being the book's number for its market, `address` its address.

    Its status is not in it: the book holds pending orders only.
    """
    # Unpacked at once: sixteen attributes by name take longer than the packing.
    _, user, _, kind, side, size, price, stop, distance, leverage, _, created, expires, filled, order_id, slot = order
    return _LAYOUT.pack(
        address, bytes(user), market, kind, side, leverage, 0 if order_id is None else _HAS_ID,
        created, expires, size, price, stop, distance, filled, order_id or 0, slot,
    )  # fmt: skip


def pack_fields(address: bytes, fields: OrderFields, market: int, slot: int) -> bytes:
    """The same from an account's fields, with no order made of them."""
    user, _, kind, side, size, price, stop, distance, leverage, _, created, expires, filled, order_id = fields
    flags = 0 if order_id is None else _HAS_ID
    number = order_id or 0
    return _LAYOUT.pack(
        address, user, market, kind, side, leverage, flags,
        created, expires, size, price, stop, distance, filled, number, slot,
    )  # fmt: skip


def same_order(left: bytes, right: bytes) -> bool:
    """Whether two records of one address are of one order, not of one that was closed and another made there."""
    return left[:_IDENTITY_SIZE] == right[:_IDENTITY_SIZE]


def same_but_for_slot(left: bytes, right: bytes) -> bool:
    """Whether two records say the same of the order, perhaps as of different slots."""
    return left[:_SLOT_AT] == right[:_SLOT_AT]


def slot_of(record: bytes) -> int:
    """The slot as of which the record is."""
    slot: int = _SLOT.unpack_from(record, _SLOT_AT)[0]
    return slot


Terms = tuple[int, int, int, int, int, int, int]
"""What decides where an order lies in the book: market's number, type, side, expires_at, price, stop price and
trailing distance.
"""


def terms_of(record: bytes) -> Terms:
    """The terms in a record."""
    terms: Terms = _TERMS.unpack_from(record, _TERMS_AT)
    return terms


class Records:
    """Records by row number. A freed row is used again by the next order."""

    __slots__ = ("_free", "_pages", "_used")

    def __init__(self) -> None:
        self._pages: list[bytearray] = []
        self._free: array[int] = array("I")
        self._used = 0  # rows that were ever given out; the rest of the last page is untouched

    def __len__(self) -> int:
        return self._used - len(self._free)

    def __repr__(self) -> str:
        return f"Records({len(self)} of {len(self._pages) * _PAGE_ROWS} rows, {_SIZE} bytes each)"

    def add(self, record: bytes) -> int:
        """Keep a record; the row that it got."""
        row = self._new_row()
        self[row] = record
        return row

    def put(self, address: bytes, fields: OrderFields, market: int, slot: int) -> int:
        """Keep the record of these fields (`pack_fields`); the row that it got."""
        row = self._used
        if self._free or not row & _PAGE_MASK:
            row = self._new_row()
        else:
            self._used += 1
        user, _, kind, side, size, price, stop, distance, leverage, _, created, expires, filled, order_id = fields
        _LAYOUT.pack_into(
            self._pages[row >> _PAGE_BITS], (row & _PAGE_MASK) * _SIZE,
            address, user, market, kind, side, leverage, 0 if order_id is None else _HAS_ID,
            created, expires, size, price, stop, distance, filled, order_id or 0, slot,
        )  # fmt: skip
        return row

    def _new_row(self) -> int:
        if self._free:
            return self._free.pop()
        row = self._used
        if row == len(self._pages) * _PAGE_ROWS:
            self._pages.append(bytearray(_PAGE_ROWS * _SIZE))
        self._used += 1
        return row

    def discard(self, row: int) -> None:
        """Give a row back. What it held must not be asked for any more."""
        self._free.append(row)

    def __getitem__(self, row: int) -> bytes:
        start = (row & _PAGE_MASK) * _SIZE
        # One copy, where the bytes of a slice make two.
        record: bytes = _WHOLE.unpack_from(self._pages[row >> _PAGE_BITS], start)[0]
        return record

    def __setitem__(self, row: int, record: bytes) -> None:
        start = (row & _PAGE_MASK) * _SIZE
        _WHOLE.pack_into(self._pages[row >> _PAGE_BITS], start, record)

    def set_slot(self, row: int, slot: int) -> None:
        """Note that the record is unchanged as of a newer slot."""
        _SLOT.pack_into(self._pages[row >> _PAGE_BITS], (row & _PAGE_MASK) * _SIZE + _SLOT_AT, slot)

    def slot(self, row: int) -> int:
        """The slot as of which the row's record is."""
        slot: int = _SLOT.unpack_from(self._pages[row >> _PAGE_BITS], (row & _PAGE_MASK) * _SIZE + _SLOT_AT)[0]
        return slot

    def address(self, row: int) -> bytes:
        """The address of the row's order."""
        start = (row & _PAGE_MASK) * _SIZE
        return bytes(self._pages[row >> _PAGE_BITS][start : start + 32])

    def is_of(self, row: int, address: bytes) -> bool:
        """Whether the row's order has this address."""
        start = (row & _PAGE_MASK) * _SIZE
        return self._pages[row >> _PAGE_BITS].startswith(address, start)

    def order(self, row: int, markets: Sequence[Pubkey]) -> Order:
        """The row's order; `markets` are the book's, by number."""
        (
            address, user, market, order_type, side, leverage, flags, created, expires,
            size, price, stop, distance, filled, order_id, slot,
        ) = _LAYOUT.unpack_from(self._pages[row >> _PAGE_BITS], (row & _PAGE_MASK) * _SIZE)  # fmt: skip
        return Order(
            Pubkey.from_bytes(address),
            Pubkey.from_bytes(user),
            markets[market],
            _TYPES[order_type],
            _SIDES[side],
            size,
            price,
            stop,
            distance,
            leverage,
            OnchainStatus.PENDING,
            created,
            expires,
            filled,
            order_id if flags & _HAS_ID else None,
            slot,
        )
