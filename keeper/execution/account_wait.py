"""Orders whose users cannot pay: each waits until its user's margin account changes, and costs nothing.

A fill that was refused for want of collateral is refused again until the account changes, so trying by a timer
would only burn fees. The accounts are read together, 100 a call, every few seconds, and compared.

The first reading has nothing to be compared with: the user may have paid in between the refusal and the reading,
or while the keeper was down. So an account that is read for the first time has its orders rehearsed, once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import anyio
from anyio.abc import TaskStatus
from solders.pubkey import Pubkey

from keeper.domain.orders import Order
from keeper.errors import ChainError
from keeper.solana.client import ChainClient

_MOST_ORDERS: Final = 100_000
_REHEARSALS_AT_ONCE: Final = 8


@dataclass(slots=True)
class _Waiting:
    before: bytes | None
    orders: dict[Pubkey, Order] = field(default_factory=dict)
    read: bool = False


class AccountWait:
    """`changed(order)` is called for each order whose user's account is different from when it began to wait.

    `would_fill` says whether an order would be filled now; it may raise ChainError, and is asked again then.
    """

    def __init__(
        self,
        client: ChainClient,
        changed: Callable[[Pubkey], None],
        would_fill: Callable[[Order], Awaitable[bool]],
        *,
        every_s: float = 5.0,
    ) -> None:
        self._client = client
        self._changed = changed
        self._would_fill = would_fill
        self._every_s = every_s
        self._waiting: dict[Pubkey, _Waiting] = {}
        self._orders = 0
        self._wake = anyio.Event()

    def __repr__(self) -> str:
        return f"AccountWait({self._orders} orders on {len(self._waiting)} accounts)"

    def __len__(self) -> int:
        return self._orders

    def add(self, order: Order, account: Pubkey) -> None:
        """Let an order wait. Above a hundred thousand the oldest account's orders are let go first."""
        if self._orders >= _MOST_ORDERS:
            self._let_go(next(iter(self._waiting)))
        waiting = self._waiting.setdefault(account, _Waiting(None))
        if order.address not in waiting.orders:
            waiting.orders[order.address] = order
            self._orders += 1
        self._wake.set()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Compare the accounts, now and then, until cancelled."""
        task_status.started()
        while True:
            if not self._waiting:
                self._wake = anyio.Event()
                await self._wake.wait()
            await self.look()
            await anyio.sleep(self._every_s)

    async def look(self) -> None:
        """Read every account once. The first reading of an account is what later ones are compared with, and its
        orders are rehearsed after it: whatever was paid in before the reading, they see.
        """
        accounts = list(self._waiting)
        try:
            _, found = await self._client.accounts(accounts)
        except ChainError:
            return  # asked again at the next round
        first: list[Pubkey] = []
        for account, now in zip(accounts, found, strict=True):
            waiting = self._waiting.get(account)
            if waiting is None:
                continue
            data = None if now is None else now.data
            if not waiting.read:
                waiting.before = data
                first.append(account)
            elif data != waiting.before:
                self._let_go(account)
        at_once = anyio.Semaphore(_REHEARSALS_AT_ONCE)
        async with anyio.create_task_group() as tg:
            for account in first:
                tg.start_soon(self._rehearse, account, at_once)

    async def _rehearse(self, account: Pubkey, at_once: anyio.Semaphore) -> None:
        waiting = self._waiting[account]
        async with at_once:
            for address, order in list(waiting.orders.items()):
                try:
                    would_fill = await self._would_fill(order)
                except ChainError:
                    return  # not `read` yet: all of it again at the next round
                if would_fill and waiting.orders.pop(address, None) is not None:
                    self._orders -= 1
                    self._changed(address)
        waiting.read = True
        if not waiting.orders and self._waiting.get(account) is waiting:
            del self._waiting[account]

    def _let_go(self, account: Pubkey) -> None:
        waiting = self._waiting.pop(account)
        self._orders -= len(waiting.orders)
        for order in waiting.orders:
            self._changed(order)
