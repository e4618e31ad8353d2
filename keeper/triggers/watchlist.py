"""What a price or a moment touches: the orders sorted by trigger, by ratchet threshold and by expiry.

Rows and records only; whose they are and what else is known of them is the book's.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from itertools import chain
from typing import Final

from keeper.domain.orders import Order, OrderType, Side
from keeper.domain.prices import Fires
from keeper.triggers.conditions import fires_of, threshold
from keeper.triggers.rows import MAX_KEY, SortedRows, Terms


class Watched(enum.IntEnum):
    """What the book watches of an order. Who decides it is the order's record (`keeper.execution.orders`)."""

    EVERYTHING = 0
    """Its trigger, its ratchet threshold and its expiry."""
    EXPIRY = 1
    """Its expiry alone: it is not to be executed now, but it can expire meanwhile."""
    NOTHING = 2
    """An attempt at it, or its user's cancel, is under way."""
    EXPIRED = 3
    """Nothing, and it does not count as resting: it is past `expires_at`, though its account still says pending."""


Pairs = tuple[SortedRows, SortedRows]
"""Two indices of one market, indexed by `Fires`."""

Place = tuple[SortedRows, int]
"""An index that watches an order, and the order's key in it."""

# Reaching a member of an enum through its class costs several times as much as a name, and hashing one is a Python
# call: both would be paid several times for every update.
_EVERYTHING: Final = Watched.EVERYTHING
_EXPIRY: Final = Watched.EXPIRY
_LIMIT: Final = int(OrderType.LIMIT)
_TRAILING_STOP: Final = int(OrderType.TRAILING_STOP)
_SIDES: Final = tuple(Side)


class Watchlist:
    """The sorted indices of the orders whose trigger or expiry is watched.

    `executable` are the types that the program's revision executes; others expire, and nothing else. `step_ppm`
    is the smallest step by which a trailing stop is worth moving.
    """

    __slots__ = ("_expiries", "_fires", "_step_ppm", "_thresholds", "_triggers")

    def __init__(self, executable: frozenset[OrderType], step_ppm: int) -> None:
        # Indexed by 2 * type + side.
        self._fires = [fires_of(order_type, side, executable) for order_type in OrderType for side in Side]
        self._step_ppm = step_ppm
        self._expiries = SortedRows()
        self._triggers: list[Pairs] = []  # by the market's number, as the thresholds
        self._thresholds: list[Pairs] = []

    def __repr__(self) -> str:
        return f"Watchlist(triggers={self.watched}, expiries={len(self._expiries)}, markets={len(self._triggers)})"

    @property
    def watched(self) -> int:
        """How many orders' triggers are watched."""
        return sum(map(len, chain.from_iterable(self._triggers)))

    def add_market(self) -> None:
        """Make room for one more market; they are numbered from 0."""
        self._triggers.append((SortedRows(), SortedRows()))
        self._thresholds.append((SortedRows(), SortedRows()))

    def executes(self, order_type: OrderType, side: Side) -> bool:
        """Whether the program's revision executes such orders."""
        return self._fires[2 * order_type + side] is not None

    def meets(self, order: Order, price_1e6: int) -> bool:
        """Whether this price meets the order's condition (`conditions.is_met`)."""
        fires = self._fires[2 * order.order_type + order.side]
        if fires is None:
            return False
        trigger = order.price_1e6 if order.order_type == _LIMIT else order.stop_price_1e6
        return price_1e6 >= trigger if fires else price_1e6 <= trigger

    def places(self, terms: Terms, watched: Watched) -> list[Place]:
        """Every index that watches an order with these terms, and its key there."""
        if watched is _EVERYTHING:
            return self.places_of(*terms)
        expires_at = terms[3] if watched is _EXPIRY else 0
        return [(self._expiries, expires_at if expires_at > 0 else 0)] if expires_at else []

    def places_of(
        self, market: int, order_type: int, side: int, expires_at: int, price: int, stop: int, distance: int
    ) -> list[Place]:
        """The same of an order with these terms of which everything is watched."""
        fires = self._fires[2 * order_type + side]
        if fires is None:
            places: list[Place] = []
        elif order_type == _TRAILING_STOP:
            places = [(self._triggers[market][fires], stop)]
            ratchet = threshold(stop, distance, _SIDES[side], self._step_ppm)
            if ratchet is not None and ratchet.price_1e6 <= MAX_KEY:  # beyond the program's integers is no price
                places.append((self._thresholds[market][ratchet.fires], ratchet.price_1e6))
        else:
            places = [(self._triggers[market][fires], price if order_type == _LIMIT else stop)]
        if expires_at:
            places.append((self._expiries, expires_at if expires_at > 0 else 0))
        return places

    @staticmethod
    def move(row: int, old: list[Place], new: list[Place]) -> None:
        """Take a row from its old places to its new ones, touching only those that differ."""
        if len(old) == len(new):
            # They come in one order, each kind of index at its own place.
            for before, after in zip(old, new, strict=True):
                if before != after:
                    before[0].remove(before[1], row)
                    after[0].add(after[1], row)
            return
        for place in old:
            if place not in new:
                place[0].remove(place[1], row)
        for place in new:
            if place not in old:
                place[0].add(place[1], row)

    def crossed(self, market: int, price_1e6: int, limit: int | None) -> list[int]:
        """The rows of the orders that this price triggers, in the order in which it passed them, at most `limit`."""
        falling, rising = self._triggers[market]
        return falling.from_top(price_1e6, limit) + rising.from_bottom(price_1e6, limit)

    def nearest(self, market: int, limit: int) -> list[int]:
        """The rows of the orders that a falling and a rising price would trigger first, at most `limit` of each."""
        falling, rising = self._triggers[market]
        return falling.from_top(0, limit) + rising.from_bottom(MAX_KEY, limit)

    def ratchets(self, market: int, price_1e6: int, limit: int | None) -> list[int]:
        """The rows of the trailing stops that this price moves by a step or more, at most `limit`."""
        falling, rising = self._thresholds[market]
        return falling.from_top(price_1e6, limit) + rising.from_bottom(price_1e6, limit)

    def expired(self, chain_time_s: float) -> Iterator[int]:
        """The rows of the orders that are past `expires_at`, the longest past first."""
        now = int(chain_time_s)
        for key, row in self._expiries.ascending():
            if key >= now:
                return
            yield row

    def by_trigger(self, market: int, fires: Fires) -> Iterator[tuple[int, int]]:
        """The (trigger, row) of the orders that fire on that side, the first to fire first."""
        index = self._triggers[market][fires]
        return index.descending() if fires is Fires.AT_OR_BELOW else index.ascending()
