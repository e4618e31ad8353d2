"""Orders that ended by somebody else's doing: believed at confirmed, not before.

The watch hears at processed, because a trigger can't wait. But a processed fill can be dropped by a fork, and its
order is then pending again. So when the watch says that an order was filled, cancelled or closed, the account is
read again at confirmed before the journal calls it an end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import anyio
from anyio.abc import TaskStatus
from solders.pubkey import Pubkey

from keeper.domain.events import Event, OrderSeen
from keeper.domain.orders import OnchainStatus, OrderState
from keeper.errors import ChainError, MalformedAccount
from keeper.execution.flights import Flights
from keeper.journal import Journal
from keeper.journal.ops import NoteOrder, NoteState
from keeper.journal.transitions import first_state
from keeper.solana.client import ChainClient
from keeper.venue.layouts import decode_order

_BATCH: Final = 1_000
_NOTED_REMEMBERED: Final = 200_000

_REASONS: Final = {
    OnchainStatus.FILLED: "Another keeper filled it.",
    OnchainStatus.CANCELLED: "Its user cancelled it.",
    OnchainStatus.EXPIRED: "The program marked it expired.",
    OnchainStatus.REJECTED: "The program rejected it.",
}
_GONE: Final = "Its account is gone: its user closed it."


class Endings:
    """Reads again what seems to have ended. `saw` is told of an order that turns out to be pending still.

    The orders waiting are bounded by the orders that ever rested; each is asked for until a node answers.
    """

    def __init__(
        self,
        client: ChainClient,
        journal: Journal,
        flights: Flights,
        program_id: Pubkey,
        saw: Callable[[Event], None],
        *,
        every_s: float = 0.4,
    ) -> None:
        self._client = client
        self._journal = journal
        self._flights = flights
        self._program_id = program_id
        self._saw = saw
        self._every_s = every_s
        self._due: dict[Pubkey, int] = {}
        self._noted: dict[Pubkey, None] = {}
        self._wake = anyio.Event()

    def __repr__(self) -> str:
        return f"Endings({len(self._due)} to read)"

    def __len__(self) -> int:
        return len(self._due)

    def add(self, address: Pubkey, slot: int) -> None:
        """As of `slot`, at processed, this order is no longer pending, or its account is gone.

        An end that was noted is not read again: an account of a filled order stays on chain, and every snapshot
        shows it.
        """
        if address in self._noted:
            return
        self._due[address] = max(slot, self._due.get(address, 0))
        self._wake.set()

    def revived(self, address: Pubkey) -> None:
        """It is pending (again): its end, if one was noted, is not the last, and one that is to be read is over."""
        self._noted.pop(address, None)
        self._due.pop(address, None)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Read what is due until cancelled."""
        task_status.started()
        while True:
            if not self._due:
                self._wake = anyio.Event()
                await self._wake.wait()
            await self.look()
            await anyio.sleep(self._every_s)

    def _without_flights(self) -> Iterator[tuple[Pubkey, int]]:
        """Not those that the keeper's own attempt is in the air for: its read-back says what happened to them, and
        reading a burst's fills a second time here would cost as much as the first.
        """
        for address, slot in list(self._due.items()):
            own = self._flights.own(address)
            if own is None:
                yield address, slot
            elif own.read_back:
                del self._due[address]
                self._note_end(address)

    async def look(self) -> None:
        """One round. What no node can answer for yet stays for the next."""
        asked = dict(list(self._without_flights())[:_BATCH])
        if not asked:
            return
        try:
            slot, accounts = await self._client.accounts(list(asked), min_context_slot=max(asked.values()))
        except ChainError:
            return
        for (address, said), account in zip(asked.items(), accounts, strict=True):
            if slot < said or self._due.get(address) != said:
                continue  # an answer from before the news, or newer news meanwhile
            del self._due[address]
            if self._flights.own(address) is not None:
                continue  # the keeper's own attempt is open: its read-back says what happened
            self._note_end(address)
            if account is None or account.owner != self._program_id:
                self._journal.post(NoteState(address, OrderState.DROPPED, _GONE, slot=slot))
                continue
            try:
                order = decode_order(address, account.data, slot)
            except MalformedAccount:
                continue
            if order.pending:
                self.revived(address)
                self._saw(OrderSeen(order))
                continue
            reason = _REASONS.get(order.status, f"It reads {order.status.word} on chain.")
            self._journal.post(NoteOrder(order, first_state(order.status), reason))

    def _note_end(self, address: Pubkey) -> None:
        if len(self._noted) >= _NOTED_REMEMBERED:
            # The oldest is read once more at the next snapshot; that costs a call, and changes nothing.
            del self._noted[next(iter(self._noted))]
        self._noted[address] = None
