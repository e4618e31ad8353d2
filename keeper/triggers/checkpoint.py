"""The whole state of a decision as plain values, and the decision that has just that state.

It alone reaches inside the parts of the decision. Rows keep their numbers, because orders that share a trigger are
acted on in the order of their rows: a decision that was put back decides the same, in the same order, as the one that
went on. Copying 100,000 orders takes about 3 ms, because the book keeps them as pages of bytes; putting them back takes
a few seconds for a million.
"""

from __future__ import annotations

from array import array
from collections.abc import Generator
from dataclasses import dataclass

from solders.pubkey import Pubkey

from keeper.domain.prices import Price
from keeper.triggers.book import _PREFIX, Book
from keeper.triggers.decision import Decision, Rules
from keeper.triggers.loading import filled
from keeper.triggers.prices import _Market
from keeper.triggers.rows import SortedRows, terms_of
from keeper.triggers.watchlist import Watched

PriceValues = tuple[bytes, int, int, int]
"""A price's market, number, slot and time."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All but the pages of the book's records. Public keys are their 32 bytes. `breaker`: of each market the last
    update, the jump that paused it and how many calm updates followed; with how often it tripped. `older` and `newer`
    are the tombstones' halves. Every row is free or an order's, because nothing comes beside a load.
    """

    chain_time_s: float
    market_slots: dict[bytes, int]
    inactive: list[bytes]
    prices: list[PriceValues]
    breaker: list[tuple[PriceValues, str | None, int]]
    trips: int
    feeds: list[PriceValues]
    markets: list[bytes]
    rows: int
    free: list[int]
    watched: dict[bytes, int]
    older: dict[bytes, int]
    newer: dict[bytes, int]


def price_values(price: Price) -> PriceValues:
    """A price as plain values."""
    return bytes(price.market), price.price_1e6, price.slot, price.updated_at_s


def price_of(values: PriceValues) -> Price:
    """The price that these values are."""
    return Price(Pubkey(values[0]), *values[1:])


def dump(decision: Decision) -> tuple[Checkpoint, list[bytes]]:
    """The state, and the pages of its records. Both are copies."""
    book, breaker, feeds = decision.book, decision.breaker, decision.feeds
    known = {} if breaker is None else breaker._markets
    state = Checkpoint(
        chain_time_s=decision._chain_time_s,
        market_slots={bytes(market): slot for market, slot in decision._market_slots.items()},
        inactive=[bytes(market) for market in decision._inactive],
        prices=[price_values(price) for price in decision.prices._latest.values()],
        breaker=[(price_values(market.last), market.jump, market.calm) for market in known.values()],
        trips=0 if breaker is None else breaker.trips,
        feeds=[] if feeds is None else [price_values(price) for price in feeds._latest.values()],
        markets=[bytes(market) for market in book._addresses],
        rows=book._records._used,
        free=list(book._records._free),
        watched={address: int(watched) for address, watched in book._watched.items()},
        older=dict(book._tombstones._older),
        newer=dict(book._tombstones._newer),
    )
    return state, [bytes(page) for page in book._records._pages]


def restored(rules: Rules, state: Checkpoint, pages: list[bytes]) -> Decision:
    """A decision in that state, under these rules, which may be others than those it had."""
    decision = Decision(rules)
    decision._chain_time_s = state.chain_time_s
    decision._market_slots = {Pubkey(market): slot for market, slot in state.market_slots.items()}
    decision._inactive = {Pubkey(market) for market in state.inactive}
    for price in map(price_of, state.prices):
        decision.prices._latest[price.market] = price
    if decision.breaker is not None:
        decision.breaker.trips = state.trips
        for values, jump, calm in state.breaker:
            last = price_of(values)
            decision.breaker._markets[last.market] = _Market(last, jump, calm)
    if decision.feeds is not None:
        decision.feeds._latest = {price.market: price for price in map(price_of, state.feeds)}
    _fill(decision.book, state, pages)
    return decision


def _fill(book: Book, state: Checkpoint, pages: list[bytes]) -> None:
    for market in state.markets:
        book._market(Pubkey(market))
    records = book._records
    records._pages, records._used = [bytearray(page) for page in pages], state.rows
    records._free = array("I", state.free)
    book._watched.update({address: Watched(watched) for address, watched in state.watched.items()})
    book._tombstones._older, book._tombstones._newer = dict(state.older), dict(state.newer)
    places: dict[SortedRows, tuple[array[int], array[int]]] = {book._by_address: (array("Q"), array("I"))}
    free = frozenset(state.free)
    for row in range(state.rows):
        if row in free:
            continue
        address, terms = records.address(row), terms_of(records[row])
        watched = book._watched.get(address, Watched.EVERYTHING)
        if watched is not Watched.EXPIRED:
            book._markets[terms[0]].counts[terms[1]] += 1
        for index, key in ((book._by_address, _PREFIX.unpack_from(address)[0]), *book._watch.places(terms, watched)):
            keys, rows = places.setdefault(index, (array("Q"), array("I")))
            keys.append(key)
            rows.append(row)
    for index, (keys, rows) in places.items():
        index.take(_run(filled(keys, rows)))


def _run(steps: Generator[None, None, SortedRows]) -> SortedRows:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            made: SortedRows = end.value
            return made
