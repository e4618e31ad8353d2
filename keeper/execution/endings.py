"""What became of orders that are not pending any more: read at confirmed, not believed before.

The watch hears at processed, because a trigger can't wait. But a processed fill can be dropped by a fork, and its
order is then pending again. So when an order was filled, cancelled or closed, its account is read again at confirmed
before the journal calls it an end. And an end that one of the keeper's own attempts explains is never told anew.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final

import anyio
from solders.pubkey import Pubkey

from keeper.domain.errors import ChainError, JournalError, MalformedAccount
from keeper.domain.events import Event, OrderSeen
from keeper.domain.orders import OnchainStatus, Order, OrderState
from keeper.execution.orders import Orders, Reason
from keeper.execution.strangers import StrangersFills
from keeper.journal import Journal
from keeper.journal.ops import NoteOrder, NoteState
from keeper.journal.transitions import first_state
from keeper.solana.client import AccountBytes, ChainClient
from keeper.solana.gone import accounts_or_gone
from keeper.venue.venue import Venue

_BATCH: Final = 1_000
_PATIENCE_S: Final = 10.0
"""So long a reading is waited for that is as new as the news of the end. Then that news is not believed: a node that
told of a slot which the chain has not reached must not keep an order from being read."""

_REASONS: Final = {
    OnchainStatus.FILLED: "Another keeper filled it.",
    OnchainStatus.CANCELLED: "Its user cancelled it.",
    OnchainStatus.EXPIRED: "The program marked it expired.",
    OnchainStatus.REJECTED: "The program rejected it.",
}
GONE: Final = "Its account is gone: its user closed it."


class Endings:
    """Reads the orders with the reason ENDED, the latest news first, until a node answers for each."""

    def __init__(
        self,
        client: ChainClient,
        venue: Venue,
        journal: Journal,
        orders: Orders,
        strangers: StrangersFills | None = None,
    ) -> None:
        self._client = client
        self._strangers = strangers
        self._venue = venue
        self._journal = journal
        self._orders = orders
        self._asked_since: dict[Pubkey, float] = {}

    def __repr__(self) -> str:
        return f"Endings({len(self._orders.blocked(Reason.ENDED))} to read)"

    async def pause(self) -> None:
        """Wait until there is something to read, and a little in any case."""
        if not self._orders.blocked(Reason.ENDED):
            self._asked_since.clear()
            self._orders.ended.clear()
            await self._orders.ended.wait()
        await anyio.sleep(self._client.pool.pace.slot_s)

    def _due(self) -> dict[Pubkey, int]:
        """What to read: not those that the keeper's own attempt is in the air for. Its read-back says what happened to
        them, and reading a burst's fills a second time here would cost as much as the first.
        """
        ended = reversed(list(self._orders.blocked(Reason.ENDED)))
        due: dict[Pubkey, int] = {}
        for address in islice((a for a in ended if not self._orders.has(a, Reason.ATTEMPT)), _BATCH):
            record = self._orders.get(address)
            said = record.reasons[Reason.ENDED] if record is not None else None
            if isinstance(said, int):
                due[address] = said
        return due

    async def look(self) -> list[Event]:
        """One round; what turned out to be pending still. What no node can answer for yet stays for the next."""
        due = self._due()
        if not due:
            return []
        now_s = time.monotonic()
        for address in due:
            self._asked_since.setdefault(address, now_s)
        try:
            slot, accounts = await accounts_or_gone(self._client, list(due))
            explained = await self._journal.explained(list(due))
        except (ChainError, JournalError):
            return []
        unsaid = [account for address, account in zip(due, accounts, strict=True) if address not in explained]
        odd = await self._odd([account for account in unsaid if account is not None], slot)
        news: list[Event] = []
        for (address, said), account in zip(due.items(), accounts, strict=True):
            record = self._orders.get(address)
            if record is None or record.reasons.get(Reason.ENDED) != said or Reason.ATTEMPT in record.reasons:
                continue  # newer news, or an attempt, meanwhile
            if slot < said and now_s - self._asked_since[address] < _PATIENCE_S:
                continue  # an answer from before the news
            self._asked_since.pop(address, None)
            try:
                order = self._venue.order(account, slot)
            except MalformedAccount as e:
                # It is there, so it was not closed; what it is now can't be told until it reads well.
                self._orders.block(record, Reason.UNREADABLE, str(e))
                self._orders.lift(address, record.generation, Reason.ENDED)
                self._journal.post(NoteState(address, OrderState.FAILED, unreadable(str(e)), slot=slot))
                continue
            if order is not None and order.pending:
                self._orders.book.forget_end(address)
                news.append(OrderSeen(order))
                continue
            if address not in explained:
                self._journal.post(_end(address, order, slot, odd.get(address)))
            self._orders.close(address, slot)
        return news

    async def _odd(self, accounts: Sequence[AccountBytes], slot: int) -> Mapping[Pubkey, str]:
        """What is odd about the fills among these, in a sentence each."""
        filled: list[Order] = []
        for account in accounts:
            with suppress(MalformedAccount):
                order = self._venue.order(account, slot)
                if order is not None and order.status is OnchainStatus.FILLED:
                    filled.append(order)
        return {} if self._strangers is None or not filled else await self._strangers.off_condition(filled)


UNREADABLE: Final = "Its account can't be read"
"""How the sentence begins: a start knows these orders by it."""


def unreadable(reason: str) -> str:
    """The sentence on an order whose account does not decode."""
    return f"{UNREADABLE} ({reason}); it is watched until it can."


def _end(address: Pubkey, order: Order | None, slot: int, odd: str | None) -> NoteOrder | NoteState:
    if order is None:
        return NoteState(address, OrderState.DROPPED, GONE, slot=slot)
    reason = odd or _REASONS.get(order.status, f"It reads {order.status.word} on chain.")
    return NoteOrder(order, first_state(order.status), reason)
