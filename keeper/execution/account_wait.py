"""Orders whose users cannot pay: each waits until its user's margin account changes, and costs nothing.

A fill that was refused for want of collateral is refused again until the account changes, so trying by a timer
would only burn fees. The accounts are read together, 100 a call, every few seconds, and compared.

The first reading has nothing to be compared with: the user may have paid in between the refusal and the reading,
or while the keeper was down. So an account that is read for the first time has its orders rehearsed, once. When the
rehearsal fails for another reason, such as the price, nothing is known of the account: the order may be tried again,
and the reading is kept, so that a second refusal finds what was paid in since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio
from solders.pubkey import Pubkey

from keeper.domain.attempts import AttemptKind, Fate
from keeper.domain.errors import ChainError
from keeper.execution.orders import Orders, Reason
from keeper.solana.client import ChainClient
from keeper.venue.rehearsal import rehearse
from keeper.venue.venue import Venue

_ACCOUNTS_A_ROUND: Final = 2_000
"""More are read in turn, so that a round is bounded."""
_REHEARSALS_AT_ONCE: Final = 8

Freed = tuple[Pubkey, int]
"""An order that may be tried again, and its generation."""


@dataclass(slots=True)
class _Account:
    """`before` is what was read first; `rehearsed` are the orders that were rehearsed after that, with generations, and
    `doubted` those of them of which that said nothing.
    """

    before: bytes | None
    rehearsed: set[Freed] = field(default_factory=set)
    doubted: set[Freed] = field(default_factory=set)


class AccountWait:
    """Reads the accounts of the orders with the reason ACCOUNT."""

    def __init__(self, client: ChainClient, venue: Venue, orders: Orders, *, every_s: float) -> None:
        self._client = client
        self._venue = venue
        self._orders = orders
        self._every_s = every_s
        self._accounts: dict[Pubkey, _Account] = {}
        self._next = 0

    def __repr__(self) -> str:
        return f"AccountWait({len(self._orders.blocked(Reason.ACCOUNT))} orders on {len(self._accounts)} accounts)"

    async def pause(self) -> None:
        """Until the next round."""
        await anyio.sleep(self._every_s)

    def _waiting(self) -> dict[Pubkey, list[Freed]]:
        """The orders that wait, by account; and what is remembered of accounts that nobody waits for any more goes."""
        waiting: dict[Pubkey, list[Freed]] = {}
        for address in self._orders.blocked(Reason.ACCOUNT):
            record = self._orders.get(address)
            account = record.reasons[Reason.ACCOUNT] if record is not None else None
            if record is not None and isinstance(account, Pubkey):
                waiting.setdefault(account, []).append((address, record.generation))
        for account in self._accounts.keys() - waiting.keys():
            doubted = self._accounts[account].doubted
            doubted -= {freed for freed in doubted if not self._still(*freed)}
            if not doubted:
                del self._accounts[account]
        return waiting

    def _still(self, address: Pubkey, generation: int) -> bool:
        record = self._orders.get(address)
        return record is not None and record.generation == generation

    async def look(self) -> list[Freed]:
        """One round; the orders that may be tried again. The first reading of an account is what later ones are
        compared with, and its orders are rehearsed after it: whatever was paid in before the reading, they see.
        """
        waiting = self._waiting()
        accounts = list(waiting)
        if len(accounts) > _ACCOUNTS_A_ROUND:
            start = self._next % len(accounts)
            self._next = start + _ACCOUNTS_A_ROUND
            accounts = [*accounts[start:], *accounts[:start]][:_ACCOUNTS_A_ROUND]
        if not accounts:
            return []
        try:
            slot, found = await self._client.accounts(accounts)
        except ChainError:
            return []  # asked again at the next round
        freed: list[Freed] = []
        new: list[Freed] = []
        for account, now in zip(accounts, found, strict=True):
            data = None if now is None else now.data
            known = self._accounts.setdefault(account, _Account(data))
            if data != known.before:
                del self._accounts[account]
                freed += waiting[account]
            else:
                new += [order for order in waiting[account] if order not in known.rehearsed]
        freed += await self._would_fill(new, slot)
        for address, generation in freed:
            record = self._orders.get(address)
            if record is not None and record.generation == generation:
                record.tries.as_of = slot
        return freed

    async def _would_fill(self, orders: Sequence[Freed], slot: int) -> list[Freed]:
        """Those that the program would fill at `slot` or later, or mark expired, which ends them by their name."""
        freed: list[Freed] = []
        at_once = anyio.Semaphore(_REHEARSALS_AT_ONCE)

        async def ask(waiting: Freed) -> None:
            order = self._orders.book.get(waiting[0])
            record = self._orders.get(waiting[0])
            account = None if record is None else self._accounts.get(record.reasons.get(Reason.ACCOUNT))  # type: ignore[arg-type]
            if order is None or account is None:
                return
            async with at_once:
                try:
                    found = await rehearse(self._client, self._venue, AttemptKind.EXECUTE, order, as_of=slot)
                except ChainError:
                    return  # asked again at the next round
            failure = found.failure
            if failure is not None and not found.refused:
                return  # the node's or the runtime's word, not the program's
            account.rehearsed.add(waiting)
            if failure is not None and failure.fate is not Fate.CANNOT_PAY:
                account.doubted.add(waiting)
            if failure is None or waiting in account.doubted:
                freed.append(waiting)

        async with anyio.create_task_group() as tg:
            for waiting in orders:
                tg.start_soon(ask, waiting)
        return freed
