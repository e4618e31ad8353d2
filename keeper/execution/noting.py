"""Resting orders in the journal: noted as they come, and after a flood of them at leisure."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import anyio
import anyio.lowlevel
from solders.pubkey import Pubkey

from keeper.domain.errors import JournalError
from keeper.domain.orders import Order, OrderState
from keeper.execution.flights import Flights
from keeper.execution.orders import Orders, rests
from keeper.journal import Journal
from keeper.journal.ops import NoteOrder
from keeper.triggers.book import Book

_AT_ONCE: Final = 2_048
"""So many new orders are noted as they come; beyond that they are noted later, at leisure."""
_PAUSE_S: Final = 0.5
_STEP: Final = 16
_STEP_S: Final = 0.03
"""Later: so many at a time, so that a commit rarely meets them, and then waits 2 ms. A million take half an hour."""
_YIELD_S: Final = 2.0
"""For so long each of these steps waits for a burst to pass."""


class RestingNotes:
    """Until an order is noted the chain remembers it, and an attempt at it notes it itself."""

    def __init__(
        self,
        journal: Journal,
        book: Book,
        orders: Orders,
        flights: Flights,
        share: frozenset[Pubkey] | None = None,
    ) -> None:
        self._journal = journal
        self._book = book
        self._orders = orders
        self._flights = flights
        self._share = share
        self._wanted = anyio.Event()

    def __repr__(self) -> str:
        return f"RestingNotes({'all are to be noted' if self._wanted.is_set() else 'up to date'})"

    def post(self, note: NoteOrder) -> None:
        """Note one order soon, or with all others when too many wait."""
        if self._journal.waiting_notes >= _AT_ONCE or not self._journal.post(note):
            self._wanted.set()

    def note_all(self) -> None:
        """Note every resting order of the share at leisure."""
        self._wanted.set()

    async def run(self) -> None:
        """Note them all when that is wanted, at a pace that leaves the journal to the attempts.

        Goes through the whole book, because remembering a million addresses would cost more than noting an order twice.
        """
        while True:
            await self._wanted.wait()
            await anyio.sleep(_PAUSE_S)
            self._wanted = anyio.Event()
            after: Pubkey | None = None
            while page := self._book.orders(after=after, limit=_STEP):
                if not (own := self._own(page)):
                    after = page[-1].address
                    await anyio.lowlevel.checkpoint()
                    continue
                await self._calm()
                try:
                    # Not posted: notes that wait for company would go with the next attempt's commit. And without
                    # an fsync of their own, or attempts would find the disk busy.
                    await self._journal.write(*(self.of(order) for order in own))
                except JournalError:
                    await anyio.sleep(_PAUSE_S)  # the disk: health tells of it; this page is noted later
                    continue
                after = page[-1].address
                await anyio.sleep(_STEP_S)

    def _own(self, page: Sequence[Order]) -> Sequence[Order]:
        return page if self._share is None else [order for order in page if order.market in self._share]

    async def _calm(self) -> None:
        """Return when few attempts are in flight, or after a while: a burst needs the journal, and notes its own."""
        ends = time.monotonic() + _YIELD_S
        while len(self._flights) > _STEP < self._flights.in_flight and time.monotonic() < ends:  # noqa: ASYNC110
            await anyio.sleep(_PAUSE_S)

    def of(self, order: Order, *, reopen: bool = True) -> NoteOrder:
        """The note on an order as its account reads. While an execution of it is open, or another reason holds, its
        state is that one's to say, and what it waits for is, where it waits.
        """
        address = order.address
        state = OrderState.OPEN if self._orders.at_rest(address) else None
        why = rests(order, self._book) if self._orders.free(address) else ""
        # Whose condition is met is known here, by whichever reading: another keeper may have noted a later one.
        says = state is not None
        return NoteOrder(order, state, why, reopen=reopen and says, stands=says)
