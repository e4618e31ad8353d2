"""Filling a book with many orders at once, from the fields of their accounts: a million in a few seconds.

While a load is under way the orders given to it lie in the book's records but in none of its indices, so that nothing
finds them. Orders must reach the book by the load alone until `finish`; suspending and resuming any is allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from solders.pubkey import Pubkey

from keeper.domain.orders import OnchainStatus, OrderFields


class Shelf(Protocol):
    """What a load needs of the book."""

    def put(self, address: bytes, fields: OrderFields, slot: int) -> bool:
        """Keep a record, in no index; False when the book has something to say against it."""
        ...

    def index(self) -> None:
        """Put what was kept into the indices."""
        ...


class Loading:
    """A load under way. `otherwise` takes in one order the ordinary way."""

    def __init__(self, shelf: Shelf, otherwise: Callable[[Pubkey, OrderFields, int], object]) -> None:
        self._shelf = shelf
        self._otherwise = otherwise
        self._later: list[tuple[Pubkey, OrderFields, int]] = []

    def add(self, address: Pubkey, fields: OrderFields, slot: int) -> None:
        """One pending order as of `slot`."""
        assert fields[9] == OnchainStatus.PENDING, "only pending orders rest"
        if not self._shelf.put(bytes(address), fields, slot):
            self._later.append((address, fields, slot))

    def finish(self) -> None:
        """Make them rest. Takes about 2 s for a million, in one piece."""
        self._shelf.index()
        for address, fields, slot in self._later:
            self._otherwise(address, fields, slot)
        self._later.clear()
