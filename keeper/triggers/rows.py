"""What the book is made of: orders as records, each with a row number, and row numbers in order of a key.

An `Order` with its three public keys and a dozen Python integers takes about 900 bytes; a million of them would
not fit beside anything else. So the book keeps records of 144 bytes, whoever owns the order and whatever its market,
and builds an `Order` when somebody asks for one. Records lie in pages of a few hundred KB rather than in one array,
because growing one array copies all of it on some systems.

An index holds pairs (key, row) of a 64-bit key and a 32-bit row number, sorted, in chunks of plain arrays: 12 bytes a
pair and some slack, against 56 for a sorted list of Python integers. Finding is two bisections, inserting and
removing move at most one chunk (1.5 KB), and reading the lowest or highest key is O(1). Pairs are unique, keys
need not be: a hundred thousand stops at one round number cost no more than at as many prices.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import takewhile
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

MAX_KEY: Final = 2**64 - 1
_MAX_ROW: Final = 2**32 - 1
_FULL: Final = 128
"""A chunk is split when it grows beyond this, and joined to a neighbour below a quarter of it. Small ones cost a few
bytes a pair; large ones cost cache lines, which is what an update in a large book waits for."""


def pack(address: bytes, fields: OrderFields, market: int, slot: int) -> bytes:
    """The record of an order with these fields, `market` being the book's number for its market.

    Its status is not in it: the book holds pending orders only.
    """
    user, _, kind, side, size, price, stop, distance, leverage, _, created, expires, filled, order_id = fields
    return _LAYOUT.pack(
        address, user, market, kind, side, leverage, 0 if order_id is None else _HAS_ID,
        created, expires, size, price, stop, distance, filled, order_id or 0, slot,
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
        if self._free:
            row = self._free.pop()
        else:
            row = self._used
            self._used += 1
            if not row & _PAGE_MASK:
                self._pages.append(bytearray(_PAGE_ROWS * _SIZE))
        _WHOLE.pack_into(self._pages[row >> _PAGE_BITS], (row & _PAGE_MASK) * _SIZE, record)
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
            Pubkey.from_bytes(address), Pubkey.from_bytes(user), markets[market], _TYPES[order_type], _SIDES[side],
            size, price, stop, distance, leverage, OnchainStatus.PENDING, created, expires, filled,
            order_id if flags & _HAS_ID else None, slot,
        )  # fmt: skip


class SortedRows:
    """Pairs (key, row), ascending by key, then by row. Not to be changed while one of its iterators is in use."""

    __slots__ = ("_count", "_keys", "_lasts", "_rows")

    def __init__(self) -> None:
        self._keys: list[array[int]] = []
        self._rows: list[array[int]] = []
        self._lasts: list[int] = []  # each chunk's last pair, as key << 32 | row: a chunk is found by bisection
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"SortedRows(pairs={self._count}, chunks={len(self._keys)})"

    def add(self, key: int, row: int) -> None:
        """Put a pair in. ValueError if it is there already: two owners of one row would be a bug."""
        pair = key << 32 | row
        chunk = bisect_left(self._lasts, pair)
        if chunk == len(self._lasts):
            if not chunk:
                self._append(array("Q", (key,)), array("I", (row,)))
                self._count = 1
                return
            chunk -= 1
            self._lasts[chunk] = pair  # it is beyond all others, and goes to the end of the last chunk
        keys, rows = self._keys[chunk], self._rows[chunk]
        at = bisect_left(keys, key)
        if at < len(keys) and keys[at] == key:
            at = _position(keys, rows, key, row)
            if at < len(keys) and rows[at] == row and keys[at] == key:
                raise ValueError(f"the pair {key}, {row} is already there")
        keys.insert(at, key)
        rows.insert(at, row)
        self._count += 1
        if len(keys) > _FULL:
            self._split(chunk)

    def remove(self, key: int, row: int) -> None:
        """Take a pair out. KeyError if it isn't there: the book has lost count of its rows."""
        chunk = bisect_left(self._lasts, key << 32 | row)
        if chunk == len(self._lasts):
            raise KeyError((key, row))
        keys, rows = self._keys[chunk], self._rows[chunk]
        at = bisect_left(keys, key)
        if rows[at] != row or keys[at] != key:
            at = _position(keys, rows, key, row)
            if rows[at] != row or keys[at] != key:
                raise KeyError((key, row))
        del keys[at], rows[at]
        self._count -= 1
        size = len(keys)
        if not size:
            del self._keys[chunk], self._rows[chunk], self._lasts[chunk]
            return
        if at == size:
            self._lasts[chunk] = keys[-1] << 32 | rows[-1]
        if size < _FULL // 4 and len(self._lasts) > 1:
            self._join(chunk - 1 if chunk else chunk)

    def ascending(self, start: int = 0) -> Iterator[tuple[int, int]]:
        """The pairs with key >= start, lowest first."""
        for chunk in range(bisect_left(self._lasts, start << 32), len(self._lasts)):
            keys, rows = self._keys[chunk], self._rows[chunk]
            for at in range(bisect_left(keys, start), len(keys)):
                yield keys[at], rows[at]

    def descending(self, start: int = MAX_KEY) -> Iterator[tuple[int, int]]:
        """The pairs with key <= start, highest first."""
        newest = min(bisect_left(self._lasts, start << 32 | _MAX_ROW), len(self._lasts) - 1)
        for chunk in range(newest, -1, -1):
            keys, rows = self._keys[chunk], self._rows[chunk]
            for at in range(bisect_right(keys, start) - 1, -1, -1):
                yield keys[at], rows[at]

    def from_top(self, least: int, limit: int | None) -> list[int]:
        """The rows with key >= `least`, highest first, at most `limit`. Asks one number when there is none."""
        rows: list[int] = []
        if not self._lasts or self._lasts[-1] >> 32 < least:
            return rows
        for chunk in range(len(self._lasts) - 1, -1, -1):
            start = bisect_left(self._keys[chunk], least)
            rows += self._rows[chunk][start:][::-1]
            if start or (limit is not None and len(rows) >= limit):
                break
        return rows[:limit]

    def from_bottom(self, most: int, limit: int | None) -> list[int]:
        """The rows with key <= `most`, lowest first, at most `limit`. Asks one number when there is none."""
        rows: list[int] = []
        if not self._keys or self._keys[0][0] > most:
            return rows
        for chunk, keys in enumerate(self._keys):
            end = bisect_right(keys, most)
            rows += self._rows[chunk][:end]
            if end < len(keys) or (limit is not None and len(rows) >= limit):
                break
        return rows[:limit]

    def equal(self, key: int) -> Sequence[int]:
        """The rows with exactly this key."""
        chunk = bisect_left(self._lasts, key << 32)
        if chunk == len(self._lasts):
            return ()
        keys = self._keys[chunk]
        start = bisect_left(keys, key)
        if keys[start] != key:
            return ()
        following = keys if start + 1 < len(keys) else self._keys[chunk + 1] if chunk + 1 < len(self._keys) else ()
        after = (start + 1) % len(keys)
        if not following or following[after] != key:
            return (self._rows[chunk][start],)
        return [row for _, row in takewhile(lambda pair: pair[0] == key, self.ascending(key))]

    def chunks(self) -> Iterator[tuple[array[int], array[int]]]:
        """All pairs, some hundred at a time, as keys and rows; lowest first."""
        return zip(self._keys, self._rows, strict=True)

    def extend(self, pairs: Sequence[int]) -> None:
        """Put many pairs in, each as `key << 32 | row`, sorted, and beyond all that are there already. Chunks are made
        three quarters full, so that the first additions after a load do not split them all.
        """
        size = _FULL * 3 // 4
        for start in range(0, len(pairs), size):
            some = pairs[start : start + size]
            self._append(array("Q", [pair >> 32 for pair in some]), array("I", [pair & _MAX_ROW for pair in some]))
        self._count += len(pairs)

    def take(self, other: SortedRows) -> None:
        """Have the pairs of `other`, which must not be used any more, instead of its own."""
        self._keys, self._rows, self._lasts, self._count = other._keys, other._rows, other._lasts, other._count

    def _append(self, keys: array[int], rows: array[int]) -> None:
        self._keys.append(keys)
        self._rows.append(rows)
        self._lasts.append(keys[-1] << 32 | rows[-1])

    def _split(self, chunk: int) -> None:
        keys, rows = self._keys[chunk], self._rows[chunk]
        half = len(keys) // 2
        self._keys[chunk : chunk + 1] = [keys[:half], keys[half:]]
        self._rows[chunk : chunk + 1] = [rows[:half], rows[half:]]
        self._lasts.insert(chunk, keys[half - 1] << 32 | rows[half - 1])

    def _join(self, chunk: int) -> None:
        """Append the next chunk to this one, so that removals don't leave a trail of tiny chunks."""
        self._keys[chunk].extend(self._keys.pop(chunk + 1))
        self._rows[chunk].extend(self._rows.pop(chunk + 1))
        del self._lasts[chunk]
        if len(self._keys[chunk]) > _FULL:
            self._split(chunk)


def _position(keys: array[int], rows: array[int], key: int, row: int) -> int:
    """Where the pair is, or belongs, in a chunk."""
    at = bisect_left(keys, key)
    if at < len(keys) and rows[at] != row and keys[at] == key:
        # Several rows may have this key.
        at = bisect_left(rows, row, at, bisect_right(keys, key, at))
    return at
