"""Filling an empty book with many orders at once, from the fields of their accounts: about 5 us an order.

While a load is under way the orders given to it lie in the book's records but in none of its indices, so that nothing
finds them. The indices are made aside, in steps of a few milliseconds, and put in place all at one moment. Orders must
reach the book by the load alone until then; what is watched of any may change.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from solders.pubkey import Pubkey

from keeper.domain.orders import OrderFields, OrderType
from keeper.triggers.rows import Records, SortedRows, pack
from keeper.triggers.tombstones import Tombstones
from keeper.triggers.watchlist import Watchlist

_UPSERTS_AT_ONCE: Final = 64
_PART: Final = 4096
"""So many pairs are sorted in one step."""
_SAMPLES_A_PART: Final = 16


@dataclass(slots=True)
class MarketRows:
    """One market: its number in the book, and how many orders rest in it."""

    address: Pubkey
    number: int
    counts: list[int] = field(default_factory=lambda: [0] * len(OrderType))  # by order type


@dataclass(frozen=True, slots=True)
class Shelf:
    """The parts of the book that a load fills.

    `market` gives a market by its address; `placed` is called at the moment at which the indices are in place, with
    the rows whose address begins as another one's; `upsert` takes in one order the ordinary way.
    """

    records: Records
    by_address: SortedRows
    watch: Watchlist
    watched: Mapping[bytes, object]
    tombstones: Tombstones
    market: Callable[[bytes], MarketRows]
    placed: Callable[[list[int]], None]
    upsert: Callable[[bytes, OrderFields, int], object]


class Loading:
    """A load under way. Into a book that is not empty it takes each order in the ordinary way, at the end."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._was_empty = not len(shelf.records)
        self._later: list[tuple[bytes, OrderFields, int]] = []
        self._markets: dict[bytes, tuple[MarketRows, list[int]]] = {}
        self._rows = array("I")
        self._addresses = array("Q")  # beside the rows: the start of each one's address
        self._places: dict[SortedRows, tuple[array[int], array[int]]] = {}

    def __repr__(self) -> str:
        return f"Loading({len(self._rows)} orders, {len(self._later)} for later)"

    def add(self, orders: Iterable[tuple[bytes, OrderFields]], slot: int) -> None:
        """Pending orders as of `slot`, each its address and its fields."""
        if not self._was_empty:
            self._later += [(address, fields, slot) for address, fields in orders]
            return
        # Names, because this loop is run a million times.
        shelf, markets, places = self._shelf, self._markets, self._places
        add, places_of = shelf.records.add, shelf.watch.places_of
        refuses = shelf.tombstones.refuses if len(shelf.tombstones) else None
        watched, prefix = shelf.watched, int.from_bytes
        add_row, add_address = self._rows.append, self._addresses.append
        for address, fields in orders:
            if address in watched or (refuses is not None and refuses(address, slot)):
                self._later.append((address, fields, slot))
                continue
            _, market_address, kind, side, _, price, stop, distance, _, _, _, expires, _, _ = fields
            known = markets.get(market_address)
            if known is None:
                known = markets[market_address] = (shelf.market(market_address), [0] * len(OrderType))
            number = known[0].number
            known[1][kind] += 1
            row = add(pack(address, fields, number, slot))
            add_row(row)
            add_address(prefix(address[:8], "big"))
            for index, key in places_of(number, kind, side, expires, price, stop, distance):
                pairs = places.get(index)
                if pairs is None:
                    pairs = places[index] = (array("Q"), array("I"))
                pairs[0].append(key)
                pairs[1].append(row)

    def finish(self) -> None:
        """Make them rest, in one piece: 3 s for a million."""
        for _ in self.steps():
            pass

    def steps(self) -> Iterator[None]:
        """Make them rest, in steps of at most a few milliseconds. To be run to the end; nothing shows before it."""
        shelf = self._shelf
        made: list[tuple[SortedRows, SortedRows]] = []
        by_address = yield from filled(self._addresses, self._rows)
        made.append((shelf.by_address, by_address))
        twins: list[int] = []
        last = -1
        for keys, rows in by_address.chunks():
            for key, row in zip(keys, rows, strict=True):
                if key == last:
                    twins.append(row)
                last = key
            yield
        while self._places:
            target, (keys, rows) = self._places.popitem()
            index = yield from filled(keys, rows)
            made.append((target, index))
        if self._was_empty:
            for target, index in made:
                target.take(index)
            for market, counts in self._markets.values():
                market.counts[:] = counts
            shelf.placed(twins)
        for n, (address, fields, slot) in enumerate(self._later):
            shelf.upsert(address, fields, slot)
            if n % _UPSERTS_AT_ONCE == 0:
                yield
        self._later.clear()


def filled(keys: array[int], rows: array[int]) -> Generator[None, None, SortedRows]:
    """An index of pairs that come in any order, `rows[n]` with `keys[n]`, made in steps of about 2 ms, 0.8 us a pair.

    Many pairs are first put into parts, each beyond the one before, so that no step sorts more than one part.
    """
    index = SortedRows()
    parts = yield from _parts(keys, rows)
    while parts:
        index.extend(sorted(parts.pop()))
        yield
    return index


def _parts(keys: array[int], rows: array[int]) -> Generator[None, None, list[list[int]]]:
    """The pairs, each as `key << 32 | row`, in unsorted parts of about `_PART`, the highest part first.

    Where one part ends and the next begins is read off a sorted sample, so that it holds whatever the keys are.
    """
    count = len(keys)
    if count <= 2 * _PART:
        return [[key << 32 | row for key, row in zip(keys, rows, strict=True)]]
    picked = range(0, count, max(1, _PART // _SAMPLES_A_PART))
    sample = sorted(keys[n] << 32 | rows[n] for n in picked)
    borders = sample[_SAMPLES_A_PART::_SAMPLES_A_PART]
    parts: list[list[int]] = [[] for _ in range(len(borders) + 1)]
    for start in range(0, count, _PART):
        yield
        for key, row in zip(keys[start : start + _PART], rows[start : start + _PART], strict=True):
            pair = key << 32 | row
            parts[bisect_left(borders, pair)].append(pair)
    parts.reverse()
    return parts
